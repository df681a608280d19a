"""Weights that change under an engine: no turn is drawn with two versions, none with a cache of an older one."""

import asyncio
import json
import os
import random
import shutil

import pytest
from prh.harness.engine import EngineOptions, Place, Turn, TurnSpec
from prh.harness.errors import ModelError, UsageError
from prh.harness.scripted import ScriptedEngine
from prh.models.rollout import InProcess, Synchronised
from prh.models.vllm_engine import VLLMFactory
from prh.models.vllm_settings import alone
from prh.tests.models import fake_vllm
from prh.tests.models.support import conversation, noise, reply, run, say
from prh.tests.models.versions import adapter, learners, moved
from prh.tests.models.versions import question as asked

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


def test_whole_weights_are_read_anew_and_old_caches_emptied(opened, qwen25, tmp_path):
    engine, llm = opened
    moved(qwen25, tmp_path)

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


def test_adapters_are_told_apart_by_name_and_read_at_once(qwen25, monkeypatch, tmp_path):
    """A folder that is gone once an adapter was handed over is not missed."""
    started = fake_vllm.install(monkeypatch)
    engine = VLLMFactory().versioned(str(qwen25), EngineOptions(), 4, Place())

    async def play():
        for version in (1, 2):
            model = adapter(qwen25, tmp_path / "spoken", version)
            await engine.load_weights(version, tmp_path / "spoken")
            shutil.rmtree(tmp_path / "spoken")
            turn = await engine.turn(asked(), SPEC)
            assert turn.logprobs == pytest.approx(learners(qwen25, model, turn), abs=1e-4)

    run(play())
    used = [given["lora_request"] for _, _, given in started[0].requests]
    assert [(one.lora_name, one.lora_int_id) for one in used] == [("version-1", 1), ("version-2", 2)]
    assert [name for name, _, _ in started[0].calls] == ["add_lora", "remove_lora", "add_lora"]


def test_an_adapter_of_the_vision_tower_is_drawn_with_or_refused(qwen25, monkeypatch, tmp_path):
    started = fake_vllm.install(monkeypatch)
    model = adapter(qwen25, tmp_path, modules=("q_proj", "gate_proj"))
    engine = VLLMFactory().versioned(str(qwen25), EngineOptions(), 4, Place())
    without = VLLMFactory().versioned(str(qwen25), EngineOptions(extra={"tower_lora": "false"}), 4, Place())

    async def play():
        await engine.load_weights(1, tmp_path)
        turn = await engine.turn(asked(), SPEC)
        assert turn.logprobs == pytest.approx(learners(qwen25, model, turn), abs=1e-4)
        with pytest.raises(ModelError, match="changes the vision tower, and vLLM was started without"):
            await without.load_weights(1, tmp_path)

    run(play())
    assert started[0].args.enable_tower_connector_lora
    assert started[1].calls == []


def test_a_cache_that_is_not_emptied_ends_the_drawing(opened, qwen25, tmp_path):
    engine, llm = opened
    moved(qwen25, tmp_path)
    llm.reset_prefix_cache = lambda: asyncio.sleep(0, result=False)

    async def play():
        with pytest.raises(ModelError, match="did not empty its prefix cache"):
            await engine.load_weights(1, tmp_path)
        with pytest.raises(ModelError, match="version 1"):
            await engine.turn(question(), SPEC)

    run(play())


# -- several processes -------------------------------------------------------------------------------------------


def test_a_rank_has_a_vllm_of_its_own_that_knows_no_launcher(qwen25, monkeypatch):
    """What vLLM's own processes would see of the launcher and of other ranks' GPUs, as it starts and after."""
    started, seen = fake_vllm.install(monkeypatch), []
    launched = {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_PORT": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in {**launched, "CUDA_VISIBLE_DEVICES": "4,7", "OTHER": "1"}.items():
        monkeypatch.setenv(name, value)
    real = fake_vllm.Llm.__post_init__
    monkeypatch.setattr(fake_vllm.Llm, "__post_init__", lambda self: seen.append(dict(os.environ)) or real(self))
    VLLMFactory().versioned(str(qwen25), EngineOptions(), 0, Place(3, 4, 1))
    assert len(started) == 1
    assert not set(launched) & set(seen[0])
    assert (seen[0]["CUDA_VISIBLE_DEVICES"], seen[0]["OTHER"]) == ("7", "1")
    assert launched.items() <= os.environ.items()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
    VLLMFactory().versioned(str(qwen25), EngineOptions(), 0, Place())
    assert seen[1]["CUDA_VISIBLE_DEVICES"] == "4,7", "one process keeps all GPUs"


@pytest.mark.parametrize(
    ("before", "device", "after"), [(None, 2, "2"), ("", 1, "1"), ("5", 0, "5"), ("1,3", None, "1,3")]
)
def test_the_gpu_of_a_rank(monkeypatch, before, device, after):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    with alone(device):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_a_rank_of_an_evaluation_has_its_own_gpu_too(qwen25, monkeypatch):
    started, seen = fake_vllm.install(monkeypatch), []
    real = fake_vllm.Llm.__post_init__
    monkeypatch.setattr(fake_vllm.Llm, "__post_init__", lambda self: seen.append(dict(os.environ)) or real(self))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    VLLMFactory().open(str(qwen25), EngineOptions())
    assert "CUDA_VISIBLE_DEVICES" not in seen[0], "one process keeps all GPUs"
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "x"}.items():
        monkeypatch.setenv(name, value)
    VLLMFactory().open(str(qwen25), EngineOptions())
    assert len(started) == 2
    assert seen[1]["CUDA_VISIBLE_DEVICES"] == "1"
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(seen[1])
    assert os.environ["RANK"] == "5"
    with pytest.raises(UsageError, match="leave tensor_parallel and data_parallel at 1"):
        VLLMFactory().open(str(qwen25), EngineOptions(extra={"tensor_parallel": "2"}))


@pytest.mark.parametrize("name", ["tensor_parallel", "data_parallel"])
def test_a_rank_spreads_its_vllm_over_no_other_ranks_gpu(qwen25, monkeypatch, name):
    fake_vllm.install(monkeypatch)
    options = EngineOptions(extra={name: "2"})
    assert VLLMFactory().versioned(str(qwen25), options, 0, Place()).version == 0
    with pytest.raises(UsageError, match="leave tensor_parallel and data_parallel at 1, or draw from a server"):
        VLLMFactory().versioned(str(qwen25), options, 0, Place(0, 2))
