"""A running ``vllm serve`` as what draws: the transformers engine's turns, and none from other weights."""

import asyncio

import pytest
from prh.harness.engine import EngineOptions, Place, TurnSpec
from prh.harness.errors import ModelError, UsageError
from prh.harness.media import pixel_digest
from prh.models import openai_body
from prh.models.transformers_engine import TransformersFactory
from prh.models.vllm_engine import VLLMFactory
from prh.models.vllm_line import Line
from prh.models.vllm_server import ServedSettings
from prh.tests.models import fake_vllm
from prh.tests.models.fake_server import ENVIRONMENT, Answer
from prh.tests.models.fake_vllm_serve import GENERATE, NAME, FakeServe
from prh.tests.models.support import hashed, noise, reply, say
from prh.tests.models.versions import adapter, learners, moved, question

SPEC = TurnSpec(12)
QUICK = {"retries": "2", "first_wait": "0.001"}
RANKED = Place(name="prh-1")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[fake_vllm.SERVING[0], fake_vllm.HIGHEST])
def serve(request, qwen25):
    """A server of the lowest and of the highest version that serves rollouts."""
    with FakeServe(qwen25, request.param) as server:
        yield server
        assert server.faults == []


def opened(folder, server, place=RANKED, rank=0, url=None, **extra):
    place = Place(place.rank, place.world, None, url or server.url, place.name)
    return VLLMFactory().versioned(str(folder), EngineOptions(extra={**QUICK, **extra}), rank, place)


def run(work, *engines):
    """What a coroutine gives; the engines are closed on its loop."""

    async def whole():
        try:
            return await work
        finally:
            for engine in engines:
                await engine.close()

    return asyncio.run(whole())


def test_three_turns_with_images_are_those_of_the_transformers_engine(serve, qwen25):
    ours, engine = TransformersFactory().open(str(qwen25), EngineOptions()), opened(qwen25, serve)
    first, second = question(), question()
    assert engine.fingerprint == ours.fingerprint

    async def play():
        await engine.load_weights(0, qwen25)
        for number in range(3):
            here, there = await ours.turn(first, SPEC), await engine.turn(second, SPEC)
            assert (here.text, here.ids, here.finish) == (there.text, there.ids, there.finish)
            assert there.logprobs == pytest.approx(here.logprobs, abs=1e-3)
            assert here.usage.prompt_tokens == there.usage.prompt_tokens
            for talk, turn in ((first, here), (second, there)):
                reply(talk, turn)
                say(talk, "user", f"Image {number}:", noise((56, 28 * (2 + number)), 10 + number), "And?")
        await ours.close()

    run(play(), engine)
    sent = serve.requests[2:]  # after the probe
    assert [len(one["content_parts"]) for one in sent] == [1, 2, 3]
    pad = serve.llm.model.config.image_token_id
    assert [one["token_ids"].count(pad) for one in sent] == [1, 2, 3], "one placeholder an image"
    uuids = [[part["uuid"] for part in one["content_parts"]] for one in sent]
    assert uuids[2][:2] == uuids[1]


def test_an_image_is_hashed_once_whatever_turns_show_it(serve, qwen25, monkeypatch):
    engine, talk, seen = opened(qwen25, serve), question(), hashed(monkeypatch)

    async def play():
        await engine.load_weights(0, qwen25)
        for _ in range(3):
            await engine.turn(talk, SPEC)

    run(play(), engine)
    assert len(seen) == 1
    named = {part["uuid"] for one in serve.requests for part in one.get("content_parts", [])}
    assert named == {pixel_digest(seen[0])}


