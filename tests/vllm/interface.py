"""What of vLLM is relied on, read out of its sources without importing it.

``interface.json`` beside this file is that of the versions it names: the lowest and the highest of the range, the
lowest whose server draws rollouts, and the one that ``make test-vllm`` installs. The fakes of the tests refuse what is
not in it. To record another version, unpack its wheel (``pip download --no-deps vllm==X``) or install it, and

    python tests/vllm/interface.py FOLDER/vllm X
"""

import ast
import json
import sys
from pathlib import Path

FILE = Path(__file__).with_name("interface.json")
CLASSES = {
    "engine_args": ("engine/arg_utils.py", "EngineArgs"),
    "async_engine_args": ("engine/arg_utils.py", "AsyncEngineArgs"),
    "sampling_params": ("sampling_params.py", "SamplingParams"),
    "completion_output": ("outputs.py", "CompletionOutput"),
    "lora_request": ("lora/request.py", "LoRARequest"),
    "prompt_options": ("inputs/llm.py", "_PromptOptions"),
    "tokens_prompt": ("inputs/llm.py", "TokensPrompt"),
}
METHODS = {
    "generate": {"prompt", "sampling_params", "request_id", "lora_request", "data_parallel_rank"},
    "sleep": {"level"},
    "wake_up": set(),
    "collective_rpc": {"method", "kwargs"},
    "reset_prefix_cache": set(),
    "reset_encoder_cache": set(),
    "add_lora": {"lora_request"},
    "remove_lora": {"lora_id"},
    "shutdown": set(),
    "errored": set(),
}
# What a server says and is told, under the names that its classes have had, the newest first.
BODIES = {
    "chat_request": ("ChatCompletionRequest",),
    "generate_request": ("GenerateRequest",),
    "generate_reply": ("GenerateTokensResponse", "GenerateResponse"),
    "generate_choice": ("GenerateTokensChoice", "GenerateResponseChoice"),
    "logprob": ("GenerateLogProbsContent", "ChatCompletionLogProbsContent"),
    "usage": ("UsageInfo",),
    "cached": ("PromptTokenUsageInfo",),
    "model": ("ModelCard",),
    "load_adapter": ("LoadLoRAAdapterRequest",),
    "unload_adapter": ("UnloadLoRAAdapterRequest",),
}
# Routes of a server, and what stands in their queries and bodies where no class says it.
ROUTES = {
    "POST /inference/v1/generate": set(),
    "POST /v1/chat/completions": set(),
    "GET /v1/models": set(),
    "POST /v1/load_lora_adapter": set(),
    "POST /v1/unload_lora_adapter": set(),
    "POST /collective_rpc": {"method", "kwargs"},
    "POST /pause": {"mode", "clear_cache"},
    "POST /resume": set(),
    "POST /sleep": {"level", "mode"},
    "POST /wake_up": set(),
    "POST /reset_prefix_cache": set(),
    "POST /reset_encoder_cache": set(),
    "POST /update_weight_version": {"new_version"},
    "GET /weight_info": set(),
}
PUBLIC = {"POST /v1/chat/completions", "GET /v1/models"}
FLAGS = {"enable_scale_out"}
RELIED = {
    "prompt": {"prompt_token_ids", "multi_modal_data", "mm_processor_kwargs", "multi_modal_uuids"},
    "sampling_params": {
        *("temperature", "top_p", "seed", "max_tokens", "stop", "stop_token_ids", "include_stop_str_in_output"),
        *("detokenize", "skip_special_tokens", "logprobs", "logit_bias", "output_kind"),
    },
    "completion_output": {"token_ids", "logprobs", "finish_reason"},
    "lora_request": {"lora_name", "lora_int_id", "lora_path"},
}
SERVED = {
    "generate_request": {"model", "token_ids", "sampling_params", "return_token_ids", "content_parts"},
    "generate_reply": {"choices", "usage", "prompt_token_ids"},
    "generate_choice": {"token_ids", "logprobs", "finish_reason"},
    "logprob": {"logprob"},
    "usage": {"prompt_tokens", "prompt_tokens_details"},
    "cached": {"cached_tokens"},
    "model": {"id", "parent", "max_model_len"},
    "load_adapter": {"lora_name", "lora_path"},
    "unload_adapter": {"lora_name"},
}


def recorded():
    """The interface by version, from the lowest."""
    return json.loads(FILE.read_text())


