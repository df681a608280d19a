"""Whole runs against a server: the records of a model that thinks in this process, and no key anywhere."""

import asyncio
import json
import os
import random
import subprocess
import sys

import pytest
from prh.harness.engine import EngineOptions
from prh.harness.record import canonical, key_of
from prh.harness.runner import run_all
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.store import RunStore, read_json, read_records
from prh.harness.task import DataOptions
from prh.harness.types import ERROR_STATES
from prh.models.openai_engine import OpenAIFactory
from prh.tasks.vstar_mini import VStarMini
from prh.tests.harness.test_plugins import install
from prh.tests.models.fake_server import (
    ENVIRONMENT,
    MODEL,
    Answer,
    FakeServer,
    completion,
    decide,
    view_of_conversation,
    view_of_request,
)

KEY = "sk-secret-0123456789abcdef"
QUICK = {"first_wait": "0.01", "longest_wait": "0.05"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def samples(cache):
    return VStarMini().load(DataOptions()).samples


def play(engine, samples, folder, repeats=1, concurrency=8):
    """The canonical records of a run, by sample and repeat."""
    setting = resolve([("task", VStarMini().settings)], 0)
    jobs = [(sample, repeat) for sample in samples for repeat in range(repeats)]

    async def through():
        try:
            with RunStore(folder) as store:
                await run_all(jobs, engine, setting, store, concurrency=concurrency)
        finally:
            await engine.close()

    asyncio.run(through())
    return {key_of(record): canonical(record) for record in read_records(folder)}


def in_process():
    return ScriptedEngine(lambda conversation: decide(view_of_conversation(conversation)))


def behind(server, **extra):
    return OpenAIFactory().open(server.url, EngineOptions(extra={**QUICK, **extra}))


def test_a_server_gives_the_records_of_the_same_model_in_process(samples, tmp_path):
    chosen = [*samples[:25], *samples[-15:]]
    expected = play(in_process(), chosen, tmp_path / "here")
    with FakeServer() as server:
        engine = behind(server)
        got = play(engine, chosen, tmp_path / "there")
        assert server.faults == []
        assert len(server.requests) == sum(
            record["segments"][-1]["role"] == "assistant" for record in got.values()
        ) + sum(len(record["operations"]) for record in got.values())
    assert got == expected
    assert {record["end"] for record in got.values()} == {"answered"}
    operations = [operation for record in got.values() for operation in record["operations"]]
    assert sum(operation["error"] is None for operation in operations) > 40
    assert "parse" in {operation["error"] for operation in operations}
    assert any(operation["media"] > 1 for operation in operations), "a crop of a crop"
    assert engine.images.encoded == len({image["digest"] for record in got.values() for image in record["media"]})


def test_a_bad_server_gives_the_same_records_or_an_error(samples, tmp_path):
    chosen = samples[:20]
    expected = play(in_process(), chosen, tmp_path / "here", repeats=2)
    chance = random.Random(7)
    faults = [
        lambda: Answer("busy", 429, {"Retry-After": "0"}),
        lambda: Answer("oops", 500),
        lambda: Answer("loading", 503),
        lambda: Answer(completion("cut off"), cut=20),
        lambda: Answer(cut=-1),
    ]
    with FakeServer() as server:
        server.plan.extend(chance.choice(faults)() if chance.random() < 0.4 else None for _ in range(2000))
        assert play(behind(server, retries="40"), chosen, tmp_path / "there", repeats=2) == expected

        server.plan.clear()
        server.plan.extend(Answer("oops", 500) if chance.random() < 0.3 else None for _ in range(2000))
        got = play(behind(server, retries="0"), chosen, tmp_path / "poor", repeats=2)
    failed = {key for key, record in got.items() if record["end"] == "engine_error"}
    assert 0 < len(failed) < len(got)
    for key, record in got.items():
        if key not in failed:
            assert record == expected[key]
            continue
        assert "500: oops; given up after 0 retries" in record["error"]
        assert record["segments"] == expected[key]["segments"][: len(record["segments"])]


def test_an_image_of_several_questions_is_encoded_once(samples, tmp_path):
    first = samples[0]
    with FakeServer(reply=lambda request: completion("\\boxed{A}")) as server:
        engine = behind(server)
        got = play(engine, [first], tmp_path / "run", repeats=12)
    assert len(got) == 12
    assert engine.images.encoded == 1
    assert engine.describe()["requests"] == 12


# -- the command -------------------------------------------------------------------------------------------------


def prh(tmp_path, *words, key="", **environment):
    """The command in a process of its own, with the engine registered whether or not the package is installed so."""
    site = tmp_path / "site"
    if not site.exists():
        site.mkdir()
        install(site, "prh-openai", {"prh.engines": {"openai": "prh.models.openai_engine:OpenAIFactory"}})
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    # The client's own log must not tell a key either.
    settings = {"PYTHONPATH": str(site), "OPENAI_API_KEY": key, "OPENAI_LOG": "debug", **environment}
    return subprocess.run(
        [sys.executable, "-m", "prh", *words],
        capture_output=True,
        text=True,
        env={**plain, **settings},
        cwd=tmp_path,
        timeout=120,
        check=False,
    )


def test_the_command_evaluates_a_server(samples, tmp_path):
    out = tmp_path / "run"
    with FakeServer() as server:
        done = prh(tmp_path, "eval", "--model", server.url, "--task", "vstar-mini", "--limit", "5", "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert server.faults == []
        assert set(server.authorizations) == {"Bearer EMPTY"}
        manifest = read_json(out / "run.json")
        engine = manifest["engine"]
        assert (engine["name"], engine["model"], engine["requests"]) == ("openai", MODEL, len(server.requests))
        assert manifest["environment"]["versions"]["openai"] == engine["versions"]["openai"]
        records = read_records(out)
        assert len(records) == 5
        assert not [record for record in records if record["end"] in ERROR_STATES]
        expected = play(in_process(), samples[:5], tmp_path / "here")
        assert {key_of(record): canonical(record) for record in records} == expected
        again = prh(
            tmp_path,
            "eval",
            "--model",
            f"{server.url}#{MODEL}",
            "--task",
            "vstar-mini",
            "--limit",
            "7",
            "--out",
            str(out),
        )
        assert again.returncode == 0, again.stderr
        assert len(read_records(out)) == 7
        server.models[0]["root"] = "/models/other"
        other = prh(tmp_path, "eval", "--model", server.url, "--task", "vstar-mini", "--limit", "9", "--out", str(out))
        assert other.returncode == 2
        assert "begun with another model" in other.stderr


def misbehaving(server):
    """Every way to fail, the same for each request of a conversation whose first picture is chosen by its digest."""
    full = {"error": {"message": "maximum context length is 512 tokens"}}
    gone = {"error": {"message": "the model does not exist"}}
    ways = [
        lambda: Answer("busy", 429, {"Retry-After": "0"}),
        lambda: Answer("oops", 500),
        lambda: Answer(wait=5.0),
        lambda: Answer(completion("\\boxed{A}"), cut=40),
        lambda: Answer("{malformed"),
        lambda: Answer(gone, 404),
        lambda: Answer(full, 400),
        lambda: Answer({**completion("x"), "choices": []}),
        lambda: None,
        lambda: None,
    ]

    def answer(handler, request):
        digest = next(part for part in view_of_request(request)[1][1] if len(part) == 64)
        return ways[int(digest, 16) % len(ways)]()

    return [answer] * 10_000


def test_past_the_threshold_the_command_ends_with_3_and_a_resume_finishes(samples, tmp_path):
    out = tmp_path / "run"
    sets = ["engine.first_wait=0.01", "engine.longest_wait=0.02", "engine.retries=1", "engine.timeout=1"]
    words = ["eval", "--model", "URL", "--task", "vstar-mini", "--limit", "30", "--out", str(out)]
    words += [word for text in sets for word in ("--set", text)]
    with FakeServer() as server:
        words[2] = server.url
        server.plan.extend(misbehaving(server))
        done = prh(tmp_path, *words, OPENAI_LOG="")
        assert done.returncode == 3, done.stderr
        assert "than max_error_share allows" in done.stderr
        records = read_records(out)
        failed = {str(record["error"]) for record in records if record["end"] == "engine_error"}
        assert {record["end"] for record in records} == {"answered", "engine_error"}
        for said in ("429: busy", "500: oops", "no reply in time", "not JSON", "connection failed", "no message"):
            assert any(said in error and "given up after 1 retries" in error for error in failed), (said, failed)
        for said in (f"404: the model does not exist; it serves {MODEL}", "lower the pixel budget"):
            assert any(said in error and "given up" not in error for error in failed), (said, failed)
        metrics = read_json(out / "metrics.json")
        assert metrics["errors"]["engine_error"] == len(records) - metrics["n"] > 15
        server.plan.clear()
        again = prh(tmp_path, "resume", str(out), OPENAI_LOG="")
        assert again.returncode == 0, again.stderr
    expected = play(in_process(), samples[:30], tmp_path / "here")
    assert {key_of(record): canonical(record) for record in read_records(out)} == expected


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    with FakeServer() as server:
        url = server.url
    done = prh(tmp_path, "eval", "--model", url, "--task", "vstar-mini", "--limit", "1", OPENAI_LOG="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{url}: cannot be reached" in done.stderr


def test_a_key_that_a_server_echoes_is_nowhere(samples, tmp_path):
    """In its list, in good replies, in native calls, in errors and in the client's log."""

    def echo(handler, request):
        said = handler.headers["Authorization"]
        call = {"id": said, "type": "function", "function": {"name": said, "arguments": json.dumps({said: said})}}
        number = len(server.requests)
        if number % 4 == 1:
            return Answer({"error": {"message": f"headers: {dict(handler.headers)}"}}, 400)
        if number % 4 == 2:
            return Answer(str(handler.headers), 503, {"Retry-After": "0", "X-Echo": said})
        if number % 4 == 3:
            return Answer(completion(f"I was called with {said}", "tool_calls", tool_calls=[call]))
        return Answer(completion(f"\\boxed{{{said}}}"))

    with FakeServer() as server:
        server.models[0].update(root=f"/models/{KEY}", owned_by=KEY)
        server.plan.extend([echo] * 200)
        out = tmp_path / "run"
        words = ("eval", "--model", server.url, "--task", "vstar-mini", "--limit", "6", "--out", str(out))
        done = prh(tmp_path, *words, "--set", "max_error_share=1", key=KEY)
        assert done.returncode == 0, done.stderr
        assert set(server.authorizations) == {f"Bearer {KEY}"}
        ends = {record["end"] for record in read_records(out)}
        assert {"engine_error", "answered"} <= ends
        server.list_answer = Answer({"error": {"message": f"no: {KEY}"}}, 401)
        refused = prh(tmp_path, *words, key=KEY)
        assert refused.returncode == 2
    texts = [done.stdout, done.stderr, refused.stdout, refused.stderr]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any(path.name == "records.jsonl" for path in files)
    assert any("[key]" in path.read_text() for path in files if path.suffix == ".jsonl")
    for blob in [*(text.encode() for text in texts), *(path.read_bytes() for path in files)]:
        assert KEY.encode() not in blob
        assert KEY[3:].encode() not in blob
