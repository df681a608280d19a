"""The scheduler, with work that no model does."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from prh.harness.engine import Turn
from prh.harness.errors import DataError, ModelError
from prh.models.batching import Scheduler, explain, out_of_memory


def echo(batches):
    def run(jobs):
        batches.append([job.work for job in jobs])
        for job in jobs:
            job.finish(Turn(str(job.work)))

    return run


def submit(scheduler, works, prepare=lambda work: work):
    async def gather():
        every = asyncio.gather(*(scheduler.submit(lambda w=w: prepare(w)) for w in works), return_exceptions=True)
        return await asyncio.wait_for(every, 30)

    return asyncio.run(gather())


def test_all_that_is_being_prepared_joins_the_batch():
    batches = []
    gate = threading.Barrier(2, timeout=10)

    def prepare(work):
        gate.wait()
        return work

    scheduler = Scheduler(echo(batches), 4)
    got = submit(scheduler, range(2), prepare)
    assert [turn.text for turn in got] == ["0", "1"]
    assert sorted(map(sorted, batches)) == [[0, 1]]
    asyncio.run(scheduler.close())


def test_a_batch_holds_no_more_than_its_size_and_nothing_is_lost():
    batches = []
    scheduler = Scheduler(echo(batches), 3)
    got = submit(scheduler, range(20))
    assert [turn.text for turn in got] == [str(number) for number in range(20)]
    assert max(map(len, batches)) <= 3
    assert sorted(number for batch in batches for number in batch) == list(range(20))
    asyncio.run(scheduler.close())


@pytest.mark.parametrize("guilty", [{0}, {6}, {1, 5}, set(range(7))])
def test_a_failing_batch_is_halved_until_the_guilty_stand_alone(guilty):
    def run(jobs):
        if guilty & {job.work for job in jobs}:
            raise RuntimeError("CUDA out of memory\nTried to allocate")
        for job in jobs:
            job.finish(Turn(str(job.work)))

    scheduler = Scheduler(run, 7)
    got = submit(scheduler, range(7))
    assert {number for number, turn in enumerate(got) if isinstance(turn, ModelError)} == guilty
    assert all(turn.text == str(number) for number, turn in enumerate(got) if number not in guilty)
    asyncio.run(scheduler.close())


def test_jobs_finished_before_a_failure_are_not_run_again():
    ran = []

    def run(jobs):
        for job in jobs:
            if job.work == 3 and len(jobs) > 1:
                raise MemoryError
            ran.append(job.work)
            job.finish(Turn(str(job.work)))

    scheduler = Scheduler(run, 8)
    assert [turn.text for turn in submit(scheduler, range(6))] == [str(number) for number in range(6)]
    assert sorted(ran) == list(range(6))
    asyncio.run(scheduler.close())


def test_an_error_of_preparation_is_that_turns_alone():
    def prepare(work):
        if work == 1:
            raise DataError("row 1 is bad")
        if work == 2:
            raise ValueError("two\nlines")
        return work

    scheduler = Scheduler(echo([]), 4)
    got = submit(scheduler, range(4), prepare)
    assert isinstance(got[1], DataError)
    assert str(got[2]) == "the conversation cannot be encoded: ValueError: two lines"
    assert isinstance(got[2], ModelError)
    assert [got[0].text, got[3].text] == ["0", "3"]
    asyncio.run(scheduler.close())


def test_a_cancelled_job_that_waits_is_never_run():
    ran, gate = [], threading.Event()

    def run(jobs):
        gate.wait(10)
        ran.extend(job.work for job in jobs)
        for job in jobs:
            job.finish(Turn(""))

    scheduler = Scheduler(run, 1)

    async def main():
        first = asyncio.create_task(scheduler.submit(lambda: 1))
        while not scheduler._running:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(scheduler.submit(lambda: 2))
        while not scheduler._waiting:
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        await first
        await scheduler.submit(lambda: 3)

    asyncio.run(main())
    assert ran == [1, 3]
    asyncio.run(scheduler.close())


def test_a_turn_cancelled_while_it_is_prepared_does_not_hold_the_others_up():
    gate = threading.Event()
    scheduler = Scheduler(echo([]), 4)

    async def main():
        slow = asyncio.create_task(scheduler.submit(lambda: gate.wait(10)))
        await asyncio.sleep(0.01)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        done = await asyncio.wait_for(scheduler.submit(lambda: 1), 5)
        gate.set()
        return done

    assert asyncio.run(main()).text == "1"
    asyncio.run(scheduler.close())


def test_closing_before_any_work_and_twice_is_harmless():
    scheduler = Scheduler(echo([]), 2)
    asyncio.run(scheduler.close())
    asyncio.run(scheduler.close())
    with pytest.raises(ModelError, match="the engine is closed"):
        asyncio.run(scheduler.submit(lambda: 1))


def test_closing_does_not_wait_for_a_long_step_or_a_preparation_that_never_ends():
    gate, started = threading.Event(), threading.Event()

    def run(jobs):
        started.set()
        gate.wait(30)

    scheduler = Scheduler(run, 1)

    async def main():
        tasks = [asyncio.create_task(scheduler.submit(lambda: 1))]
        await asyncio.to_thread(started.wait)
        tasks += [asyncio.create_task(scheduler.submit(lambda: gate.wait(30))) for _ in range(40)]
        await asyncio.sleep(0.01)
        start = time.perf_counter()
        await scheduler.close()
        seconds = time.perf_counter() - start
        for task in tasks[1:]:
            task.cancel()
        return seconds, await asyncio.gather(*tasks, return_exceptions=True)

    start = time.perf_counter()
    seconds, got = asyncio.run(main())
    assert seconds < 2
    assert time.perf_counter() - start < 5
    assert "closed" in str(got[0])
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("prh"))
    gate.set()


ENDLESS = """
import asyncio, time, torch
from prh.models.batching import Scheduler
torch.set_num_threads(1)
def run(jobs):
    layer, values = torch.nn.Linear(64, 64), torch.ones(64, 64)
    with torch.inference_mode():
        while True:
            values = layer(values)
async def main():
    scheduler = Scheduler(run, 1)
    task = asyncio.create_task(scheduler.submit(lambda: 1))
    while not scheduler._running:
        await asyncio.sleep(0.01)
    await scheduler.close()
    print(repr((await asyncio.gather(task, return_exceptions=True))[0]))
asyncio.run(main())
"""


def test_a_step_that_is_abandoned_does_not_abort_the_interpreter_as_it_ends():
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60, check=False)
    assert "the engine was closed" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_what_counts_as_out_of_memory():
    class OutOfMemoryError(RuntimeError):
        pass

    for error in (
        MemoryError(),
        OutOfMemoryError("x"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("can't allocate memory"),
    ):
        assert out_of_memory(error)
        assert "lower the pixel budget" in explain(error)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert explain(KeyError("a\nb")) == "the model failed on this conversation: KeyError: 'a\\nb'"
