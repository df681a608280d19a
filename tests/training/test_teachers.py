"""Who writes: annotations by their words, and models against a server that behaves and one that does not."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from prh.harness.engine import EngineOptions
from prh.harness.errors import DataError, ModelError, UsageError
from prh.harness.evaluate import load_profile
from prh.tests.models.fake_server import ENVIRONMENT, MODEL, Answer, FakeServer, completion
from prh.tests.training.making import film, image_seed, made, png, said, scene, video_seed
from prh.training.config import read_recipe
from prh.training.recipe import EndpointPart, RejectionPart, SourcePart, read
from prh.training.synth import Order, Screen, synthesise
from prh.training.teachers.asking import Asker, served_name
from prh.training.teachers.base import Case, value_of, voice_of
from prh.training.teachers.endpoint import Endpoint, read_analyses, read_proposal
from prh.training.teachers.rejection import Rejection
from prh.training.templates import draw

GOOD = {
    "overview": "The image shows some things. A ball lies in the middle.",
    "target": "the ball in the middle",
    "finding": "The ball is blue.",
    "answer": "B",
}
QUICK = {"first_wait": "0.01", "longest_wait": "0.02", "retries": 2}
SINGLE = SourcePart("test", mix={"single-pass": 1})


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No key, no proxy, and a cache of its own."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRH_CACHE", str(tmp_path / "cache"))


def endpoint(server, **values):
    part = EndpointPart(f"{server.url}#{MODEL}", **{"engine": QUICK, **values})
    return Endpoint(part, load_profile("strict"), 0)


def replies(value):
    """A server's reply: this JSON, or this text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda request: completion(text)


# -- annotations -------------------------------------------------------------------------------------------------


def test_annotations_say_what_the_data_say(tmp_path):
    _, (record,) = made(tmp_path / "run", [image_seed()], SINGLE)
    (first, _), (last, _) = said(record)
    assert first.startswith(
        "The question is about the ball. Now I will zoom in to look closer at the ball.\n<tool_call>"
    )
    assert last == "It shows that the answer is blue.\n\\boxed{B}"
    assert record["provenance"]["teacher"]["model"] is None
    assert "without a model" in record["provenance"]["teacher"]["how"]


def test_several_targets_and_none():
    both = image_seed(notes={"target": ["ball", "cup"]})
    assert voice_of(both).say("zoom") == "Now I will zoom in to look closer at the ball and the cup."
    assert "the part that the question is about" in voice_of(image_seed(notes={})).say("zoom")


def test_the_value_of_an_option_is_its_text():
    assert value_of(image_seed().sample) == "blue"
    assert value_of(replace(image_seed().sample, answer_kind="text", gold=("A cup",))) == "A cup"


# -- the endpoint ------------------------------------------------------------------------------------------------


