"""What of vLLM's interface is relied on, read out of its sources without importing it.

``python tests/vllm/interface.py FOLDER`` prints it for the package in FOLDER (an installed ``vllm``, or an unpacked
wheel's); ``interface.json`` beside this file is that of the version it names. The fake of the tests refuses what is
not in it.
"""

import ast
import json
import sys
from pathlib import Path

CLASSES = {
    "engine_args": ("engine/arg_utils.py", "EngineArgs"),
    "async_engine_args": ("engine/arg_utils.py", "AsyncEngineArgs"),
    "sampling_params": ("sampling_params.py", "SamplingParams"),
    "completion_output": ("outputs.py", "CompletionOutput"),
    "lora_request": ("lora/request.py", "LoRARequest"),
    "prompt_options": ("inputs/llm.py", "_PromptOptions"),
    "tokens_prompt": ("inputs/llm.py", "TokensPrompt"),
}
METHODS = (
    *("generate", "abort", "shutdown", "errored", "sleep", "wake_up", "collective_rpc", "reset_prefix_cache"),
    *(
        "reset_encoder_cache",
        "pause_generation",
        "resume_generation",
        "add_lora",
        "remove_lora",
        "update_weight_version",
    ),
)


def read(package):
    """Fields of the classes, and the parameters of the engine's methods."""
    found = {name: fields(package / file, kind) for name, (file, kind) in CLASSES.items()}
    methods = {}
    for node in of(package / "v1/engine/async_llm.py", "AsyncLLM").body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in METHODS:
            given = [*node.args.args[1:], *node.args.kwonlyargs]
            methods[node.name] = [argument.arg for argument in given]
    return {**found, "methods": methods}


def of(file, name):
    tree = ast.parse(file.read_text())
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def fields(file, name):
    nodes = [node for node in of(file, name).body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: ast.unparse(node.annotation) for node in nodes}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    number = sys.argv[2]
    print(json.dumps({"version": number, **read(folder)}, indent=1))
