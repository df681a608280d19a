"""lmms-eval both ways, and its models as engines: the same conversations, and scores that are its own.

Needs the environment of ``make test-lmms``. Docs are local files; nothing is downloaded.
"""

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from prh.harness.engine import EngineOptions
from prh.harness.errors import ModelError, UsageError
from prh.harness.record import canonical, key_of
from prh.harness.runner import run_all
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.store import RunStore, read_json, read_records
from prh.harness.task import DataOptions
from prh.models.lmms_engine import LmmsFactory, model_args
from prh.tasks.lmms import LmmsTask
from prh.tasks.profiles.strict import Strict
from prh.tasks.vstar_mini import VStarMini
from prh.tests.lmms.local import examples, shell, write_plugin, write_task
from prh.tests.models.fake_server import MODEL, Answer, FakeServer, decide, view_of_conversation

COUNT = 14
PLAIN = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


@pytest.fixture(scope="module")
def samples(cache):
    return VStarMini().load(DataOptions()).samples[:COUNT]


@pytest.fixture(scope="module")
def tasks(samples, tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("local") / "tasks", samples)


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory):
    folder = write_plugin(tmp_path_factory.mktemp("plugin") / "site")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(folder))
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    yield folder
    patch.undo()


def command(*words, code=0, python=sys.executable, **more):
    done = subprocess.run(
        [python, *words],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **more},
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def prh(*words, **more):
    done = command("-m", "prh", *words, **more)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def shown_and_said(folder):
    """Canonical records without what only one of the two sides knows: the answer, and what a picture is called."""
    found = {}
    for record in read_records(folder):
        kept = canonical(record)
        kept.pop("gold")
        found[key_of(record)] = kept
    return found


@pytest.fixture(scope="module")
def ours(tasks, tmp_path_factory):
    """`prh eval --task lmms:prh_local` against a server: direction 2."""
    out = tmp_path_factory.mktemp("ours") / "run"
    with FakeServer() as server:
        done = prh("eval", "--model", server.url, "--task", f"lmms:prh_local@{tasks}", "--out", str(out))
        assert server.faults == []
    return out, done


def test_a_task_of_lmms_eval_in_our_loop(ours, samples):
    out, done = ours
    assert f"{COUNT}/{COUNT} episodes" in done.stdout
    records = read_records(out)
    assert [record["gold"] for record in records] == [[samples[int(record["id"])].gold[0]] for record in records]
    assert all("Answer with the option's letter" in record["question"] for record in records)
    assert sum(len(record["operations"]) for record in records) > COUNT // 2, "the loop crops"
    rows = [json.loads(line) for line in (out / "scores" / "strict.jsonl").read_text().splitlines()]
    right = [float((row["answer"] or "")[:1].upper() == row["gold"][0]) for row in rows]
    assert [row["scores"] for row in rows] == [{"acc": value, "percent": value} for value in right]
    metrics = read_json(out / "metrics.json")
    assert metrics["primary"] == "acc"
    assert metrics["metrics"]["acc"]["value"] == pytest.approx(sum(right) / COUNT)
    assert metrics["metrics"]["percent"] == metrics["metrics"]["acc"], "a percentage is a rate"
    assert metrics["metrics"]["acc"]["low"] is not None


@pytest.fixture
def bare(tmp_path):
    """An interpreter of another environment: it has all that ours has but lmms-eval."""
    venv.create(tmp_path / "env", symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "env")}))
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site, sys; site.addsitedir({ours!r}); sys.modules['lmms_eval'] = None\n")
    return tmp_path / "env" / "bin" / "python"


def test_lmms_eval_under_another_interpreter_than_ours(ours, tasks, bare, tmp_path):
    """A task and a model of it, asked from an environment that has none: PRH_LMMS_EVAL_PYTHON names theirs."""
    words = ["-m", "prh", "eval", "--task", f"lmms:prh_local@{tasks}", "--engine", "lmms:prh_dummy"]
    words += ["--model", "no-file", "--out", str(tmp_path / "run")]
    done = command(*words, code=2, python=bare)
    assert "set PRH_LMMS_EVAL_PYTHON" in done.stderr
    command(*words, python=bare, PRH_LMMS_EVAL_PYTHON=sys.executable)
    assert shown_and_said(tmp_path / "run") == shown_and_said(ours[0]), "the model is the one of the server"
    theirs, here = (read_json(folder / "metrics.json")["metrics"]["acc"] for folder in (tmp_path / "run", ours[0]))
    assert theirs == here


