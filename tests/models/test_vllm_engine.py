"""The engine ``vllm`` on a fake held to vLLM's recorded interface: the transformers engine's turns, and faults."""

import asyncio
import json

import pytest
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.errors import ModelError, Prerequisite, UsageError
from prh.harness.ledger import Segment, Text
from prh.harness.media import pixel_digest
from prh.harness.types import Size, Span
from prh.models.loading import load_config
from prh.models.transformers_engine import TransformersFactory
from prh.models.vllm_engine import VLLMFactory, check_rope, vllm_version
from prh.models.vllm_settings import Settings, lora_rank
from prh.tests.models import fake_vllm
from prh.tests.models.support import conversation, hashed, noise, prompt_ids, reply, run, say
from prh.tests.models.versions import adapter, plain_rope

SPEC = TurnSpec(12)


@pytest.fixture(params=[fake_vllm.LOWEST, fake_vllm.HIGHEST])
def number(request):
    """The version of vLLM."""
    return request.param


@pytest.fixture
def started(monkeypatch, number):
    return fake_vllm.install(monkeypatch, number)


@pytest.fixture
def opened(qwen25, started):
    """An engine over the tiny checkpoint, and the fake beneath it."""

    def open_one(**extra):
        engine = VLLMFactory().open(str(qwen25), EngineOptions(extra=extra))
        return engine, started[-1]

    return open_one


def question(key="s#0"):
    talk = conversation(key)
    say(talk, "system", "Be brief.")
    say(talk, "user", noise((84, 56), 1), f"What is {key}?")
    return talk