def read(package):
    """The names of fields and parameters, by what they belong to."""
    found = {name: fields(Module(package / file), kind) for name, (file, kind) in CLASSES.items()}
    engine = Module(package / "v1/engine/async_llm.py").classes["AsyncLLM"]
    found["methods"] = {node.name: parameters(node) for node in functions(engine) if node.name in METHODS}
    runner = Module(package / "v1/worker/gpu_model_runner.py").classes["GPUModelRunner"]
    (reload,) = (node for node in functions(runner) if node.name == "reload_weights")
    modules = [Module(path) for path in sorted((package / "entrypoints").rglob("*.py"))]
    found["worker"] = {"reload_weights": parameters(reload)}
    found["routes"] = routes(modules)
    found["bodies"] = {name: body(modules, kinds) for name, kinds in BODIES.items()}
    said = {name for module in modules for kind in module.classes for name in fields(module, kind)}
    return {**found, "flags": sorted(FLAGS & said)}


class Module:
    def __init__(self, path):
        self.path = path
        self.tree = ast.parse(path.read_text())
        self.classes = {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}


def functions(node):
    return [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function):
    return [one.arg for one in (*function.args.args, *function.args.kwonlyargs) if one.arg != "self"]


def fields(module, kind):
    """Of a class, and of those of its file that it is made from."""
    if kind not in module.classes:
        return []
    node = module.classes[kind]
    own = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign)]
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return sorted({*own, *(name for base in bases for name in fields(module, base))})


def body(modules, kinds):
    """The first of some classes that there is; None where there is none."""
    made = ((kind, module) for kind in kinds for module in modules if kind in module.classes)
    return next((found for kind, module in made if (found := fields(module, kind))), None)


def routes(modules):
    """Those that are relied on, with the parameters and the keys that their functions read."""
    found = {}
    for module in modules:
        for function in functions(module.tree):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.args:
                    path = mark.args[0]
                    name = f"{mark.func.attr.upper()} {path.value if isinstance(path, ast.Constant) else ''}"
                    if name in ROUTES:
                        found[name] = sorted({*parameters(function), *keys(function)} - {"raw_request", "request"})
    return dict(sorted(found.items()))


def keys(function):
    """What a function reads from the body by hand."""
    inside = [node for line in function.body for node in ast.walk(line) if isinstance(node, ast.Call)]
    calls = [node for node in inside if isinstance(node.func, ast.Attribute)]
    return {
        node.args[0].value
        for node in calls
        if node.func.attr in ("get", "getlist") and node.args and isinstance(node.args[0], ast.Constant)
    }


def missing(found, arguments):
    """What is relied on in this process and is not there; ``arguments`` are those an engine is started with."""
    known = {*found["engine_args"], *found["async_engine_args"]}
    gaps = [f"engine argument {name}" for name in sorted({*arguments} - known)]
    named = {**found, "prompt": [*found["prompt_options"], *found["tokens_prompt"]]}
    gaps += [f"{kind}.{name}" for kind, names in RELIED.items() for name in sorted(names - {*named[kind]})]
    methods = found["methods"]
    gaps += [f"AsyncLLM.{name}" for name, given in METHODS.items() if not given <= {*methods.get(name, [None])}]
    gaps += [] if "weights_path" in found["worker"]["reload_weights"] else ["the worker's reload_weights(weights_path)"]
    return gaps + [f"route {name}" for name in sorted(PUBLIC - {*found["routes"]})]


def missing_served(found):
    """What rollouts from a server rely on and is not there."""
    routes, bodies = found["routes"], found["bodies"]
    gaps = [f"route {name}" for name, given in ROUTES.items() if name not in routes or not given <= {*routes[name]}]
    gaps += [f"{kind}.{name}" for kind, names in SERVED.items() for name in sorted(names - {*(bodies[kind] or ())})]
    told = {*(bodies["logprob"] or ())}
    gaps += [] if told & {"token", "token_id"} else ["logprob.token_id"]
    return gaps + [f"--{name}" for name in sorted(FLAGS - {*found["flags"]})]


def main():
    folder, number = Path(sys.argv[1]), sys.argv[2]
    known = {**(recorded() if FILE.exists() else {}), number: read(folder)}
    ordered = sorted(known.items(), key=lambda pair: [int(part) for part in pair[0].split(".")])
    FILE.write_text(dumps(dict(ordered)) + "\n")


def dumps(value, depth=0):
    """JSON with a list in a line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    rows = [f"{' ' * (depth + 1)}{json.dumps(key)}: {dumps(one, depth + 1)}" for key, one in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{' ' * depth}}}"


if __name__ == "__main__":
    main()
