"""Counters of a run that is gone on with: added up over its sessions, and left alone where nothing ran."""

from pathlib import Path

from prh.harness.counts import add_seconds, add_up
from prh.harness.evaluate import begin, finish, plan, run
from prh.harness.request import Request
from prh.harness.scripted import ScriptedEngine
from prh.harness.store import RunStore, read_json, write_json
from prh.harness.task import Selection


class Counting(ScriptedEngine):
    """Answers A and counts, some things beneath tables, as engines do."""

    def __init__(self, device="cpu"):
        super().__init__(lambda conversation: "\\boxed{A}")
        self.device, self.requests = device, 0

    async def turn(self, conversation, spec):
        self.requests += 1
        return await super().turn(conversation, spec)

    def describe(self):
        busy = {"seconds": {"decode": 0.25 * self.requests}, "occupancy": 0.5 if self.requests else None}
        return {
            "name": "scripted",
            "device": self.device,
            "factor": 28,
            "requests": self.requests,
            "retries": {"429": self.requests} if self.requests else {},
            "used": {"cost": 0.1 * self.requests, "new_tokens": 7 * self.requests},
            "work": busy,
            "settings": {"retries": 0},
            "never": 0,
        }


def session(out: Path, limit: int, device: str = "cpu"):
    request = Request("oracle", "vstar-mini", out, selection=Selection(limit=limit))
    run(plan(request, Counting(device)))
    return read_json(out / "run.json")


def test_sessions_add_up_and_one_that_runs_nothing_changes_nothing(cache, tmp_path):
    first = session(tmp_path / "run", 3)
    assert first["engine"]["requests"] == 3
    assert first["engine"]["work"] == {"seconds": {"decode": 0.75}, "occupancy": 0.5}
    again = session(tmp_path / "run", 3, "cuda")
    assert again == first
    more = session(tmp_path / "run", 5, "cuda")["engine"]
    assert (more["requests"], more["retries"], more["used"]) == (5, {"429": 5}, {"cost": 0.5, "new_tokens": 35})
    assert more["work"]["seconds"] == {"decode": 1.25}
    assert (more["device"], more["factor"], more["settings"], more["never"]) == ("cuda", 28, {"retries": 0}, 0)
    seconds = read_json(tmp_path / "run" / "run.json")["seconds"]
    assert seconds.keys() == first["seconds"].keys() == {"media", "tools", "store"}
    assert all(seconds[name] >= first["seconds"][name] for name in seconds)


def test_a_count_that_did_not_grow_is_kept_and_a_setting_is_the_newest():
    before = {"retried": 4, "settings": {"retries": 8}, "retries": {"503": 2}, "limit": 9, "work": {"cache_share": 0.5}}
    same = {"retried": 0, "settings": {"retries": 0}, "retries": {}, "limit": 10, "work": {"cache_share": None}}
    kept = {"retried": 4, "settings": {"retries": 0}, "retries": {"503": 2}, "limit": 10, "work": {"cache_share": 0.5}}
    assert add_up(before, same, same) == kept
    assert add_up({}, {}, same) == same
    assert add_seconds({"media": 1.5}, {"media": 0.25, "store": 1.0}) == {"media": 1.75, "store": 1.0}
    assert add_seconds(None, {}) == {}


def test_a_run_whose_end_was_not_noted_is_finished(cache, tmp_path):
    out = tmp_path / "run"
    first = session(out, 2)
    write_json(out / "run.json", {**first, "finished": None})
    assert session(out, 2)["finished"] >= first["finished"]


def test_several_writers_add_up(cache, tmp_path):
    out = tmp_path / "run"
    made = plan(Request("oracle", "vstar-mini", out, selection=Selection(limit=2)), Counting())
    writers = []
    for device, requests in (("cuda:0", 3), ("cuda:1", 4)):
        engine = Counting(device)
        engine.requests = requests
        writers.append(engine.describe())
    for times in (1, 2):
        with RunStore(out) as store:
            begin(made, store)
            finish(made, store, 0, writers, ran=True)
        manifest = read_json(out / "run.json")
        assert (manifest["engine"]["requests"], manifest["engine"]["device"]) == (7 * times, "cuda:0")
        assert manifest["writers"] == writers * times
