"""What a run holds of its episodes does not grow with them beyond some hundred bytes each."""

import gc
import tracemalloc
from dataclasses import replace

import pytest
from prh.harness import evaluate, ranks
from prh.harness.evaluate import Plan, Watcher, load_profile, load_task
from prh.harness.media import Media
from prh.harness.request import Request
from prh.harness.scripted import ScriptedEngine
from prh.harness.store import RunStore
from prh.harness.task import Dataset
from prh.tests.harness.support import crop, png, sample, says, setting

FEW, MANY = 40, 240
# Bytes of an episode while it runs, for its place among the jobs, and when it is judged, for its row and its costs; of
# a record whole they would be thousands.
RUN, JUDGED = 400, 2000


def plan(folder, count, turns):
    images = [Media("image", f"{number}.png", png(280, 280, (number, 0, 0))) for number in range(8)]
    samples = [sample(images[number % 8], id=f"sample-{number:06}") for number in range(count)]
    boxes = [crop(0.1, 0.1, 0.5 + 0.01 * number, 0.6) for number in range(turns - 1)]
    engine, chosen = ScriptedEngine(says(*boxes, "\\boxed{A}")), setting(limits={"turns": 10, "images": 20})
    request = Request("scripted", "vstar-mini", folder)
    dataset, identity = Dataset(samples, {}), {"protocol": chosen.protocol.name}
    return Plan(
        request, load_task("vstar-mini"), load_profile("strict"), dataset, samples, engine, chosen, identity, 1.0, ()
    )


class Alone:
    """A group of one process."""

    rank, size = 0, 1

    def broadcast(self, value):
        return value

    def gather(self, value):
        return [value]


def run_in_ranks(made):
    return ranks.run_in_group(made, Alone(), Watcher())


@pytest.fixture
def peaks(tmp_path, monkeypatch):
    """Runs so many episodes of so many turns; what was held once they had run, and the most while they were judged.

    With ``begun`` all but the last of them were run before.
    """
    finish = evaluate.finish

    def measure(count, turns, run=evaluate.run, *, begun=False):
        found = []

        def watched(*given, **more):
            gc.collect()
            found.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.reset_peak()
            return finish(*given, **more)

        folder = tmp_path / f"{run.__name__}-{count}-{turns}-{begun}"
        if begun:
            made = plan(folder, count, turns)
            evaluate.run(replace(made, samples=made.samples[:-1]))
        made = plan(folder, count, turns)
        for owner in (evaluate, ranks):
            monkeypatch.setattr(owner, "finish", watched)
        tracemalloc.start()
        try:
            assert run(made).records == count
            return [*found, tracemalloc.get_traced_memory()[1]]
        finally:
            tracemalloc.stop()
            for owner in (evaluate, ranks):
                monkeypatch.setattr(owner, "finish", finish)

    measure(FEW, 2)
    return measure


@pytest.mark.parametrize("turns", [1, 4])
def test_a_run_holds_little_of_an_episode_that_has_ended(peaks, turns):
    few, many = peaks(FEW, turns), peaks(MANY, turns)
    run, judged = [(after - before) / (MANY - FEW) for before, after in zip(few, many, strict=True)]
    assert run < RUN
    assert judged < JUDGED


@pytest.mark.parametrize("run", [evaluate.run, run_in_ranks])
def test_a_run_that_is_gone_on_with_holds_no_records(peaks, run):
    few, many = peaks(FEW, 1, run, begun=True), peaks(MANY, 1, run, begun=True)
    held, judged = [(after - before) / (MANY - FEW) for before, after in zip(few, many, strict=True)]
    assert held < RUN
    assert judged < JUDGED


def test_names_of_stored_images_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("prh.harness.store.NAMES", 3)
    with RunStore(tmp_path) as store:
        names = [store._put(f"{number:064}", ".png", lambda: b"x") for number in range(8)]
        assert len(store._kept) <= 3
        assert names[0] == store._put(f"{0:064}", ".png", lambda: pytest.fail("stored twice"))
