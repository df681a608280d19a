"""Tokenizer and image processor of a checkpoint, with torchvision, without it, and in spite of a broken one.

Qwen's combined processor demands torchvision even where no video is given to it, so its parts are used by
themselves: the tokenizer, and the image processor in its Pillow variant, with resizing off because images
arrive at the size they are seen at. Videos shown whole are ``native_video``'s. Other families bring their own
combined processor.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from PIL import Image

from ..harness.errors import ModelError, Prerequisite
from .patches import Patches
from .recent import Recent
from .visual import Medium, Message, Video, Videos

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from .visual import Tensors

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
# Bytes of templates' text and of encoded text that are remembered, each: samples of one prompt share most of it.
REMEMBERED = 1 << 22
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


@cache
def torchvision_state() -> str:
    """``absent``, ``works``, or ``broken: REASON`` where it is installed and does not import.

    A torchvision built for another torch is the usual fault. transformers takes its presence for its health
    and then cannot import even the image processors that do not use it, so once found broken it is hidden
    from every import of this process.
    """
    if importlib.util.find_spec("torchvision") is None:
        return "absent"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # whatever its extension modules raise
        _hide_torchvision()
        return f"broken: {one_line(error)}"
    return "works"


def _hide_torchvision() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    # None is how Python marks a module as not importable; find_spec then answers None as well.
    cast("dict[str, ModuleType | None]", sys.modules)["torchvision"] = None
    known = sys.modules.get("transformers.utils.import_utils")
    for check in ("is_torchvision_available", "is_torchvision_v2_available"):
        clear = getattr(getattr(known, check, None), "cache_clear", None)
        if clear is not None:
            clear()


def load_libraries() -> None:
    """Make torch and transformers importable, or say what to install. Raises Prerequisite."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise Prerequisite(f"the transformers engine needs {name}, which is not installed: pip install 'prh[hf]'")
    torchvision_state()


@contextmanager
def quiet(*, always: bool = False, weights: bool = False) -> Iterator[None]:
    """Without transformers' progress bars where no person watches, or at all; ``weights``: nor its report on them."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    if weights:
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if always or not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def one_line(error: BaseException, length: int = 300) -> str:
    """An error as one line: its type and the beginning of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:length] if text else type(error).__name__


