"""Adapters, other families, other environments: what loads, and what is refused in one line."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version

import pytest
import torch
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.errors import ModelError, Prerequisite, UsageError
from prh.harness.ledger import Text
from prh.models import loading, processor
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models import families, support
from prh.tests.models.families import write
from prh.tests.models.support import conversation, endless, full_logits, noise, prompt_ids, reply, say, turns


def open_engine(folder, **options):
    return TransformersFactory().open(str(folder), EngineOptions(**options))


# -- adapters ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(qwen25, tmp_path_factory):
    """A LoRA adapter of random weights on the tiny checkpoint."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("lora") / "adapter"
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], base_model_name_or_path=str(qwen25))
    with processor.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(AutoModelForImageTextToText.from_pretrained(qwen25), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    assert (folder / "adapter_model.safetensors").is_file()
    return folder, model.merge_and_unload().eval()


def test_an_adapter_runs_on_its_base_and_gives_what_the_merged_model_gives(qwen25, opened, lora, monkeypatch):
    folder, merged = lora
    engine = open_engine(folder)
    talk = conversation()
    say(talk, "system", "s")
    say(talk, "user", noise((84, 56), 1), "What?")
    spec = TurnSpec(8, seed=4, banned_ids=endless(engine))
    with support.recorded_logits(monkeypatch) as seen:
        turn = turns(engine, [(talk, spec)])[0]
    prompt = prompt_ids(qwen25, talk, 28)
    whole = full_logits(qwen25, talk, prompt + list(turn.ids), merged)[len(prompt) - 1 : -1]
    assert (torch.stack(seen[4]) - whole).abs().max() < 1e-4
    bare = full_logits(qwen25, talk, prompt + list(turn.ids))[len(prompt) - 1 : -1]
    assert (whole - bare).abs().max() > 1e-2
    assert engine.fingerprint != opened(qwen25).fingerprint
    assert engine.describe()["adapter"] is True
    assert engine.describe()["path"] == "fast"
    assert engine.describe()["versions"]["peft"]
    support.run(engine.close())


def test_a_broken_adapter_is_an_error_in_one_line(lora, tmp_path):
    folder = shutil.copytree(lora[0], tmp_path / "broken")
    (folder / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="the adapter broken cannot be put on its base") as caught:
        open_engine(folder)
    assert "\n" not in str(caught.value)


# -- other families ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "qwen3_moe"])
def test_the_rest_of_the_qwen_families_run_in_batches_as_exactly(name, built, opened, monkeypatch):
    folder = built(name)
    engine = opened(folder)
    cell = engine.processor.factor
    talks = [conversation(f"c{number}#0") for number in range(4)]
    for number, talk in enumerate(talks):
        say(talk, "system", "s")
        say(talk, "user", noise((cell * (number + 1), cell * 2), number), "What?" * number)
    rows = []
    real = support.core(engine).forward

    def forward(stream, slots):
        rows.append(len(stream.tokens) + len(stream.pieces))
        return real(stream, slots)

    monkeypatch.setattr(support.core(engine), "forward", forward)
    assert engine.describe()["path"] == "fast"
    for step in range(2):
        asked = [(talk, TurnSpec(6, seed=n, banned_ids=endless(engine))) for n, talk in enumerate(talks)]
        with support.recorded_logits(monkeypatch) as seen:
            got = turns(engine, asked)
        for number, (talk, turn) in enumerate(zip(talks, got, strict=True)):
            prompt = prompt_ids(folder, talk, cell)
            whole = full_logits(folder, talk, prompt + list(turn.ids))[len(prompt) - 1 : -1]
            assert (torch.stack(seen[number]) - whole).abs().max() < 1e-4
            reply(talk, turn)
            say(talk, "user", "Here", noise((cell, cell), step))
    assert max(rows) == 4


def from_scratch(folder, talk):
    """Ids and logits of a conversation without replies, by the family's own processor and one forward."""
    from transformers import AutoProcessor

    own = AutoProcessor.from_pretrained(folder)
    messages = [
        {
            "role": s.role,
            "content": [
                {"type": "text", "text": p.text} if isinstance(p, Text) else {"type": "image"} for p in s.parts
            ],
        }
        for s in talk.segments
    ]
    text = own.apply_chat_template(messages, add_generation_prompt=True)
    special = not (own.tokenizer.bos_token and text.startswith(own.tokenizer.bos_token))
    made = own(text=[text], images=list(talk.images()), return_tensors="pt", add_special_tokens=special)
    with torch.inference_mode():
        return made, support.model_of(folder)(**made, use_cache=False).logits[0]


@pytest.mark.parametrize("name", ["llava", "idefics3", "gemma3"])
def test_another_family_runs_through_its_own_template_and_processor(name, built, opened, monkeypatch):
    folder = built(name)
    try:
        engine = opened(folder)
    except Prerequisite as missing:  # 5.17 has some families' processors for torchvision alone
        if not version("transformers").startswith("5.17."):
            raise
        pytest.skip(str(missing))
    talks = [conversation(f"c{number}#0") for number in range(3)]
    for number, talk in enumerate(talks):
        images = [noise((60 + number, 40 + step), number) for step in range(1 + number % 2)]
        say(talk, "user", *images, f"What is {number}?")
    asked = [(talk, TurnSpec(8, n * 0.6, seed=n, banned_ids=endless(engine))) for n, talk in enumerate(talks)]
    plain = engine._path.decoder
    rows, real = [], plain.prefill
    monkeypatch.setattr(plain, "prefill", lambda views: rows.append(len(views)) or real(views))
    with support.recorded_logits(monkeypatch) as seen:
        got = turns(engine, asked)
    assert rows == [1, 1, 1]
    for number, (talk, turn) in enumerate(zip(talks, got, strict=True)):
        made, logits = from_scratch(folder, talk)
        assert list(engine.encode(talk).ids) == made["input_ids"][0].tolist()
        assert (seen[number][0] - logits[-1]).abs().max() < 1e-4
        _continue(engine, folder, talk, turn, seen[number])
    assert "factor" not in engine.describe()
    assert engine.describe()["path"] == "plain"
    assert engine.describe()["notice"].startswith(f"the family {name} has no fast path: turns run in plain batches")
    assert engine.caps.token_ids
    for stray in engine.vision_ids:
        turn = turns(engine, [(talks[0], TurnSpec(4, banned_ids=support.only(engine, stray)))])[0]
        assert (turn.finish, turn.ids) == ("malformed", (stray,))


def _continue(engine, folder, talk, turn, logits):
    """The reply stands in the next prompt, the new image after it, and every step is that of a whole forward."""
    before = engine.encode(talk)
    reply(talk, turn, trained=True)
    view = engine.encode(talk)
    assert view.ids == before.ids + turn.ids
    model = support.model_of(folder)
    inputs = {name: value for name, value in view.inputs.items() if not name.endswith("type_ids")}
    kinds = [name for name in view.inputs if name.endswith("type_ids")]
    features = torch.tensor([[int(token in engine.processor.image_ids) for token in view.ids]])
    with torch.inference_mode():
        made = model(input_ids=torch.tensor([view.ids]), **inputs, **dict.fromkeys(kinds, features), use_cache=False)
    assert (torch.stack(logits) - made.logits[0, len(before.ids) - 1 : -1]).abs().max() < 1e-4
    say(talk, "user", "and", noise((30, 50), 9), "or <image>, <start_of_image>?")
    after = engine.encode(talk)
    assert after.exact
    for name in kinds:
        assert after.inputs[name].tolist() == [[int(token in engine.processor.image_ids) for token in after.ids]]
    assert after.ids.count(engine.processor.tokenizer.bos_token_id) == (
        engine.processor.tokenizer.bos_token is not None
    )
    assert after.ids[: len(view.ids)] == view.ids
    assert after.positions is None
    assert sum(after.trained) == len(turn.ids)
    assert engine.processor.decode(after.ids).count("or <image>, <start_of_image>?") == 1
    assert len(after.spans) > len(before.spans)
    longer = turns(engine, [(talk, TurnSpec(3, banned_ids=endless(engine)))])[0]
    assert len(longer.ids) == 3


def test_a_reply_without_ids_ends_as_the_template_ends_it(built, opened):
    engine = opened(built("gemma3"))
    tokenizer = engine.processor.tokenizer
    talk = conversation()
    say(talk, "user", "q")
    say(talk, "assistant", "a")
    assert engine.encode(talk).ids[-1] == tokenizer.convert_tokens_to_ids("<end_of_turn>") != tokenizer.eos_token_id


def test_a_template_that_rewrites_history_costs_the_engine_its_ids(copy):
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(template.replace("in messages", "in messages[-2:]"))
    engine = open_engine(copy)
    assert not engine.caps.token_ids
    assert engine.describe()["exact_history"] is False
    talk = conversation()
    for text in ("a", "b"):
        say(talk, "user", text)
        say(talk, "assistant", "c")
    engine.encode(talk)
    assert engine.describe()["rewritten_histories"] == 1
    support.run(engine.close())


def test_a_family_that_needs_torchvision_says_so(qwen25, tmp_path):
    folder = tmp_path / "smol"
    tokenizer = families.tokenizer_with("<image>", "<fake_token_around_image>", "<end_of_utterance>")
    tokenizer.save_pretrained(folder)
    write(folder / "config.json", {"model_type": "smolvlm"})
    write(folder / "processor_config.json", {"processor_class": "SmolVLMProcessor"})
    write(folder / "preprocessor_config.json", {"image_processor_type": "SmolVLMImageProcessor"})
    shutil.copy(qwen25 / "model.safetensors", folder)
    if processor.torchvision_state() == "works":
        pytest.skip("torchvision works here")
    with pytest.raises(
        Prerequisite, match="the processor of smol needs torchvision, which is absent: install"
    ) as caught:
        open_engine(folder)
    assert "\n" not in str(caught.value)


# -- environments -----------------------------------------------------------------------------------------------

BROKEN = """
import sys
from prh.models.processor import torchvision_state
print(torchvision_state())
from prh.tests.models.support import conversation, noise, say
from prh.harness.engine import EngineOptions
from prh.models.transformers_engine import TransformersFactory
engine = TransformersFactory().open("tiny", EngineOptions())
talk = conversation()
say(talk, "user", noise((56, 56), 1), "q")
print(engine.encode(talk).grids)
print(engine.describe()["torchvision"])
"""


def test_a_broken_torchvision_is_reported_and_not_suffered(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from . import extension\nraise RuntimeError('operator torchvision::nms does not exist\\nand more')\n"
    )
    (package / "extension.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{BROKEN}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    state = "broken: RuntimeError: operator torchvision::nms does not exist and more"
    assert done.stdout.splitlines() == [state, "((1, 4, 4),)", state], done.stderr
    assert done.returncode == 0


def test_transformers_by_itself_does_suffer_it(tmp_path):
    """The control: without the remedy the same package stops even the processor that does not use it."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "torchvision" in done.stderr


def test_missing_libraries_are_prerequisites(monkeypatch):
    real = processor.importlib.util.find_spec
    monkeypatch.setattr(processor.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(Prerequisite, match=r"needs torch, which is not installed: pip install 'prh\[hf\]'"):
        open_engine("tiny")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dtype": "int8"}, UsageError, "dtype 'int8' is not known: use one of auto, float32"),
        ({"attention": "magic"}, UsageError, "attention 'magic' is not known"),
        ({"attention": "flash_attention_2"}, Prerequisite, "needs flash-attn, which is not installed: use sdpa"),
        ({"device": "abacus"}, UsageError, "device 'abacus' is not known"),
        ({"device": "xpu"}, ModelError, "device 'xpu': torch .* cannot use one here; use --device cpu"),
    ],
)
def test_options_that_cannot_be_had_are_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        open_engine("tiny", **options)


@pytest.mark.parametrize(("dtype", "attention"), [("bfloat16", "eager"), ("float16", "sdpa")])
def test_dtype_and_attention_are_taken(dtype, attention):
    engine = open_engine("tiny", dtype=dtype, attention=attention)
    assert engine.describe()["dtype"] == dtype
    assert engine.describe()["attention"] == attention
    talk = conversation()
    say(talk, "user", noise((56, 56), 1), "q")
    assert len(turns(engine, [(talk, TurnSpec(3, banned_ids=endless(engine)))])[0].ids) == 3
    support.run(engine.close())


def test_threads_follow_the_environment_and_the_cores(monkeypatch):
    monkeypatch.setenv("PRH_TORCH_THREADS", "many")
    for wrong in ("many", "²", "0", "-1", "٣", "1025", "9" * 5000):
        monkeypatch.setenv("PRH_TORCH_THREADS", wrong)
        with pytest.raises(
            UsageError, match="PRH_TORCH_THREADS must be a whole number from 1 to 1024, not '"
        ) as caught:
            loading.set_threads()
        assert len(str(caught.value)) < 120
    wanted = []
    monkeypatch.setattr(torch, "set_num_threads", wanted.append)
    for value, cores, expected in (("3", 1, [3]), ("", 2, [1]), ("", 1, [1]), ("", 8, [])):
        monkeypatch.setenv("PRH_TORCH_THREADS", value)
        monkeypatch.setattr(loading.os, "cpu_count", lambda cores=cores: cores)
        wanted.clear()
        loading.set_threads()
        assert wanted == expected


# -- files that are not what they must be -----------------------------------------------------------------------


@pytest.fixture
def copy(qwen25, tmp_path):
    return shutil.copytree(qwen25, tmp_path / "copy")


@pytest.fixture
def logged():
    """What transformers says in its log, which it does not hand on to the root logger."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_a_checkpoint_that_lacks_weights_is_refused_not_filled_with_noise(copy, logged):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("layers.2.mlp.up_proj.weight"))]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not hold 1 of the model's weights, .*up_proj.* would be random"):
        open_engine(copy)
    assert not logged


def test_weights_of_another_shape_are_refused_in_one_line_of_ours(copy, logged):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 200
    write(copy / "config.json", config)
    with pytest.raises(
        ModelError, match=r"12 of its weights have other shapes .*mlp\.\w+\.weight the first, \["
    ) as caught:
        open_engine(copy)
    assert "\n" not in str(caught.value)
    assert "ignore_mismatched_sizes" not in str(caught.value)
    assert not logged


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("config.json", "image_token_id", -1, "image_token_id -1 of config.json is not in the tokenizer"),
        ("config.json", "image_token_id", "x", "its config cannot be loaded"),
        ("generation_config.json", "eos_token_id", "x", "eos_token_id must be ids of tokens, not 'x'"),
        ("generation_config.json", "eos_token_id", [-1], "eos_token_id must be ids of tokens, not -1"),
        ("generation_config.json", "eos_token_id", [], "names no end-of-turn token"),
        ("tokenizer_config.json", "model_max_length", "x", "copy cannot be opened: TypeError"),
        ("preprocessor_config.json", "patch_size", 0, "patch_size times merge_size is 0"),
        ("preprocessor_config.json", "merge_size", None, "copy cannot be opened: TypeError"),
    ],
)
def test_values_of_a_wrong_kind_are_errors_in_one_line(copy, name, key, value, message):
    config = json.loads((copy / name).read_text())
    write(copy / name, {**config, key: value})
    with pytest.raises(ModelError, match=message) as caught:
        open_engine(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.safetensors", "nonsense", "copy cannot be loaded"),
        ("config.json", "{", "its config cannot be loaded"),
        (
            "config.json",
            '{"model_type": "no_such_family"}',
            "its config cannot be loaded: .*; a model with its own code",
        ),
        ("config.json", '{"model_type": "bert"}', "copy is of type bert, which is no image-text-to-text"),
        ("generation_config.json", "", "generation_config.json cannot be read"),
        ("generation_config.json", "[]", "generation_config.json must hold a JSON object"),
        ("tokenizer.json", "{", "its tokenizer cannot be loaded"),
        ("preprocessor_config.json", "{", "its image processor cannot be loaded"),
        ("chat_template.jinja", "", "has no chat template: add chat_template.jinja"),
    ],
)
def test_files_that_cannot_be_read_are_errors_in_one_line(copy, name, text, message):
    (copy / name).write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        open_engine(copy)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_the_device_is_an_error_in_one_line(monkeypatch):
    def to(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(ModelError, match=r"cannot be put on cpu: OutOfMemoryError: CUDA out of memory\. Tried"):
        open_engine("tiny")


def test_an_older_checkpoints_template_file_is_read(copy, opened, qwen25):
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    write(copy / "chat_template.json", {"chat_template": template.replace("helpful", "terse")})
    engine = open_engine(copy)
    talk = conversation()
    say(talk, "user", "q")
    assert "You are a terse assistant." in engine.processor.decode(engine.encode(talk).ids)
    assert engine.fingerprint != opened(qwen25).fingerprint
    support.run(engine.close())
    write(copy / "chat_template.json", {})
    with pytest.raises(ModelError, match=r"chat_template.json holds no chat template"):
        open_engine(copy)


def test_end_tokens_are_all_of_the_generation_config(copy):
    config = json.loads((copy / "generation_config.json").read_text())
    write(copy / "generation_config.json", {**config, "eos_token_id": [65, 66, 257]})
    engine = open_engine(copy)
    assert support.ends(engine) == {65, 66, 257}
    talk = conversation()
    say(talk, "user", "q")
    turn = turns(engine, [(talk, dataclasses.replace(TurnSpec(5), banned_ids=support.only(engine, 66)))])[0]
    assert (turn.finish, turn.text) == ("stop", "")
    support.run(engine.close())


def test_the_role_tool_is_offered_where_the_template_knows_it(copy, opened, qwen25):
    assert "tool" not in opened(qwen25).caps.roles
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(
        template.replace("message.role +", "('user' if message.role == 'tool' else message.role) +")
    )
    engine = open_engine(copy)
    assert "tool" in engine.caps.roles
    talk = conversation()
    say(talk, "tool", "seen")
    assert "<|im_start|>user\nseen" in engine.processor.decode(engine.encode(talk).ids)
    support.run(engine.close())