def test_a_model_writes_the_analyses_and_is_not_told_the_answer(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        _, (record,) = made(tmp_path / "run", [image_seed()], SINGLE, endpoint(server))
    (first, _), (last, _) = said(record)
    assert first.startswith(
        "The image shows some things. A ball lies in the middle. Now I will zoom in to look closer at the ball.\n"
    )
    assert last == "The ball is blue.\n\\boxed{B}"
    assert not server.faults
    (request,) = server.requests
    parts = request["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    text = parts[-1]["text"]
    assert "What colour is the ball? (A) red (B) blue (C) green" in text
    assert "gold" not in text
    assert record["provenance"]["teacher"]["model"] == MODEL
    assert "127.0.0.1" not in json.dumps(record)


def test_a_phrase_of_the_model_names_what_nothing_else_names(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        _, (record,) = made(tmp_path / "run", [image_seed(notes={})], SINGLE, endpoint(server))
    assert "look closer at the ball in the middle.\n" in said(record)[0][0]


def test_frames_are_sent_as_the_call_will_show_them(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        seed = video_seed(film(tmp_path / "clip"))
        _, (record,) = made(tmp_path / "run", [seed], SINGLE, endpoint(server))
    images = [part for part in server.requests[0]["messages"][1]["content"] if part["type"] == "image_url"]
    assert len(images) == 16 + 3
    assert record["operations"][0]["frames"] == [5, 6, 7]


MALFORMED = [
    "no JSON",
    "",
    '{"overview": "x"}',
    json.dumps({**GOOD, "note": "more"}),
    json.dumps([GOOD]),
    json.dumps(GOOD)[:-9],
    json.dumps(GOOD) + " Done.",
    json.dumps({**GOOD, "finding": ["The ball is blue."]}),
    json.dumps({**GOOD, "finding": ""}),
    json.dumps({**GOOD, "finding": "blue " * 400}),
    json.dumps({**GOOD, "overview": "Look. <tool_call>{}</tool_call>"}),
    json.dumps({**GOOD, "overview": "Look.<|im_end|>"}),
    json.dumps({**GOOD, "finding": "It is blue. \\boxed{A}"}),
    json.dumps({**GOOD, "overview": "Zero\u200bwidth"}),
    json.dumps({**GOOD, "target": "bbox_2d"}),
    json.dumps({**GOOD, "target": "ball " * 40}),
    '{"overview": NaN, "target": "b", "finding": "blue", "answer": "B"}',
]
LYING = [
    json.dumps({**GOOD, "answer": "A"}),
    json.dumps({**GOOD, "answer": "B or C"}),
    json.dumps({**GOOD, "answer": ""}),
    json.dumps({**GOOD, "finding": "The ball is red."}),
    json.dumps({**GOOD, "overview": "A blue ball lies in the middle."}),
    json.dumps({**GOOD, "overview": "The answer is B."}),
    json.dumps({**GOOD, "target": "blue ball"}),
]


@pytest.mark.parametrize("text", MALFORMED + LYING)
def test_a_malformed_or_lying_reply_is_never_let_in(text):
    with pytest.raises(DataError):
        read_analyses(text, image_seed().sample, load_profile("strict"))


def test_a_reply_in_a_fence_is_read():
    text = f"```json\n{json.dumps(GOOD)}\n```"
    assert read_analyses(text, image_seed().sample, load_profile("strict")).finding == GOOD["finding"]


def test_bad_replies_are_asked_for_again_and_then_refused(tmp_path):
    with FakeServer(reply=replies(MALFORMED[0])) as server:
        server.plan.extend([None, Answer(completion(json.dumps(GOOD)))])
        tally, records = made(tmp_path / "one", [image_seed()], SINGLE, endpoint(server))
        assert len(records) == 1
        assert len(server.requests) == 2
        assert [request["temperature"] for request in server.requests] == [0.0, 0.7]
        tally, records = made(tmp_path / "two", [image_seed(2)], SINGLE, endpoint(server, tries=2))
    assert not records
    assert tally.refused["teacher"] == {"single-pass": 1}
    assert "after 2 replies" in tally.examples["teacher"][0]


def test_replies_are_kept_on_disk_and_asked_for_once(tmp_path):
    seeds = [image_seed(number) for number in range(4)]
    with FakeServer(reply=replies(GOOD)) as server:
        made(tmp_path / "one", seeds, SINGLE, endpoint(server))
        assert len(server.requests) == 4
        _, records = made(tmp_path / "two", [*seeds, image_seed(9)], SINGLE, endpoint(server))
        assert len(records) == 5
        assert len(server.requests) == 5


def test_a_server_that_is_gone_ends_the_synthesis_which_then_goes_on(tmp_path):
    seeds = [image_seed(number) for number in range(6)]
    part = replace(SINGLE, count=6)
    with FakeServer(reply=replies(GOOD)) as server:
        server.plan.extend([None, None, *[Answer({"error": "gone"}, 401)] * 40])
        with pytest.raises(ModelError):
            made(tmp_path / "run", seeds, part, endpoint(server), concurrency=1)
        server.plan.clear()
        before = len(server.requests)
        tally, records = made(tmp_path / "run", seeds, part, endpoint(server), concurrency=1)
    assert len(records) == 6
    assert not tally.refused
    assert len(server.requests) - before == 4


def test_a_request_that_a_server_never_takes_costs_its_seed_alone(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        server.plan.append(Answer({"error": {"message": "content policy"}}, 400))
        tally, records = made(tmp_path / "run", [image_seed(n) for n in range(3)], SINGLE, endpoint(server))
    assert len(records) == 2
    assert tally.refused["teacher"] == {"single-pass": 1}


def test_as_many_requests_at_once_as_trajectories(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        server.delay = 0.5
        made(tmp_path / "run", [image_seed(n) for n in range(12)], SINGLE, endpoint(server), concurrency=6)
        assert server.most == 6


def test_refusals_are_remembered_by_a_synthesis_that_goes_on(tmp_path):
    seeds = [image_seed(number) for number in range(3)]
    with FakeServer(reply=replies(LYING[0])) as server:
        made(tmp_path / "run", seeds, SINGLE, endpoint(server, tries=1))
        with (tmp_path / "run" / "refused.jsonl").open("ab") as file:
            file.write(b'["q0", 0, "sing')
        for path in (tmp_path / "cache" / "replies").rglob("*.json"):
            path.unlink()
        tally, _ = made(tmp_path / "run", seeds, SINGLE, endpoint(server, tries=1))
        assert len(server.requests) == 3
    assert tally.refused["teacher"] == {"single-pass": 3}


def test_what_it_costs_is_known_before_it_is_asked(tmp_path):
    with FakeServer(reply=replies(GOOD)) as server:
        teacher = endpoint(server, new_tokens=100)
        shown = scene(image_seed())
        case = Case(shown, draw("single-pass", shown, random.Random(0)), voice_of(shown.seed), 0)
        cost = asyncio.run(teacher.cost(case))
        assert not server.requests
        assert not server.lists
    assert (cost.requests, cost.images, cost.new_tokens) == (1, 2, 100)
    assert 320 * 240 / 784 < cost.prompt_tokens < 1500
    assert cost.times(5).images == 10


def test_a_whole_synthesis_says_what_it_costs_and_goes_on_for_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(png(seed=1))
    rows = [
        {"id": n, "image": "a.png", "question": f"Which {n}?", "choices": ["red", "blue"], "answer": "blue", **BOX}
        for n in range(5)
    ]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    seen = []

    class Till(Screen):
        def costs(self, source, teacher, count, one):
            seen.append((source, teacher, count, one.requests, one.images, len(server.requests)))

    with FakeServer(reply=replies(GOOD)) as server:
        values, root = read_recipe(str(tmp_path / "recipe.toml"))
        values["teacher"]["endpoint"]["model"] = f"{server.url}#{MODEL}"
        order = Order(read(values), root, tmp_path / "run", estimate=True)
        assert synthesise(order, Till()).records == 0
        assert not (tmp_path / "run").exists()
        assert synthesise(replace(order, estimate=False), Till()).records == 5
        assert len(server.requests) == 5
        server.stop()
        server.start()
        assert synthesise(replace(order, estimate=False), Till()).records == 5
        assert len(server.requests) == 5
        assert not server.faults
    assert seen == [("jsonl", "endpoint", 0, 1, 2, asked) for asked in (0, 0, 5)]


BOX = {"box": [100, 80, 140, 110], "box_unit": "pixels", "split": "train"}
RECIPE = """
[synth]
against = []
[teacher.endpoint]
model = ""
[[source]]
name = "jsonl"
data = "train.jsonl"
teacher = "endpoint"
mix = { single-pass = 1 }
"""


def test_a_teacher_without_a_model_says_how_to_name_one():
    with pytest.raises(UsageError, match=r"teacher\.endpoint\.model"):
        Endpoint(EndpointPart(), load_profile("strict"), 0)


def test_the_address_of_a_server_is_nobodys_business():
    assert served_name("http://10.0.0.7:8000/v1#a/b") == "a/b"
    assert served_name("some/folder#1") == "some/folder#1"


# -- proposals ---------------------------------------------------------------------------------------------------

PROPOSAL = {
    "valid": True,
    "target": "cap",
    "question": "What colour is the cap of the bottle?",
    "choices": ["red", "blue", "green", "white"],
    "answer": "red",
}


def test_a_question_is_proposed_where_there_is_none_and_then_answered(tmp_path):
    seeds = [image_seed(number, question="", choices=(), gold=(), notes={"propose": True}) for number in range(8)]

    def reply(request):
        text = request["messages"][1]["content"][-1]["text"]
        if "Find one fine detail" in text:
            return completion(json.dumps(PROPOSAL))
        letter = text[text.index(") red") - 1]
        finding = {**GOOD, "finding": "The cap is red.", "answer": letter}
        return completion(json.dumps(finding))

    with FakeServer(reply=reply) as server:
        _, records = made(tmp_path / "run", seeds, SINGLE, endpoint(server))
        assert not server.faults
    assert len(records) == 8
    assert all(record["question"] == PROPOSAL["question"] for record in records)
    assert all(record["provenance"]["proposed"] for record in records)
    assert len({record["gold"][0] for record in records}) > 1  # the right one is not always where the model had it


@pytest.mark.parametrize(
    "change",
    [
        {"valid": False},
        {"valid": "yes"},
        {"choices": ["red", "blue", "green"]},
        {"choices": ["red", "Red", "green", "white"]},
        {"answer": "pink"},
        {"question": "Is the red cap red?"},
        {"choices": ["red", "blue", "green", "<tool_call>"]},
    ],
)
def test_a_proposal_that_is_none_is_refused(change):
    with pytest.raises(DataError):
        read_proposal(json.dumps({**PROPOSAL, **change}), image_seed().sample, random.Random(0))


# -- rejection ---------------------------------------------------------------------------------------------------

TEXT_ONLY = SourcePart("test", mix={"text-only": 1})


def test_the_first_right_reply_is_kept_and_the_wrong_ones_are_not(tmp_path):
    texts = ["It is red. \\boxed{A}", "It may be blue.", "It is blue. \\boxed{B}", "Blue! \\boxed{B}"]
    with FakeServer() as server:
        server.plan.extend(Answer(completion(text)) for text in texts)
        part = RejectionPart(f"{server.url}#{MODEL}", engine=QUICK)
        _, (record,) = made(tmp_path / "run", [image_seed()], TEXT_ONLY, Rejection(part, 0))
        assert len(server.requests) == 3
        assert "<tools>" not in json.dumps(server.requests[0]["messages"])
        assert server.requests[0]["temperature"] == 1.0
        assert len({request["seed"] for request in server.requests}) == 3
    assert said(record) == [("It is blue. \\boxed{B}", True)]
    assert "<tools>" in record["segments"][0]["parts"][0]["text"]
    assert not record["operations"]


def test_no_right_reply_is_a_refusal_and_calls_are_never_let_in(tmp_path):
    call = '<tool_call>{"name": "crop_image"}</tool_call> \\boxed{B}'
    for number, text in enumerate(["\\boxed{A}", call]):
        with FakeServer(reply=replies(text)) as server:
            part = RejectionPart(f"{server.url}#{MODEL}", engine=QUICK, samples=2)
            tally, records = made(tmp_path / str(number), [image_seed()], TEXT_ONLY, Rejection(part, 0))
        assert not records
        assert tally.refused["teacher"] == {"text-only": 1}


def test_a_reply_is_judged_by_the_score_of_its_task():
    part = RejectionPart("oracle")
    seed = image_seed(answer_kind="integer", gold=("7",), choices=())
    of_task = replace(seed, origin={"task": "tallyqa-complex-mini"})
    teacher = Rejection(part, 0)
    assert teacher.right(of_task, "There are \\boxed{07}")
    assert not teacher.right(of_task, "There are \\boxed{8}")
    assert teacher.right(seed, "\\boxed{7}")


def test_it_writes_no_calls(tmp_path):
    tally, _ = made(tmp_path / "run", [image_seed()], SINGLE, Rejection(RejectionPart("oracle"), 0))
    assert "text-only" in tally.examples["teacher"][0]


def test_a_model_is_opened_once_however_many_ask(monkeypatch):
    opened = Counter()

    class Factory:
        def accepts(self, model):
            return True

        def open(self, model, options: EngineOptions):
            opened[model] += 1
            return object()

    monkeypatch.setattr("prh.training.teachers.asking.find_engine", lambda model, engine: Factory())

    async def ask():
        asker = Asker("m", {}, "endpoint")
        return await asyncio.gather(*(asker.engine() for _ in range(5)))

    assert len(set(map(id, asyncio.run(ask())))) == 1
    assert opened == {"m": 1}