def test_whole_weights_are_handed_over_and_drawn_with(serve, qwen25, tmp_path):
    engine = opened(qwen25, serve)
    models = {version: moved(qwen25, tmp_path / str(version), version) for version in (3, 5)}

    async def play():
        with pytest.raises(ModelError, match="no weights were handed over yet"):
            await engine.turn(question(), SPEC)
        for version, model in models.items():
            await engine.load_weights(version, tmp_path / str(version))
            turn = await engine.turn(question(), SPEC)
            assert turn.logprobs == pytest.approx(learners(qwen25, model, turn), abs=1e-4)
            assert learners(qwen25, None, turn) != pytest.approx(turn.logprobs, abs=1e-2)

    run(play(), engine)
    one = [path for method, path, _ in serve.calls if method == "POST"][:7]
    assert one == [
        *("/pause?mode=wait&clear_cache=true", "/update_weight_version", "/collective_rpc"),
        *("/reset_prefix_cache", "/reset_encoder_cache", "/update_weight_version", "/resume"),
    ]
    assert [label for label, _ in serve.drawn[2:]] == ["prh-1-3", "prh-1-5"]


def test_adapters_are_handed_over_under_names_of_their_own(serve, qwen25, tmp_path):
    engine = opened(qwen25, serve, rank=4)
    models = {version: adapter(qwen25, tmp_path / str(version), version) for version in (0, 2)}

    async def play():
        for version, model in models.items():
            await engine.load_weights(version, tmp_path / str(version))
            turn = await engine.turn(question(), SPEC)
            assert turn.logprobs == pytest.approx(learners(qwen25, model, turn), abs=1e-4)

    run(play(), engine)
    assert serve.drawn[2:] == [("default", "prh-1-0"), ("default", "prh-1-2")]
    assert list(serve.adapters) == ["prh-1-2"]


def test_the_others_load_nothing_and_draw_with_the_same(serve, qwen25, tmp_path):
    first, second = (opened(qwen25, serve, Place(rank, 2, name="prh-1")) for rank in range(2))
    model = moved(qwen25, tmp_path / "1")
    assert (first.leads, second.leads) == (True, False)

    async def play():
        with pytest.raises(ModelError, match="has the weights 'default' where 'prh-1-1' were handed over"):
            await second.load_weights(1, tmp_path / "1")
        with pytest.raises(ModelError, match="version 1 of the weights could not be taken"):
            await second.turn(question(), SPEC)

    run(play(), second)
    second = opened(qwen25, serve, Place(1, 2, name="prh-1"))

    async def in_order():
        await first.load_weights(1, tmp_path / "1")
        await second.load_weights(1, tmp_path / "1")
        turn = await second.turn(question(), SPEC)
        assert turn.logprobs == pytest.approx(learners(qwen25, model, turn), abs=1e-4)

    run(in_order(), first, second)
    assert sum(path == "/collective_rpc" for _, path, _ in serve.calls) == 1


def test_a_server_that_shares_the_gpu_sleeps_and_is_woken(serve, qwen25):
    engine = opened(qwen25, serve, sleep="true")

    async def play():
        await engine.load_weights(0, qwen25)
        serve.calls.clear()
        async with engine.aside():
            assert serve.asleep
        await engine.turn(question(), SPEC)

    run(play(), engine)
    assert [path for _, path, _ in serve.calls][:4] == [
        *("/sleep?level=1&mode=wait", "/wake_up", "/reset_prefix_cache", "/reset_encoder_cache"),
    ]


def test_no_more_requests_at_once_than_allowed_and_none_loses_time_in_the_queue(serve):
    serve.delay = 0.25
    line = Line(serve.url, "", ServedSettings(concurrency=2, timeout=2.0))

    async def play():
        await asyncio.gather(*(line.send("POST", "/reset_prefix_cache", {}) for _ in range(18)))

    for _ in range(2):  # each loop has connections and places of its own
        run(play(), line)
    assert serve.most == 2
    assert len(serve.calls) == 36


# -- what must never be taken for a rollout --------------------------------------------------------------------------


def turn_of(folder, server, act=lambda server: None, version=4, **options):
    """The failure of a turn before which something happens to the server, and of the next one."""
    engine, said = opened(folder, server, **options), []

    async def play():
        await engine.load_weights(version, folder)
        act(server)
        for _ in range(2):
            with pytest.raises(ModelError) as caught:
                await engine.turn(question(), SPEC)
            said.append(str(caught.value))

    run(play(), engine)
    assert "\n" not in said[0]
    return said


