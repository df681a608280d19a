"""The installed vLLM: that it still has all that is relied on, and, where it can start, that its turns are ours.

Needs the environment of ``make test-vllm``. The interface is read without a GPU; the turns need one.
"""

import asyncio
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from prh.harness.engine import EngineOptions, TurnSpec
from prh.models.transformers_engine import TransformersFactory
from prh.models.vllm_engine import VLLMFactory
from prh.models.vllm_settings import Settings, engine_arguments
from prh.tests.models.support import conversation, noise, reply, say
from prh.tests.vllm.interface import read

pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM warns as it is imported
RECORDED = json.loads((Path(__file__).parent / "interface.json").read_text())
PROMPT = {"prompt_token_ids", "multi_modal_data", "mm_processor_kwargs", "multi_modal_uuids"}
SAMPLING = (
    *("temperature", "top_p", "seed", "max_tokens", "stop", "stop_token_ids", "include_stop_str_in_output"),
    *("detokenize", "skip_special_tokens", "logprobs", "logit_bias", "output_kind"),
)
METHODS = {
    "generate": {"prompt", "sampling_params", "request_id", "lora_request", "data_parallel_rank"},
    "sleep": {"level"},
    "wake_up": {"tags"},
    "pause_generation": {"mode", "clear_cache"},
    "resume_generation": set(),
    "collective_rpc": {"method", "kwargs"},
    "reset_prefix_cache": set(),
    "reset_encoder_cache": set(),
    "add_lora": {"lora_request"},
    "remove_lora": {"lora_id"},
    "shutdown": set(),
    "errored": set(),
}


@pytest.fixture(scope="module")
def installed():
    return read(Path(importlib.util.find_spec("vllm").origin).parent)


def test_it_has_all_that_is_relied_on(installed, folder):
    from prh.models.checkpoint import resolve_model

    settings = Settings(backend="ray", context=8, rows=8)
    asked = engine_arguments(resolve_model(str(folder)), EngineOptions(), settings)
    known = {**installed["engine_args"], **installed["async_engine_args"]}
    assert not {*asked, "enable_lora", "max_lora_rank", "enable_tower_connector_lora"} - set(known)
    assert not set(SAMPLING) - set(installed["sampling_params"])
    assert not PROMPT - {*installed["prompt_options"], *installed["tokens_prompt"]}
    assert {"token_ids", "logprobs", "finish_reason"} <= set(installed["completion_output"])
    assert {"lora_name", "lora_int_id", "lora_path", "load_inplace"} <= set(installed["lora_request"])
    for name, given in METHODS.items():
        assert given <= set(installed["methods"][name]), name


SERVER = (
    *('"/inference/v1/generate"', "content_parts:", "prompt_token_ids", '"/v1/load_lora_adapter"'),
    *('"/v1/unload_lora_adapter"', '"/pause"', '"/resume"', '"/collective_rpc"', '"/reset_prefix_cache"'),
    *('"/reset_encoder_cache"', '"/update_weight_version"', '"/weight_info"', '"/sleep"', '"/wake_up"'),
)


def test_its_server_has_the_routes_that_are_relied_on():
    """Rollouts from a server need 0.33; the routes and fields are looked for in its sources."""
    if tuple(map(int, version("vllm").split(".")[:2])) < (0, 33):
        pytest.skip("rollouts from a server need vLLM 0.33")
    package = Path(importlib.util.find_spec("vllm").origin).parent
    text = "\n".join(path.read_text(errors="replace") for path in (package / "entrypoints").rglob("*.py"))
    assert [name for name in SERVER if name not in text] == []
    workers = "\n".join(path.read_text(errors="replace") for path in (package / "v1" / "worker").rglob("*.py"))
    assert "def reload_weights" in workers
    assert "weights_path" in workers


def test_the_fakes_interface_is_this_one(installed):
    """Where the versions are the same; another version is recorded anew with ``interface.py``."""
    if version("vllm") != RECORDED["version"]:
        pytest.skip(f"the recorded interface is that of {RECORDED['version']}")
    assert {**installed, "version": RECORDED["version"]} == RECORDED


@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM's own wheel starts on a GPU")
def test_its_turns_are_those_of_the_transformers_engine(folder):
    options = EngineOptions(dtype="float32", extra={"eager": "true", "memory": "0.2", "context": "4096"})
    theirs = VLLMFactory().open(str(folder), options)
    ours = TransformersFactory().open(str(folder), EngineOptions(dtype="float32"))
    first, second = (conversation(key) for key in ("a#0", "b#0"))
    for talk in (first, second):
        say(talk, "user", noise((84, 56), 1), "What is it?")

    async def play():
        for number in range(3):
            here, there = await ours.turn(first, TurnSpec(12)), await theirs.turn(second, TurnSpec(12))
            assert here.ids == there.ids
            assert there.logprobs == pytest.approx(here.logprobs, abs=1e-2)
            for talk, turn in ((first, here), (second, there)):
                reply(talk, turn)
                say(talk, "user", noise((56, 28 * (2 + number)), 10 + number), "And?")
        await ours.close()
        await theirs.close()

    asyncio.run(play())
