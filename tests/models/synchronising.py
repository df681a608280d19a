"""What holds of whatever draws a trainer's rollouts in versions: vLLM in this process and a server of it, or a fake.

A test module that imports these gives the fixtures: ``folder``, a checkpoint; ``whole`` and ``adapting``, a ``Drawer``
that takes whole weights and one that takes adapters; and ``close``, how near log-probabilities come to the learner's.
"""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from prh.harness.engine import TurnSpec
from prh.harness.errors import ModelError
from prh.models.rollout import Synchronised
from prh.tests.models.support import noise, reply, say
from prh.tests.models.versions import adapter, learners, moved, question

SPEC = TurnSpec(8)


@dataclass(frozen=True)
class Drawer:
    """What draws, and what runs a coroutine on the loop that it keeps to.

    Attributes:
        sleeps: whether it can be put aside.
    """

    engine: Synchronised
    play: Callable
    sleeps: bool = True

    @property
    def next(self) -> int:
        """A version that is newer."""
        return self.engine.version + 1


@contextmanager
def looping() -> Iterator[Callable]:
    """One event loop for several calls, in a thread of its own: vLLM's engine keeps to the loop it first ran on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(600)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_whole_weights_are_drawn_with_at_once_and_nothing_older_is_used(whole, folder, tmp_path, close):
    """The same question, image and all, again and again: what older weights made of it is in every cache."""
    engine, before = whole.engine, None
    for seed in (1, 2):
        version = whole.next
        model = moved(folder, tmp_path / str(seed), seed)
        whole.play(engine.load_weights(version, tmp_path / str(seed)))
        turn = whole.play(engine.turn(question(), SPEC))
        assert turn.logprobs == pytest.approx(learners(folder, model, turn), abs=close)
        assert learners(folder, before, turn) != pytest.approx(turn.logprobs, abs=5 * close)
        assert engine.versions["s#0"][-1] == version
        before = model


def test_adapters_are_drawn_with_and_not_read_again(adapting, folder, tmp_path, close):
    """A folder that is gone once an adapter was handed over is not missed."""
    engine, before = adapting.engine, None
    for seed in (1, 2):
        model = adapter(folder, tmp_path / "spoken", seed)
        adapting.play(engine.load_weights(adapting.next, tmp_path / "spoken"))
        shutil.rmtree(tmp_path / "spoken")
        turn = adapting.play(engine.turn(question(), SPEC))
        assert turn.logprobs == pytest.approx(learners(folder, model, turn), abs=close)
        assert learners(folder, before, turn) != pytest.approx(turn.logprobs, abs=5 * close)
        before = model


def test_log_probabilities_are_those_that_tokens_were_drawn_by(whole, folder, tmp_path, close):
    """After temperature, of every token, the end of the turn too."""
    engine, model = whole.engine, moved(folder, tmp_path, 3)
    whole.play(engine.load_weights(whole.next, tmp_path))
    for seed in range(3):
        turn = whole.play(engine.turn(question(), TurnSpec(8, temperature=0.7, seed=seed)))
        assert len(turn.logprobs) == len(turn.ids)
        assert turn.logprobs == pytest.approx(learners(folder, model, turn, temperature=0.7), abs=close)


def test_several_turns_with_images(whole, folder, tmp_path, close):
    engine, model, talk = whole.engine, moved(folder, tmp_path, 4), question()
    whole.play(engine.load_weights(whole.next, tmp_path))
    for number in range(3):
        turn = whole.play(engine.turn(talk, SPEC))
        assert turn.logprobs == pytest.approx(learners(folder, model, turn, talk), abs=close)
        reply(talk, turn)
        say(talk, "user", f"Image {number}:", noise((56, 28 * (2 + number)), 10 + number), "And?")


def test_turns_around_a_change_are_each_of_one_version_and_say_which(whole, folder, tmp_path, close):
    engine, old = whole.engine, whole.next
    models = {old + n: moved(folder, tmp_path / str(n), 5 + n) for n in range(2)}

    async def ask(number):
        talk = question(f"s#{number}")
        turn = await engine.turn(talk, SPEC)
        return talk, turn, engine.versions[talk.key][-1]

    async def around():
        await engine.load_weights(old, tmp_path / "0")
        asked = []
        for step in (range(4), None, range(4, 8)):
            if step is None:
                change = asyncio.create_task(engine.load_weights(old + 1, tmp_path / "1"))
            else:
                asked += [asyncio.create_task(ask(number)) for number in step]
            await asyncio.sleep(0)
        await change
        return await asyncio.gather(*asked)

    made = whole.play(around())
    assert [version for _, _, version in made] == [old] * 4 + [old + 1] * 4
    for talk, turn, version in made:
        assert turn.logprobs == pytest.approx(learners(folder, models[version], turn, talk), abs=close)


def test_it_is_put_aside_and_taken_up_with_the_same_weights(whole, folder, tmp_path, close):
    if not whole.sleeps:
        pytest.skip("this build of vLLM cannot be put aside")
    engine, model = whole.engine, moved(folder, tmp_path, 7)

    async def aside():
        await engine.load_weights(whole.next, tmp_path)
        async with engine.aside():
            waiting = asyncio.create_task(engine.turn(question(), SPEC))
            await asyncio.sleep(0.1)
            assert not waiting.done(), "nothing is drawn meanwhile"
        return await waiting

    turn = whole.play(aside())
    assert turn.logprobs == pytest.approx(learners(folder, model, turn), abs=close)


def test_weights_that_cannot_be_taken_end_the_drawing_until_others_come(whole, folder, tmp_path, close):
    engine = whole.engine
    (tmp_path / "none").mkdir()
    version = whole.next
    with pytest.raises(ModelError, match=f"version {version} of the weights could not be taken"):
        whole.play(engine.load_weights(version, tmp_path / "none"))
    with pytest.raises(ModelError, match=f"version {version} of the weights could not be taken"):
        whole.play(engine.turn(question(), SPEC))
    model = moved(folder, tmp_path / "some", 8)
    whole.play(engine.load_weights(version, tmp_path / "some"))
    turn = whole.play(engine.turn(question(), SPEC))
    assert turn.logprobs == pytest.approx(learners(folder, model, turn), abs=close)
    with pytest.raises(ModelError, match=f"of version {version}; {version} is not newer"):
        whole.play(engine.load_weights(version, tmp_path / "some"))