def test_a_server_that_was_started_again_adds_to_no_rollout(serve, qwen25):
    first, second = turn_of(qwen25, serve, FakeServe.again)
    assert first == second
    assert "has the weights 'default' where 'prh-1-4' were handed over: it was started again" in first
    assert len(serve.drawn) == 3, "nothing more is asked of it"


def test_a_server_that_another_training_took_over_adds_to_no_rollout(serve, qwen25):
    first, _ = turn_of(qwen25, serve, lambda server: setattr(server, "label", "prh-2-4"))
    assert "has the weights 'prh-2-4'" in first
    assert "another training uses it" in first


def test_a_server_that_changes_hands_while_a_turn_is_drawn(serve, qwen25):
    serve.at[2] = lambda server: setattr(server, "label", "other")
    first, _ = turn_of(qwen25, serve)
    assert "has the weights 'other'" in first


def test_an_adapter_that_is_gone(serve, qwen25, tmp_path):
    adapter(qwen25, tmp_path)
    engine = opened(qwen25, serve, rank=4)

    async def play():
        await engine.load_weights(0, tmp_path)
        serve.adapters.clear()
        with pytest.raises(ModelError, match="the adapter prh-1-0 is gone: was the server started again"):
            await engine.turn(question(), SPEC)

    run(play(), engine)


def test_a_server_that_dies(serve, qwen25):
    first, second = turn_of(qwen25, serve, FakeServe.die)
    assert "cannot be reached" in first
    assert first == second


def test_a_server_that_is_busy_is_asked_again(serve, qwen25):
    busy = Answer({"error": {"message": "busy", "code": 503}}, 503)
    engine = opened(qwen25, serve)
    serve.at = {2: lambda server: busy}

    async def play():
        await engine.load_weights(0, qwen25)
        return await engine.turn(question(), SPEC)

    assert run(play(), engine).ids
    assert engine.describe()["retried"] == 1


def test_weights_that_the_server_cannot_see(serve, qwen25, tmp_path):
    engine = opened(qwen25, serve)

    async def play():
        with pytest.raises(
            ModelError, match=r"version 1 of the weights could not be taken: .*Cannot find any model wei"
        ):
            await engine.load_weights(1, tmp_path)
        with pytest.raises(ModelError, match="version 1"):
            await engine.turn(question(), SPEC)

    run(play(), engine)
    assert not serve.paused, "others go on"
    assert serve.label == "prh-1-1-loading", "nobody knows what it holds"


def test_a_cache_that_is_not_emptied_ends_the_drawing(serve, qwen25):
    serve.stuck = True
    engine = opened(qwen25, serve)

    async def play():
        with pytest.raises(ModelError, match="did not empty its prefix cache: a request still runs"):
            await engine.load_weights(0, qwen25)
        with pytest.raises(ModelError, match="version 0 of the weights could not be taken"):
            await engine.turn(question(), SPEC)

    run(play(), engine)
    assert not serve.paused
    assert serve.label == "prh-1-0-loading"


def test_a_server_that_says_which_weights_drew_is_not_asked(serve, qwen25):
    engine = opened(qwen25, serve)

    async def play():
        await engine.load_weights(0, qwen25)
        serve.calls.clear()
        for _ in range(3):
            await engine.turn(question(), SPEC)

    run(play(), engine)
    says = "weight_versions" in serve.bodies("generate_choice")
    assert [path for _, path, _ in serve.calls] == ([] if says else ["/weight_info"] * 3)