def failure(engine, talk=None, spec=SPEC):
    with pytest.raises(ModelError) as caught:
        run(engine.turn(talk or question(), spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_three_turns_with_images_are_those_of_the_transformers_engine(opened, qwen25):
    ours = TransformersFactory().open(str(qwen25), EngineOptions())
    engine, llm = opened()
    assert engine.fingerprint == ours.fingerprint
    assert engine.caps.token_ids
    first, second = question(), question()

    async def play():
        for number in range(3):
            here, there = await ours.turn(first, SPEC), await engine.turn(second, SPEC)
            assert (here.text, here.ids, here.finish) == (there.text, there.ids, there.finish)
            assert there.logprobs == pytest.approx(here.logprobs, abs=1e-3)
            assert here.usage.prompt_tokens == there.usage.prompt_tokens
            for talk, turn in ((first, here), (second, there)):
                reply(talk, turn)
                say(talk, "user", f"Image {number}:", noise((56, 28 * (2 + number)), 10 + number), "And?")
        await ours.close()

    run(play())
    assert [len(prompt["multi_modal_data"]["image"]) for prompt in llm.prompts] == [1, 2, 3]
    pad = llm.model.config.image_token_id
    assert [prompt["prompt_token_ids"].count(pad) for prompt in llm.prompts] == [1, 2, 3], "one placeholder an image"
    uuids = [prompt["multi_modal_uuids"]["image"] for prompt in llm.prompts]
    assert uuids[2][:2] == uuids[1]
    assert len(set(uuids[2])) == 3


def test_an_image_is_hashed_once_whatever_turns_show_it(opened, monkeypatch):
    (engine, llm), talk, seen = opened(), question(), hashed(monkeypatch)

    async def play():
        for _ in range(3):
            await engine.turn(talk, SPEC)

    run(play())
    assert len(seen) == 1
    assert [prompt["multi_modal_uuids"]["image"] for prompt in llm.prompts] == [[pixel_digest(seen[0])]] * 3


def test_the_prompt_is_written_as_by_hand(opened, qwen25):
    engine, _ = opened()
    talk = question()
    ended = engine.speech.ends[0]
    talk.commit(Segment("assistant", (Text("x"),), ids=(7, 8, ended)))
    say(talk, "user", noise((28, 56), 2), "Go on")
    assert list(engine.speech.prompts.write(talk).expanded) == prompt_ids(qwen25, talk, 28)


def test_an_image_that_was_resized_again_is_refused(opened):
    engine, llm = opened()
    llm.resize = True
    talk = question()
    say(talk, "user", noise((280, 280), 3))
    assert "it resized or moved an image" in failure(engine, talk)


def test_a_stray_placeholder_in_a_reply_is_refused_before_anything_is_sent(opened):
    engine, llm = opened()
    talk = question()
    pad = llm.model.config.image_token_id
    talk.commit(Segment("assistant", (Text("x"),), ids=(7, pad, engine.speech.ends[0])))
    say(talk, "user", "Go on")
    assert "2 image tokens stand for 1 images" in failure(engine, talk)
    assert llm.prompts == []


def test_a_text_alone_sends_no_images(opened):
    engine, llm = opened()
    talk = conversation()
    say(talk, "user", "Say something.")
    assert run(engine.turn(talk, SPEC)).ids
    assert set(llm.prompts[0]) == {"prompt_token_ids"}


def test_all_of_a_spec_is_asked_for(opened):
    engine, llm = opened(data_parallel="4")
    spec = TurnSpec(5, 0.7, 0.9, (1 << 56) - 1, ("</a>",), (3, 4))
    run(engine.turn(question(), spec))
    name, params, given = llm.requests[0]
    assert (params.temperature, params.top_p, params.seed, params.max_tokens) == (0.7, 0.9, (1 << 56) - 1, 5)
    assert (params.stop, params.detokenize, params.logit_bias) == (["</a>"], True, {3: -100.0, 4: -100.0})
    assert set(params.stop_token_ids) == {*engine.speech.ends, *engine.speech.processor.vision_ids}
    run(engine.turn(question(), spec))
    assert llm.requests[1][0] != name
    assert llm.requests[1][2]["data_parallel_rank"] == given["data_parallel_rank"] in range(4), "it keeps its copy"
    run(engine.turn(question(), TurnSpec(5)))
    assert (llm.requests[2][1].logit_bias, llm.requests[2][1].detokenize) == (None, False)


def test_a_vision_token_makes_a_turn_malformed(opened):
    engine, llm = opened()
    vocabulary = range(llm.model.config.get_text_config().vocab_size)
    stray = min(engine.speech.processor.vision_ids)
    llm._draw = lambda ids, images, params, model: ([*list(vocabulary)[40:42], stray], [0.0] * 3)
    assert run(engine.turn(question(), SPEC)).finish == "malformed"


def test_a_turn_that_reaches_its_length(opened):
    engine, llm = opened()
    (letter,) = engine.speech.processor.encode("a", opening=False)
    others = set(range(llm.model.config.get_text_config().vocab_size)) - {letter}
    turn = run(engine.turn(question(), TurnSpec(3, banned_ids=tuple(others))))
    assert (turn.text, turn.finish, turn.ids, len(turn.logprobs)) == ("aaa", "length", (letter,) * 3, 3)


def test_a_context_that_is_full(opened):
    engine, llm = opened(context="16")
    assert llm.args.max_model_len == 16
    assert "the model's context holds 16: lower the pixel budget" in failure(engine)


def test_more_bans_than_the_worker_bears(opened):
    engine, _ = opened()
    assert "ban 1024 ids at most" in failure(engine, spec=TurnSpec(4, banned_ids=tuple(range(1025))))


def test_a_failed_turn_is_asked_for_once_more(opened):
    engine, llm = opened()
    llm.plan.append("error")
    assert run(engine.turn(question(), SPEC)).ids
    assert engine.describe()["retried"] == 1
    llm.plan.extend(["error", "abort"])
    assert failure(engine) == "vLLM ended the turn with 'abort', 2 times"


def test_what_vllm_raises_is_one_line_and_an_engine_that_died_says_so(opened):
    engine, llm = opened()
    cause = ValueError("image\ntoo large")
    wrapped = RuntimeError("EngineGenerateError")
    wrapped.__cause__ = cause
    llm.plan.append(wrapped)
    assert failure(engine) == "vLLM refuses this turn: ValueError: image too large"
    llm.plan.append(fake_vllm.EngineDeadError("see the log"))
    assert "EngineDeadError" in failure(engine)
    assert "has died; its log says why" in failure(engine)


def test_cancelling_a_turn_closes_its_request(opened):
    engine, llm = opened()

    async def play():
        llm.hold = asyncio.Event()
        turn = asyncio.create_task(engine.turn(question(), SPEC))
        while not llm.prompts:
            await asyncio.sleep(0.01)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert llm.closed == 1
        await engine.close()

    run(play())
    assert ("shutdown", (), {}) in llm.calls


def test_what_it_is_started_with(opened, number):
    engine, llm = opened(tensor_parallel="2", backend="ray", memory="0.5", eager="true", sleep="TRUE", rows="8")
    args = vars(llm.args)
    assert (args["tensor_parallel_size"], args["gpu_memory_utilization"], args["max_num_seqs"]) == (2, 0.5, 8)
    assert (args["data_parallel_backend"], args["distributed_executor_backend"]) == ("ray", "ray")
    assert (args["enforce_eager"], args["enable_sleep_mode"], args["enable_prefix_caching"]) == (True, True, True)
    assert args["logprobs_mode"] == "processed_logprobs"
    assert engine.fit(Size(300, 300), Span(1, 28 * 28 * 5)) == Size(56, 56)
    notes = engine.describe()
    json.dumps(notes, allow_nan=False)
    assert notes["versions"]["vllm"] == number


def test_an_adapter_is_served_beside_its_base(qwen25, started, tmp_path):
    adapter(qwen25, tmp_path, rank=20)
    engine = VLLMFactory().open(str(tmp_path), EngineOptions())
    run(engine.turn(question(), SPEC))
    assert (started[0].args.enable_lora, started[0].args.max_lora_rank) == (True, 32)
    assert started[0].requests[0][2]["lora_request"].lora_path == str(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4096}))
    with pytest.raises(ModelError, match="rank 4096 cannot be served"):
        lora_rank(tmp_path)


