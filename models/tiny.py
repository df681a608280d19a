"""The embedded checkpoints: real Qwen2.5-VL classes and files at 1.9 M parameters, synthetic.

``tiny-init`` is built here, its weights random; the others come with the package, trained from it by
``prh train tiny``; ``tiny`` is the best there is.

Their sizes are those at which a model this small can learn to point and to read. Initial weights are wide, and
the vision tower's attention is full. A place is known only through rotary angles: height and width are dealt
bands in turn, from fast ones, which tell places apart, to slow ones, along which a name finds what it names
wherever it is. And the vocabulary holds the fixed texts of the built-in protocols as single tokens, so that the
text stays exactly the protocol's while a prompt costs some thirty tokens besides its image.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..harness.digests import cache_dir, file_digest, json_digest
from ..harness.errors import DataError, ModelError
from ..harness.types import Json
from .processor import load_libraries, quiet
from .vocabulary import plain_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED = 20
# Beside the checkpoint in the cache: what was built, so that a folder which lost a file is not trusted.
FILES = "files.json"
SHIPPED = Path(__file__).parent / "shipped"
# Which of the trained checkpoints `tiny` means: the first that is there.
BEST = ("tiny-sft", "tiny-warm", "tiny-base")
ABOUT = {
    "tiny-base": "sees, reads and answers; never taught to look closer",
    "tiny-warm": "a short training on trajectories: where reinforcement begins",
    "tiny-sft": "trained on trajectories to the end",
    "tiny-rl": "the warm start reinforced, with curiosity",
    "tiny-rl-no-curiosity": "the warm start reinforced, without curiosity",
    "tiny-init": "the same with random weights",
}
SPREAD = 0.08
CONTEXT = 4096
CELL = 28
PAD, END = "<|endoftext|>", "<|im_end|>"
SPECIAL = (
    PAD,
    "<|im_start|>",
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEXT: dict[str, Json] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": CONTEXT,
    "max_window_layers": 4,
    "rms_norm_eps": 1e-6,
    "initializer_range": SPREAD,
    "rope_parameters": {"rope_type": "default", "rope_theta": 200.0, "mrope_section": [0, *[1] * 16, 0]},
}
VISION: dict[str, Json] = {
    "depth": 3,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "out_hidden_size": 128,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [0, 1, 2],
    "initializer_range": SPREAD,
}
PIXELS: dict[str, Json] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "merge_size": 2,
    "patch_size": 14,
    "processor_class": "Qwen2_5_VLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": CELL**2, "longest_edge": 25 * CELL**2},
    "temporal_patch_size": 2,
}
SETTINGS: dict[str, Json] = {
    "protocol": "pixel-reasoner",
    "padding": 0.0,
    "budget": {
        "input": [CELL**2, 25 * CELL**2],
        "crop": [CELL**2, 25 * CELL**2],
        "video_frame": [CELL**2, 9 * CELL**2],
        "selected_frame": [CELL**2, 25 * CELL**2],
    },
    "limits": {"new_tokens": 64, "tokens": 2048},
}
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [synthetic, untrained]
---
# tiny

A synthetic miniature of the Qwen2.5-VL architecture, built by `prh`. **It is untrained**: its weights are random
numbers from a fixed seed, its replies are noise, and no score it gets means anything. It exists so that every
code path that meets a real checkpoint of this family can run on a processor in seconds, without a download.

It is not derived from any released weights. Its vocabulary holds bytes, a few words, and the fixed texts of the
built-in protocols; `prh.json` holds the pixel budgets and limits at which it is meant to run.
"""


def build_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of Qwen's class: 256 bytes, Qwen's special tokens, and ``plain_tokens``."""
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={character: number for number, character in enumerate(alphabet)},
        merges=[],
        model_max_length=CONTEXT,
        eos_token=END,
        pad_token=PAD,
    )
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL], special_tokens=True)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain_tokens()])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build(folder: Path) -> None:
    """Write the checkpoint into an empty folder; the same bytes every time. Raises Prerequisite without torch."""
    load_libraries()
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    with quiet(always=True):
        _build_model(tokenizer, folder)
    video: dict[str, Json] = {key: value for key, value in PIXELS.items() if key != "resample"}
    kinds: dict[str, Json] = {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "fps": 2.0,
        "min_frames": 4,
        "max_frames": 16,
    }
    _write(folder / "preprocessor_config.json", {**PIXELS, "image_processor_type": "Qwen2VLImageProcessor"})
    _write(folder / "video_preprocessor_config.json", {**video, **kinds})
    _write(folder / "prh.json", SETTINGS)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("transformers_version", None)
    _write(folder / "config.json", config)


def _build_model(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    import numpy as np
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {text: tokenizer.get_vocab()[text] for text in SPECIAL}
    end, pad = ids[END], ids[PAD]
    tokens = {"bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, **tokens, "vocab_size": len(tokenizer), "tie_word_embeddings": True},
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                rng = np.random.default_rng([SEED, *name.encode()])
                weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape, "float32") * np.float32(SPREAD)))
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    model.save_pretrained(folder)
    _write(folder / "generation_config.json", {**tokens, "eos_token_id": [end, pad]})


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def tiny_folder() -> Path:
    """The embedded checkpoint's folder, built once into the cache; safe under processes that build it at once.

    Raises:
        ModelError: the cache folder cannot be written.
        Prerequisite: torch or transformers is missing.
    """
    digest = json_digest([file_digest(Path(__file__)), [*plain_tokens()]])
    folder = cache_dir() / "models" / f"tiny-{digest[:12]}"
    if whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        message = f"cannot build the embedded checkpoint in {folder.parent}: {error.strerror}; set PRH_CACHE"
        raise ModelError(message) from None
    damaged = temporary.with_name(f"{temporary.name}-damaged")
    try:
        build(temporary)
        _write(temporary / FILES, inventory(temporary))
        if folder.exists() and not whole(folder):
            folder.rename(damaged)
        temporary.rename(folder)
    except OSError as error:
        if not whole(folder):  # another process has not been faster: a real fault
            message = f"cannot build the embedded checkpoint in {folder}: {error.strerror}; set PRH_CACHE"
            raise ModelError(message) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(damaged, ignore_errors=True)
    return folder


def inventory(folder: Path) -> dict[str, Json]:
    """Size and digest of every file of the checkpoint, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILES)
    return {path.name: [path.stat().st_size, file_digest(path)] for path in files}


def whole(folder: Path) -> bool:
    """Whether a folder holds the checkpoint as it was built. Files beside it do not matter."""
    try:
        built = json.loads((folder / FILES).read_text(encoding="utf-8"))
        held = inventory(folder)
        return bool(built) and all(held.get(name) == mark for name, mark in built.items())
    except (OSError, ValueError, AttributeError, DataError):
        return False


def shipped() -> dict[str, Path]:
    """The trained checkpoints that come with this package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("tiny-*/config.json"))}


def summaries() -> dict[str, str]:
    """A line about each embedded checkpoint."""
    best = next((name for name in BEST if name in shipped()), "tiny-init")
    about = {name: text for name, text in ABOUT.items() if name in EMBEDDED}
    return {"tiny": f"embedded synthetic miniature of Qwen2.5-VL, 1.9 M parameters; here {best}", **about}


def _embedded() -> dict[str, Callable[[], Path]]:
    trained: dict[str, Callable[[], Path]] = {name: partial(Path, path) for name, path in shipped().items()}
    best = next((trained[name] for name in BEST if name in trained), tiny_folder)
    return {"tiny": best, **trained, "tiny-init": tiny_folder}


EMBEDDED: Mapping[str, Callable[[], Path]] = _embedded()