def test_a_reply_whose_weights_are_not_to_be_read_is_none_of_theirs(serve, qwen25):
    engine = opened(qwen25, serve)
    whole = {"token_ids": [7], "finish_reason": "stop", "logprobs": {"content": [{"logprob": -1.0}]}}

    async def play():
        await engine.load_weights(0, qwen25)
        spans = [{"version": "prh-1-0", "start": 0, "end": 1}, "prh-1-0"]
        serve.instead = Answer({"choices": [{**whole, "weight_versions": spans}], "usage": {}})
        with pytest.raises(ModelError, match="has the weights None where 'prh-1-0' were handed over"):
            await engine.turn(question(), SPEC)

    run(play(), engine)


@pytest.mark.parametrize("lean", [False, True])
def test_an_image_that_was_resized_again_is_refused(serve, qwen25, lean):
    serve.lean, serve.llm.resize = lean, True
    engine = opened(qwen25, serve)
    talk = question()
    say(talk, "user", noise((280, 280), 3))

    async def play():
        await engine.load_weights(0, qwen25)
        with pytest.raises(ModelError, match="it resized or moved an image"):
            await engine.turn(talk, SPEC)

    run(play(), engine)


def test_a_reply_without_end_is_given_up_as_it_comes(serve, qwen25, monkeypatch):
    engine = opened(qwen25, serve)

    async def play():
        await engine.load_weights(0, qwen25)
        monkeypatch.setattr(openai_body, "MOST", 1 << 16)
        serve.instead = Answer(b" " * (1 << 17))
        with pytest.raises(ModelError, match=r": the reply has more than 0 MiB$"):
            await engine.turn(question(), SPEC)

    run(play(), engine)


def test_a_reply_that_is_none(serve, qwen25):
    engine = opened(qwen25, serve)
    whole = {"token_ids": [7, 8], "finish_reason": "stop", "logprobs": {"content": [{"logprob": -1.0}] * 2}}

    async def play():
        await engine.load_weights(0, qwen25)
        for change, message in (
            ({"token_ids": None}, "holds no token ids"),
            ({"token_ids": [7, "8"]}, "holds no token ids"),
            ({"token_ids": []}, "before its first token"),
            ({"logprobs": None}, "no log-probability for each token"),
            ({"logprobs": {"content": [{"logprob": -1.0}]}}, "no log-probability for each token"),
            ({"logprobs": {"content": [{"token": "token_id:9", "logprob": -1.0}] * 2}}, "of another token"),
            ({"finish_reason": "abort"}, "ended the turn with 'abort'"),
        ):
            serve.instead = Answer({"choices": [{**whole, **change}], "usage": {}})
            with pytest.raises(ModelError, match=message):
                await engine.turn(question(), SPEC)

    run(play(), engine)


# -- before anything is drawn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            "/weight_info",
            "GET /weight_info: the server answers 404: Not Found; it needs vLLM 0.31 or newer, started with V",
        ),
        (GENERATE, "started with --enable-scale-out"),
        ("/v1/models", "is it the URL of a `vllm serve`"),
    ],
)
def test_a_server_that_lacks_a_route_is_refused_as_it_is_opened(serve, qwen25, route, message):
    serve.without.add(route)
    with pytest.raises(ModelError, match=message.replace("?", r"\?")):
        opened(qwen25, serve)


DEVELOPER = "started with VLLM_SERVER_DEV_MODE=1"