def title(folder: Path) -> str:
    """What a person calls a checkpoint's folder: its name, or the hub id of a cached snapshot."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


class _Templated:
    """A tokenizer with a chat template. Encoding is serialised: fast tokenizers keep state between calls."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None, name: str) -> None:
        self.tokenizer = tokenizer
        self.lock = threading.Lock()
        self._rendered: Recent[tuple[str, str, bool], str] = Recent(REMEMBERED)
        self._encoded: Recent[tuple[str, bool], tuple[int, ...]] = Recent(REMEMBERED)
        self.template = self._template(template or tokenizer.chat_template, name)
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.special = frozenset(added | set(tokenizer.all_special_tokens))

    def _template(self, found: object, name: str) -> str:
        chosen = found.get("default") if isinstance(found, dict) else found
        if not isinstance(chosen, str) or not chosen:
            raise ModelError(f"{name} has no chat template: add chat_template.jinja to its folder")
        return chosen

    def render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        key = json.dumps(messages)
        return self._rendered.get(
            (self.template, key, prompt),
            lambda: self._render(messages, prompt=prompt),
            lambda text: len(key) + len(text),
        )

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", list(messages)),
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except Exception as error:  # templates are programs, and refuse by raising
            raise ModelError(f"the checkpoint's chat template refuses this conversation: {one_line(error)}") from None
        return cast(str, text)

    def encode(self, text: str, *, opening: bool) -> list[int]:
        special = self.begins(text, opening=opening)
        made = self._encoded.get(
            (text, special), lambda: self._tokens(text, special=special), lambda ids: len(text) + 8 * len(ids)
        )
        return list(made)

    def _tokens(self, text: str, *, special: bool) -> tuple[int, ...]:
        with self.lock:
            return tuple(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def begins(self, text: str, *, opening: bool) -> bool:
        """Whether the tokenizer is to add its beginning-of-text token: at the opening, where the text has none."""
        begin = self.tokenizer.bos_token
        return opening and not (begin and text.startswith(begin))

    def decode(self, ids: Sequence[int]) -> str:
        with self.lock:
            text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast(str, text)


class QwenProcessor(_Templated):
    """The parts of Qwen-VL processors that images need. One run of ``grid / merge^2`` ids stands for an image.

    Attributes:
        videos: what is done with a video; None where videos are shown as images.
    """

    backend = "pil"
    videos: Videos | None = None
    video_token = ""
    video_ids: frozenset[int] = frozenset()

    def __init__(self, config: PreTrainedConfig, tokens: Path, images: Path, trust_remote_code: bool) -> None:
        super().__init__(load_tokenizer(tokens, trust_remote_code), legacy_template(tokens), title(tokens))
        self.images = load_qwen_images(images)
        self.factor = int(self.images.patch_size * self.images.merge_size)
        if self.factor < 2:
            raise ModelError(f"{title(images)}: patch_size times merge_size is {self.factor} in its image processor")
        self._patches = Patches(self.images)
        vocabulary = self.tokenizer.get_vocab()
        image_id: object = config.image_token_id
        if not isinstance(image_id, int) or image_id not in vocabulary.values():
            raise ModelError(f"{title(tokens)}: image_token_id {image_id!r} of config.json is not in the tokenizer")
        self.image_id = image_id
        self.image_token = cast(str, self.tokenizer.convert_ids_to_tokens(image_id))
        self.image_ids = frozenset([self.image_id])
        self.vision_ids = self.image_ids | {vocabulary[text] for text in VISION_TOKENS if text in vocabulary}

    def show_whole(self, videos: Videos) -> None:
        """From now on show videos as such."""
        self.videos, self.video_token, self.video_ids = videos, videos.token, frozenset([videos.token_id])

    def runs(self, media: Sequence[Medium]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for medium in media:
            if isinstance(medium, Video):
                reader = self._reader()
                found += [(reader.token_id, length) for length in reader.runs(medium)]
            else:
                found.append((self.image_id, medium.width * medium.height // self.factor**2))
        return found

    def _reader(self) -> Videos:
        if self.videos is None:
            raise ModelError("videos are shown to this model as images; use `engine.video=native`")
        return self.videos

    def ids(self, text: str, media: Sequence[Medium], *, opening: bool) -> list[int]:
        videos = [medium for medium in media if isinstance(medium, Video)]
        if videos:
            reader = self._reader()
            first, *rest = text.split(reader.token)
            text = first + "".join(reader.written(v) + after for v, after in zip(videos, rest, strict=True))
        counts = (length for number, length in self.runs(media) if number == self.image_id)
        found: list[int] = []
        for number in self.encode(text, opening=opening):
            found += [number] * (next(counts) if number == self.image_id else 1)
        return found

    def tensors(self, text: str, media: Sequence[Medium]) -> Tensors:
        images, videos = self._sorted(media)
        return {**self._images(images), **(self._reader().tensors(videos) if videos else {})}

    def grids(self, media: Sequence[Medium]) -> Tensors:
        import torch

        images, videos = self._sorted(media)
        patch = int(self.images.patch_size)
        cells = [[1, image.height // patch, image.width // patch] for image in images]
        found = {"image_grid_thw": torch.tensor(cells)} if cells else {}
        return {**found, **(self._reader().grids(videos) if videos else {})}

    def _sorted(self, media: Sequence[Medium]) -> tuple[list[Image.Image], list[Video]]:
        """Images and videos apart. Raises ModelError where one is not at a size that can be seen."""
        images = [medium for medium in media if not isinstance(medium, Video)]
        videos = [medium for medium in media if isinstance(medium, Video)]
        for image in (*images, *(frame for video in videos for frame in video.frames)):
            if image.width % self.factor or image.height % self.factor:
                size = f"{image.width}x{image.height}"
                raise ModelError(f"an image of {size} is not a multiple of {self.factor}: resize it to `engine.fit`")
        return images, videos

    def _images(self, images: Sequence[Image.Image]) -> Tensors:
        if not images:
            return {}
        if self._patches.exact:
            import torch

            pixels = [self._patches(image) for image in images]
            return {"pixel_values": torch.cat(pixels) if len(pixels) > 1 else pixels[0], **self.grids(images)}
        made = self.images(images=list(images), do_resize=False, return_tensors="pt")
        pixels, grids = made["pixel_values"], made["image_grid_thw"]
        expected = self.grids(images)["image_grid_thw"].tolist()
        if grids.tolist() != expected:
            raise ModelError(f"the image processor made grids {grids.tolist()} of images whose grids are {expected}")
        return {"pixel_values": pixels, "image_grid_thw": grids}


class OtherProcessor(_Templated):
    """The combined processor of any other image-text-to-text family, which resizes and expands in its own way."""

    factor = 1
    video_token = ""
    video_ids: frozenset[int] = frozenset()

    def __init__(self, config: PreTrainedConfig, folder: Path, trust_remote_code: bool) -> None:
        processor = load_combined(folder, trust_remote_code)
        tokenizer = cast("PreTrainedTokenizerBase", processor.tokenizer)
        super().__init__(tokenizer, getattr(processor, "chat_template", None), title(folder))
        self.combined = processor
        self.image_token = cast(str, getattr(processor, "image_token", ""))
        if not self.image_token:
            raise ModelError(f"{title(folder)}: its processor {type(processor).__name__} names no image token")
        self.backend = "pil" if type(processor.image_processor).__name__.endswith("Pil") else "torchvision"
        self.image_ids = frozenset(_named_ids((config,), ("image_token_id", "image_token_index")))
        names = ("image_token_id", "video_token_id", "boi_token_id", "eoi_token_id", "fake_image_token_id")
        self.vision_ids = self.image_ids | _named_ids((config, processor, tokenizer), names)

    def runs(self, media: Sequence[Medium]) -> None:
        return None

    def ids(self, text: str, media: Sequence[Medium], *, opening: bool) -> list[int]:
        if not media:
            return self.encode(text, opening=opening)
        special = self.begins(text, opening=opening)
        with self.lock:
            made = self.combined(text=[text], images=_only_images(media), add_special_tokens=special)
        return [int(number) for number in made["input_ids"][0]]

    def tensors(self, text: str, media: Sequence[Medium]) -> Tensors:
        if not media:
            return {}
        with self.lock:
            made = self.combined(text=[text], images=_only_images(media), return_tensors="pt", add_special_tokens=False)
        return {name: value for name, value in made.items() if name not in ("input_ids", "attention_mask")}

    def grids(self, media: Sequence[Medium]) -> Tensors:
        return {}


def _only_images(media: Sequence[Medium]) -> list[Image.Image]:
    return [medium for medium in media if not isinstance(medium, Video)]


def _named_ids(sources: Iterable[object], names: Sequence[str]) -> set[int]:
    values = [getattr(source, name, None) for source in sources for name in names]
    return {value for value in values if isinstance(value, int)}


def load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return cast(
            "PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        )
    except Exception as error:  # a stranger's files may fail in any way
        raise ModelError(f"{title(folder)}: its tokenizer cannot be loaded: {one_line(error)}") from None


def load_qwen_images(folder: Path) -> Qwen2VLImageProcessorPil:
    """The image processor of a Qwen-VL folder, in its Pillow variant everywhere. Raises ModelError."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        return Qwen2VLImageProcessorPil.from_pretrained(folder)
    except Exception as error:  # a stranger's files may fail in any way
        raise ModelError(f"{title(folder)}: its image processor cannot be loaded: {one_line(error)}") from None


class Combined(Protocol):
    """What is used of a family's own processor."""

    tokenizer: object
    image_processor: object

    def __call__(
        self,
        *,
        text: list[str],
        images: list[Image.Image],
        add_special_tokens: bool,
        return_tensors: str | None = None,
    ) -> Mapping[str, torch.Tensor]: ...


def load_combined(folder: Path, trust_remote_code: bool) -> Combined:
    """A family's own processor. Raises ModelError, or Prerequisite where it needs torchvision."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # a stranger's files may hold anything; older transformers miss packages by ValueError
        state = torchvision_state()
        if state != "works" and "torchvision" in str(error).lower():
            message = f"the processor of {title(folder)} needs torchvision, which is {state}"
            raise Prerequisite(f"{message}: install the one built for this torch") from None
        if not isinstance(error, ImportError):
            raise ModelError(f"{title(folder)}: its processor cannot be loaded: {one_line(error)}") from None
        raise Prerequisite(f"the processor of {title(folder)} needs another package: {one_line(error)}") from None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(f"{title(folder)} has no processor of text and images; is it an image-text-to-text model?")
    return cast(Combined, processor)


def legacy_template(folder: Path) -> str | None:
    """The template of ``chat_template.json``, which older checkpoints keep beside the tokenizer's own."""
    path = folder / "chat_template.json"
    if (folder / "chat_template.jinja").is_file() or not path.is_file():
        return None
    try:
        template = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no chat template: {one_line(error)}") from None
    return cast(str, template)
