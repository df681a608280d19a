"""What is relied on of vLLM, in the interface that is recorded of both ends of the range and between."""

import re
from pathlib import Path

import pytest
from prh.harness.engine import EngineOptions
from prh.models import vllm_line
from prh.models.checkpoint import resolve_model
from prh.models.openai_wire import PLAIN
from prh.models.vllm_settings import Settings, engine_arguments
from prh.tests.models.fake_vllm import HIGHEST, LOWEST, SERVING, VERSIONS
from prh.tests.vllm.interface import FILE, SERVED, dumps, missing, missing_served, read, recorded

ARGUMENTS = {
    *("model", "tokenizer", "dtype", "trust_remote_code", "tensor_parallel_size", "data_parallel_size"),
    *("gpu_memory_utilization", "enforce_eager", "enable_sleep_mode", "enable_prefix_caching", "logprobs_mode"),
    *("limit_mm_per_prompt", "disable_log_stats", "data_parallel_backend", "distributed_executor_backend"),
    *("max_model_len", "max_num_seqs", "enable_lora", "max_lora_rank", "enable_tower_connector_lora"),
}
ROOT = Path(__file__).parents[2]


def newer(one: str, other: str) -> bool:
    """Whether a version is newer than another."""
    return [int(part) for part in one.split(".")] > [int(part) for part in other.split(".")]


def test_the_arguments_are_all_that_an_engine_is_started_with(qwen25):
    settings = Settings(backend="ray", context=8, rows=8, lora_rank=8, tower_lora=True)
    assert set(engine_arguments(resolve_model(str(qwen25)), EngineOptions(), settings)) == ARGUMENTS


@pytest.mark.parametrize("number", VERSIONS)
def test_each_version_has_what_is_relied_on(number):
    assert missing(VERSIONS[number], ARGUMENTS) == []


@pytest.mark.parametrize("number", SERVING)
def test_what_is_sent_to_a_server_is_known_to_it(number):
    bodies = VERSIONS[number]["bodies"]
    sent = {"model", "messages", "temperature", "top_p", "seed", "tools", "logit_bias", "stop", "max_tokens", *PLAIN}
    assert sent <= set(bodies["chat_request"])
    assert all(names <= set(bodies[kind]) for kind, names in SERVED.items())


def test_the_range_is_the_one_that_is_told():
    assert [*VERSIONS] == sorted(VERSIONS, key=lambda number: [int(part) for part in number.split(".")])
    low, high, served = (number.rpartition(".")[0] for number in (LOWEST, HIGHEST, SERVING[0]))
    docs = (ROOT / "docs" / "servers.md").read_text()
    assert f"vLLM {low} to {high}" in docs
    assert f"vLLM {served} or newer" in docs
    assert f"vllm>={low};" in (ROOT / "pyproject.toml").read_text()
    assert f"vLLM {served} or newer" in vllm_line.NEEDS["/"]
    assert missing_served(VERSIONS[LOWEST]), "an older one does not serve rollouts"
    (pinned,) = re.findall(r"^vllm==(.*)$", (ROOT / "constraints-vllm.txt").read_text(), re.MULTILINE)
    assert pinned in VERSIONS, "the one that `make test-vllm` installs is recorded"


def test_a_gap_is_found():
    found = VERSIONS[HIGHEST]
    methods = {**found["methods"], "sleep": []}
    assert missing({**found, "methods": methods}, ARGUMENTS) == ["AsyncLLM.sleep"]
    assert missing(found, {"no_such_argument"}) == ["engine argument no_such_argument"]
    bodies = {**found["bodies"], "generate_request": ["token_ids"]}
    gaps = missing_served({**found, "bodies": bodies, "flags": []})
    assert "generate_request.content_parts" in gaps
    assert gaps[-1] == "--enable_scale_out"


def test_an_interface_is_read_out_of_sources(tmp_path):
    """A package of a few classes, of which one field comes from a base and one route's keys are read by hand."""
    files = {
        "engine/arg_utils.py": """
class EngineArgs:
    model: str
class AsyncEngineArgs(EngineArgs):
    x: int = 0
""",
        "sampling_params.py": "class SamplingParams:\n    seed: int\n",
        "outputs.py": "class CompletionOutput:\n    index: int\n",
        "lora/request.py": "class LoRARequest:\n    lora_name: str\n",
        "inputs/llm.py": "class _PromptOptions:\n    a: int\nclass TokensPrompt(_PromptOptions):\n    b: int\n",
        "v1/engine/async_llm.py": """
class AsyncLLM:
    async def sleep(self, level=1, *, mode=""): ...
    def unused(self): ...
""",
        "v1/worker/gpu_model_runner.py": """
class GPUModelRunner:
    def reload_weights(self, weights_path=None): ...
""",
        "entrypoints/cli.py": "class Arguments:\n    enable_scale_out: bool = False\n",
        "entrypoints/routes.py": """
@router.post("/collective_rpc")
async def rpc(raw_request):
    body = await raw_request.json()
    return body.get("method")
@router.post("/elsewhere")
def other(): ...
class UsageInfo(OpenAIBaseModel):
    prompt_tokens: int
""",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = read(tmp_path)
    assert found["async_engine_args"] == ["model", "x"]
    assert found["methods"] == {"sleep": ["level", "mode"]}
    assert found["worker"] == {"reload_weights": ["weights_path"]}
    assert found["routes"] == {"POST /collective_rpc": ["method"]}
    assert found["bodies"]["usage"] == ["prompt_tokens"]
    assert found["bodies"]["generate_request"] is None
    assert found["flags"] == ["enable_scale_out"]


def test_the_record_is_written_as_it_is_read():
    assert dumps(recorded()) + "\n" == FILE.read_text()