@pytest.mark.parametrize(
    ("route", "rank", "message", "label"),
    [
        ("/v1/load_lora_adapter", 4, "it needs --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "default"),
        ("/pause", 0, DEVELOPER, "default"),
        ("/update_weight_version", 0, DEVELOPER, "default"),
        ("/collective_rpc", 0, DEVELOPER, "prh-1-0-loading"),
        ("/reset_prefix_cache", 0, DEVELOPER, "prh-1-0-loading"),
        ("/reset_encoder_cache", 0, DEVELOPER, "prh-1-0-loading"),
    ],
)
def test_a_server_that_cannot_take_weights_is_refused_with_the_first(
    serve, qwen25, tmp_path, route, rank, message, label
):
    """Where its weights changed, or may have, it is not left as if they had not."""
    serve.without.add(route)
    if rank:
        adapter(qwen25, tmp_path)
    else:
        moved(qwen25, tmp_path)
    engine, before = opened(qwen25, serve, rank=rank), serve.llm.model
    with pytest.raises(ModelError, match=message):
        run(engine.load_weights(0, tmp_path), engine)
    assert not serve.paused
    assert serve.label == label
    assert (serve.llm.model is before) == (not route.startswith("/reset"))


def test_what_ends_between_weights_and_their_name_leaves_none_that_is_taken(serve, qwen25, tmp_path):
    engine = opened(qwen25, serve)
    moved(qwen25, tmp_path)
    serve.after["/collective_rpc"] = lambda: serve.without.add("/update_weight_version")
    with pytest.raises(ModelError, match="could not be taken"):
        run(engine.load_weights(0, tmp_path), engine)
    serve.without.clear()
    serve.after.clear()
    with pytest.raises(UsageError, match="has the weights 'prh-1-0-loading', and an adapter needs"):
        opened(qwen25, serve, rank=4)
    again = opened(qwen25, serve)
    run(again.load_weights(0, qwen25), again)
    assert serve.label == "prh-1-0"


def test_log_probabilities_from_before_temperature_are_refused(serve, qwen25):
    serve.raw = True
    with pytest.raises(UsageError, match="start it with --logprobs-mode processed_logprobs"):
        opened(qwen25, serve)


def test_no_log_probabilities_are_refused(serve, qwen25):
    serve.instead = Answer({"choices": [{"token_ids": [7], "logprobs": None}]})
    with pytest.raises(UsageError, match="gives no log-probabilities"):
        opened(qwen25, serve)


def test_an_adapter_on_weights_that_were_changed_is_refused(serve, qwen25):
    serve.label = "prh-9-3"
    with pytest.raises(UsageError, match="has the weights 'prh-9-3', and an adapter needs those it was started with"):
        opened(qwen25, serve, rank=4)
    assert opened(qwen25, serve).version == -1


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("http://127.0.0.1:9", ModelError, "http://127.0.0.1:9: cannot be reached"),
        ("http://127.0.0.1:9/v1", ModelError, "http://127.0.0.1:9: cannot be reached"),
        ("http://u:p@h", UsageError, "must hold no user"),
        ("served", UsageError, "no base URL"),
    ],
)
def test_a_server_that_is_none(serve, qwen25, url, error, message):
    with pytest.raises(error, match=message) as caught:
        opened(qwen25, serve, url=url)
    assert "\n" not in str(caught.value)


def test_the_key_is_sent_and_never_said(serve, qwen25, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret1234567890")
    engine = opened(qwen25, serve)
    assert set(serve.authorizations) == {"Bearer sk-secret1234567890"}
    serve.instead = Answer({"error": {"message": "no: sk-secret1234567890"}}, 401)

    async def play():
        await engine.load_weights(0, qwen25)
        with pytest.raises(ModelError, match="answers 401: no: ") as caught:
            await engine.turn(question(), SPEC)
        assert "secret" not in str(caught.value)

    run(play(), engine)
    assert "secret" not in str(engine.describe())


def test_a_model_is_chosen_by_name(serve, qwen25):
    assert opened(qwen25, serve, url=f"{serve.url}/v1#{NAME}").describe()["model"] == NAME
    with pytest.raises(UsageError, match=f"serves {NAME}; choose with"):
        opened(qwen25, serve, url=f"{serve.url}#other")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gpus", "2", "the engine vllm with a server has no option 'gpus'"),
        ("sleep", "yes", "true or false"),
        ("retries", "-1", "a whole number from 0"),
        ("concurrency", "0", "a whole number from 1"),
        ("timeout", "0", "a number above 0"),
    ],
)
def test_options_are_checked(serve, qwen25, name, text, message):
    with pytest.raises(UsageError, match=message):
        opened(qwen25, serve, **{name: text})