def test_its_replies_are_scored_again_as_lmms_eval_reads_them(ours):
    out, _ = ours
    done = prh("score", str(out), "--profile", "lmms", "--json")
    metrics = json.loads(done.stdout)
    replies = {record["id"]: record["segments"][-1]["parts"][0]["text"] for record in read_records(out)}
    rows = [json.loads(line) for line in (out / "scores" / "lmms.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [replies[row["id"]] for row in rows]
    assert metrics["metrics"]["acc"]["value"] == sum(text.startswith("ABCD"[0]) for text in replies.values()) == 0


def test_nothing_of_lmms_eval_leaks(tasks):
    code = (
        "import sys; from prh.tasks.lmms import LmmsTask; from prh.harness.task import DataOptions; "
        f"data = LmmsTask('prh_local@{tasks}').load(DataOptions()); assert len(data.samples) == {COUNT}; "
        "assert not {'lmms_eval', 'loguru', 'torch', 'datasets'} & set(sys.modules), sys.modules.keys()"
    )
    done = command("-c", code)
    assert done.stdout == ""


def test_our_loop_as_a_model_of_lmms_eval(tasks, tmp_path, ours):
    """Direction 1: `python -m lmms_eval --model prh`; the traces are those of direction 2."""
    traces, out = tmp_path / "traces", tmp_path / "out"
    words = ["-m", "lmms_eval", "--model", "prh", "--tasks", "prh_local", "--include_path", str(tasks)]
    words += ["--batch_size", "1", "--output_path", str(out), "--log_samples"]
    with FakeServer() as server:
        args = f"model={server.url}#{MODEL},protocol=pixel-reasoner,out={traces},concurrency=8"
        command(*words, "--model_args", args)
        assert server.faults == []
        asked = len(server.requests)
        command(*words, "--model_args", args)
        assert len(server.requests) == asked, "finished episodes are not run again"
    assert shown_and_said(traces / "prh_local") == shown_and_said(ours[0])
    results = json.loads(next(out.rglob("*_results.json")).read_text())["results"]["prh_local"]
    assert results["acc,none"] == pytest.approx(read_json(ours[0] / "metrics.json")["metrics"]["acc"]["value"])
    lines = [json.loads(line) for line in next(out.rglob("*_samples_prh_local.jsonl")).read_text().splitlines()]
    records = {record["id"]: record for record in read_records(traces / "prh_local")}
    assert len(lines) == COUNT
    for line in lines:
        record = records[str(line["doc_id"])]
        said = record["segments"][-1]["parts"][0]["text"]
        answer = Strict().read(sample_of(record), said)[0]
        assert line["filtered_resps"] in ([answer], answer)
        assert "output_tokens" in json.dumps(line.get("token_counts"))
    shown = prh("show", str(traces / "prh_local"), "0")
    assert "turn 1" in shown.stdout
    assert read_json(traces / "prh_local" / "metrics.json")["metrics"]["rapr"]["value"] > 0


def sample_of(record):
    from prh.harness.record import sample_of as read

    return read(record)


def test_errors_are_no_answers_to_lmms_eval(tasks, tmp_path):
    """lmms-eval logs what a model raises, writes no results, and exits 0 all the same."""
    words = ["-m", "lmms_eval", "--model", "prh", "--tasks", "prh_local", "--include_path", str(tasks)]
    words += ["--output_path", str(tmp_path / "out")]
    with FakeServer() as server:
        server.plan.extend([Answer("no", 400)] * 1000)
        args = f"model={server.url}#{MODEL},out={tmp_path / 'traces'},budget.input=[784,78400]"
        done = command(*words, "--batch_size", "1", "--model_args", args)
    assert "ended in an error, which is no answer" in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*_results.json"))
    manifest = read_json(tmp_path / "traces" / "prh_local" / "run.json")
    assert manifest["identity"]["budget"]["input"] == [784, 78400], "a list is one argument"


# -- models of lmms-eval as engines ------------------------------------------------------------------------------


def opened(**extra):
    return LmmsFactory("prh_dummy").open("no-file", EngineOptions(extra=extra))


def play(engine, samples, folder):
    setting = resolve([("task", VStarMini().settings)], 0)

    async def through():
        try:
            with RunStore(folder) as store:
                await run_all([(sample, 0) for sample in samples], engine, setting, store, concurrency=8)
        finally:
            await engine.close()

    asyncio.run(through())
    return {key_of(record): canonical(record) for record in read_records(folder)}


def test_a_model_of_lmms_eval_gives_the_records_of_the_same_model_in_process(samples, tmp_path):
    expected = play(ScriptedEngine(lambda talk: decide(view_of_conversation(talk))), samples, tmp_path / "here")
    engine = opened()
    assert play(engine, samples, tmp_path / "there") == expected
    assert 0 < engine.describe()["requests"] < sum(len(record["segments"]) for record in expected.values()) / 2
    assert "lmms_eval" not in sys.modules or "prh_dummy_model" not in sys.modules


def test_the_command_runs_one(tmp_path):
    out = tmp_path / "run"
    words = ["--model", "no-file", "--engine", "lmms:prh_dummy", "--task", "vstar-mini", "--limit", "3"]
    prh("eval", *words, "--out", str(out))
    assert read_json(out / "run.json")["engine"]["name"] == "lmms:prh_dummy"
    assert {record["end"] for record in read_records(out)} == {"answered"}


@pytest.mark.parametrize(
    ("fail", "said"),
    [("sentinel", "gave a turn up: [LMMS_EVAL_REQUEST_FAILED"), ("raise", "RuntimeError: out of memory")],
)
def test_a_failure_is_an_error_and_no_text(samples, tmp_path, fail, said):
    records = play(opened(fail=fail), samples, tmp_path / "run")
    failed = [record for record in records.values() if record["end"] == "engine_error"]
    assert failed
    assert all(said in record["error"] for record in failed)


# -- docs/lmms-eval.md -------------------------------------------------------------------------------------------


def test_the_examples_of_the_docs(tasks, tmp_path):
    blocks = examples()
    assert set(blocks) == {"inside", "tasks", "engine"}
    with FakeServer() as server:
        names = {
            "CKPT": f"{server.url}#{MODEL}",
            "--tasks vstar_bench": f"--tasks prh_local --include_path {tasks}",
            "traces/vstar_bench": "traces/prh_local",
            "/path/to/lmms-environment/bin/python": sys.executable,
            "lmms:vstar_bench": f"lmms:prh_local@{tasks}",
            "my_task@my_tasks": f"prh_local@{tasks}",
        }
        assert f"prh_local: {COUNT} episodes" in shell(blocks["inside"], tmp_path, names)
        shell(blocks["tasks"], tmp_path, names)
        assert server.faults == []
    for run in ("traces/prh_local", "runs/vstar-lmms", "runs/mine"):
        assert len(read_records(tmp_path / run)) == COUNT
    names = {"Qwen/Qwen2.5-VL-7B-Instruct": "no-file", "qwen2_5_vl": "prh_dummy", "vstar": "vstar-mini --limit 2"}
    shell(blocks["engine"], tmp_path, names)
    assert len(read_records(tmp_path / "runs" / "qwen-lmms")) == 2


def test_what_is_wrong_is_one_line(tasks):
    with pytest.raises(ModelError, match="there is no task 'nothing'"):
        LmmsTask(f"nothing@{tasks}").load(DataOptions())
    with pytest.raises(ModelError, match="of the kind 'loglikelihood'"):
        LmmsTask(f"prh_likely@{tasks}").load(DataOptions())
    with pytest.raises(UsageError, match="name the task"):
        LmmsTask("")
    with pytest.raises(UsageError, match="name the chat model"):
        LmmsFactory().open("x", EngineOptions())
    with pytest.raises(UsageError, match="hold no commas"):
        model_args("a,b", {})
    with pytest.raises(ModelError, match="lmms-eval's model no_such_model"):
        LmmsFactory("no_such_model").open("x", EngineOptions())
