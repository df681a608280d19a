"""Weights that change under an engine: no turn is drawn with two versions, none with a cache of an older one."""

import asyncio
import json
import random

import pytest
from prh.harness.engine import EngineOptions, Turn, TurnSpec
from prh.harness.errors import ModelError
from prh.harness.scripted import ScriptedEngine
from prh.models.rollout import InProcess, Served, Synchronised
from prh.models.vllm_engine import VLLMFactory
from prh.tests.models import fake_vllm
from prh.tests.models.support import conversation, noise, reply, run, say

SPEC = TurnSpec(8)


class Weights:
    """A holder and an engine whose turns say which weights began and which ended them, and what cache they used."""

    def __init__(self):
        self.current, self.cache, self.drawing, self.log = 0, 0, 0, []
        self.fail = False

    async def load(self, folder, version):
        assert self.drawing == 0, "weights change while a turn is drawn"
        await asyncio.sleep(0.002)
        if self.fail:
            raise RuntimeError("no space\nleft")
        self.current = self.cache = version
        self.log.append(("load", version))

    async def sleep(self):
        assert self.drawing == 0
        self.log.append(("sleep",))

    async def wake(self):
        self.log.append(("wake",))

    async def turn(self, talk, spec):
        self.drawing += 1
        began, cache = self.current, self.cache
        await asyncio.sleep(random.random() / 200)
        self.drawing -= 1
        return Turn(json.dumps([began, self.current, cache]), ids=(1,), logprobs=(-0.5,))


def synchronised():
    weights = Weights()
    engine = ScriptedEngine(lambda talk: "")
    engine.turn = weights.turn
    return Synchronised(engine, weights), weights


def talk(key):
    made = conversation(key)
    say(made, "user", "Go")
    return made


def test_every_turn_is_of_one_version_and_says_which(tmp_path):
    async def play():
        engine, _ = synchronised()
        said = []

        async def episode(number):
            own = talk(f"s#{number}")
            for _ in range(6):
                turn = await engine.turn(own, SPEC)
                said.append((json.loads(turn.text), engine.versions[own.key][-1], turn.logprobs))
                reply(own, turn)
            assert len(engine.versions[own.key]) == 6
            assert engine.versions[own.key] == sorted(engine.versions[own.key])
            await engine.release(own)

        async def train():
            for version in range(1, 8):
                await asyncio.sleep(0.003)
                await engine.load_weights(version, tmp_path)

        await asyncio.gather(*(episode(number) for number in range(12)), train())
        return engine, said

    engine, said = asyncio.run(play())
    assert len(said) == 72
    for (began, ended, cache), version, logprobs in said:
        assert began == ended == cache == version
        assert logprobs == (-0.5,)
    assert len({version for _, version, _ in said}) > 3
    assert engine.versions == {}
    assert engine.fingerprint == "scripted@7"
    assert engine.describe()["version"] == 7


def test_a_version_that_is_not_newer_and_one_that_cannot_be_taken(tmp_path):
    async def play():
        engine, weights = synchronised()
        await engine.load_weights(3, tmp_path)
        with pytest.raises(ModelError, match="of version 3; 3 is not newer"):
            await engine.load_weights(3, tmp_path)
        assert (await engine.turn(talk("a#0"), SPEC)).text == "[3, 3, 3]"
        weights.fail = True
        with pytest.raises(
            ModelError, match="version 4 of the weights could not be taken: RuntimeError: no space left"
        ):
            await engine.load_weights(4, tmp_path)
        with pytest.raises(ModelError, match="version 4"):
            await engine.turn(talk("a#0"), SPEC)
        weights.fail = False
        await engine.load_weights(5, tmp_path)
        assert (await engine.turn(talk("a#0"), SPEC)).text == "[5, 5, 5]"

    asyncio.run(play())