def test_what_an_adapter_has_for_the_vision_tower_is_served(qwen25, started, tmp_path):
    """The modules that a training adapts by default are some of the tower's too."""
    adapter(qwen25, tmp_path / "speech")
    adapter(qwen25, tmp_path / "sight", modules=("q_proj", "gate_proj"))
    VLLMFactory().open(str(tmp_path / "speech"), EngineOptions())
    assert not hasattr(started[0].args, "enable_tower_connector_lora")
    engine = VLLMFactory().open(str(tmp_path / "sight"), EngineOptions())
    assert started[1].args.enable_tower_connector_lora
    assert engine.describe()["settings"]["tower_lora"]
    run(engine.turn(question(), SPEC))
    (tmp_path / "sight" / "adapter_model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors cannot be read"):
        VLLMFactory().open(str(tmp_path / "sight"), EngineOptions())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory", "1.5"),
        ("memory", "x"),
        ("tensor_parallel", "0"),
        ("backend", "slurm"),
        ("eager", "1"),
        ("rows", "-1"),
    ],
)
def test_options_that_are_none(name, text):
    with pytest.raises(UsageError, match=name):
        Settings.read({name: text})
    with pytest.raises(UsageError, match="no option 'gpus'"):
        Settings.read({"gpus": "2"})


def test_positions_that_vllm_does_not_know_are_refused_as_it_is_opened(qwen25, tmp_path):
    folder = plain_rope(qwen25, tmp_path / "plain")
    check_rope(load_config(folder, trust_remote_code=False), folder)
    with pytest.raises(ModelError, match=r"in 18 parts \(mrope_section\) and vLLM in 3; use --engine transformers"):
        check_rope(load_config(qwen25, trust_remote_code=False), qwen25)


def test_without_vllm_one_line_says_what_is_missing(qwen25):
    with pytest.raises(Prerequisite, match="pip install 'prh\\[vllm\\]'"):
        VLLMFactory().open(str(qwen25), EngineOptions())


def test_a_vllm_that_does_not_import_is_told(qwen25, started, monkeypatch):
    monkeypatch.setitem(fake_vllm.sys.modules, "vllm", None)
    with pytest.raises(Prerequisite, match="is installed but does not import"):
        vllm_version()


def test_a_model_that_vllm_cannot_start_with(qwen25, started, monkeypatch):
    def broken(args):
        raise RuntimeError("no GPU\nfound")

    monkeypatch.setattr(fake_vllm.sys.modules["vllm"].AsyncLLMEngine, "from_engine_args", broken)
    with pytest.raises(ModelError, match=r"vLLM cannot start with .*: RuntimeError: no GPU found"):
        VLLMFactory().open(str(qwen25), EngineOptions())