def test_nothing_is_drawn_while_the_gpu_is_anothers(tmp_path):
    async def play():
        engine, weights = synchronised()
        running = asyncio.create_task(engine.turn(talk("a#0"), SPEC))
        await asyncio.sleep(0)
        async with engine.aside():
            assert running.done(), "the turn that ran was waited for"
            waiting = asyncio.create_task(engine.turn(talk("b#0"), SPEC))
            await asyncio.sleep(0.02)
            assert not waiting.done()
        await waiting
        with pytest.raises(KeyError):
            async with engine.aside():
                raise KeyError
        await engine.turn(talk("c#0"), SPEC)
        return weights.log

    assert asyncio.run(play()) == [("sleep",), ("wake",)] * 2


def test_a_turn_that_fails_or_is_cancelled_stops_no_update(tmp_path):
    async def play():
        engine, weights = synchronised()
        running = asyncio.create_task(engine.turn(talk("a#0"), SPEC))
        await asyncio.sleep(0)
        running.cancel()
        weights.drawing = 0
        await asyncio.wait_for(engine.load_weights(1, tmp_path), 5)

    asyncio.run(play())


# -- vLLM --------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(qwen25, monkeypatch):
    started = fake_vllm.install(monkeypatch)
    engine = VLLMFactory().open(str(qwen25), EngineOptions(extra={"sleep": "true"}))
    return Synchronised(engine, InProcess(engine)), started[0]


def question():
    made = conversation()
    say(made, "user", noise((56, 56), 1), "What is it?")
    return made


def test_whole_weights_are_read_anew_and_old_caches_emptied(opened, tmp_path):
    engine, llm = opened

    async def play():
        await engine.load_weights(1, tmp_path)
        turn = await engine.turn(question(), SPEC)
        assert len(turn.logprobs) == len(turn.ids)
        async with engine.aside():
            pass

    run(play())
    names = [name for name, _, _ in llm.calls]
    assert names == [
        *("collective_rpc", "reset_prefix_cache", "reset_encoder_cache"),
        *("sleep", "wake_up", "reset_prefix_cache", "reset_encoder_cache"),
    ]
    assert llm.calls[0][1:] == (("reload_weights",), {"kwargs": {"weights_path": str(tmp_path)}})
    assert llm.calls[3][2] == {"level": 1}
    assert llm.args.enable_sleep_mode


def test_adapters_are_told_apart_by_name(opened, tmp_path):
    engine, llm = opened
    (tmp_path / "adapter_config.json").write_text("{}")

    async def play():
        for version in (1, 2):
            await engine.load_weights(version, tmp_path)
            await engine.turn(question(), SPEC)

    run(play())
    used = [given["lora_request"] for _, _, given in llm.requests]
    assert [(one.lora_name, one.lora_int_id) for one in used] == [("version-1", 1), ("version-2", 2)]
    assert llm.calls == [("remove_lora", (1,), {})]


def test_a_cache_that_is_not_emptied_ends_the_drawing(opened, tmp_path):
    engine, llm = opened
    llm.reset_prefix_cache = lambda: asyncio.sleep(0, result=False)

    async def play():
        with pytest.raises(ModelError, match="did not empty its prefix cache"):
            await engine.load_weights(1, tmp_path)
        with pytest.raises(ModelError, match="version 1"):
            await engine.turn(question(), SPEC)

    run(play())


def test_a_server_is_told_the_same(tmp_path):
    sent = []

    async def post(route, body):
        sent.append((route, body))
        return {}

    async def play():
        holder = Served(post)
        await holder.load(tmp_path, 1)
        await holder.sleep()
        await holder.wake()
        (tmp_path / "adapter_config.json").write_text("{}")
        await holder.load(tmp_path, 2)
        await holder.load(tmp_path, 3)

    run(play())
    folder = str(tmp_path)
    resets = [("/reset_prefix_cache", {}), ("/reset_encoder_cache", {})]
    assert sent == [
        ("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}}),
        *resets,
        ("/sleep?level=1", {}),
        ("/wake_up", {}),
        *resets,
        ("/v1/load_lora_adapter", {"lora_name": "version-2", "lora_path": folder}),
        ("/v1/load_lora_adapter", {"lora_name": "version-3", "lora_path": folder}),
        ("/v1/unload_lora_adapter", {"lora_name": "version-2"}),
    ]
