"""Videos shown whole: what the Qwen-VL families' own video processors, which need torchvision, do with them.

Frames arrive sampled and at the size they are seen at, so nothing is sampled or resized here. Elsewhere a video
is shown as so many images; which of the two a run did stands in its manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..harness.errors import ModelError, Prerequisite, UsageError
from ..harness.types import Json
from .options import known_names
from .processor import QwenProcessor, one_line, title, torchvision_state
from .visual import Processor, Video

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

    from .visual import Tensors

OPTION = "video"
OPTIONS = (OPTION, "cache_gib")
MODES = ("auto", "native", "frames")
# Seconds between frames whose times are not known: a list of frames is two a second to Qwen's own tools.
STEP = 0.5
# Times go to the library as numbers of frames at this rate, so that what it writes of them is exact.
PER_SECOND = 1000


class QwenVideos:
    """The family's own video processor and expansion. Frames go in pairs; an odd last one is shown twice.

    Raises:
        ValueError: the checkpoint's files do not fit together.
    """

    def __init__(self, config: PreTrainedConfig, processor: QwenProcessor, folder: Path) -> None:
        from transformers import AutoVideoProcessor
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

        load = cast("Callable[[Path], Any]", AutoVideoProcessor.from_pretrained)
        self._pixels = load(folder)
        combined = cast("Mapping[type, Any]", PROCESSOR_MAPPING)[type(config)]
        self._own = combined(processor.images, processor.tokenizer, self._pixels)
        self._patch = int(self._pixels.patch_size)
        self._merge = int(self._pixels.merge_size)
        self._time = int(self._pixels.temporal_patch_size)
        self.token = str(self._own.video_token)
        self.token_id = int(self._own.video_token_id)
        self._timed = "second_per_grid_ts" in self._own.model_input_names
        self._unasked = {"do_resize": False, "do_sample_frames": False}
        if "cap_pixels_per_frame" in self._pixels.valid_kwargs.__annotations__:
            self._unasked["cap_pixels_per_frame"] = False  # left open, it warns
        if self._patch * self._merge != processor.factor:
            raise ValueError(f"cells of {self._patch * self._merge} pixels in videos and {processor.factor} in images")
        if config.video_token_id != self.token_id:
            raise ValueError(f"video_token_id {config.video_token_id!r} of config.json is not that of {self.token}")
        shown = processor.render([{"role": "user", "content": [{"type": "video"}]}], prompt=False)
        if shown.count(self.token) != 1:
            raise ValueError(f"the chat template shows a video as {shown[:80]!r}")

    def written(self, video: Video) -> str:
        import torch
        from transformers.video_utils import VideoMetadata

        moments = [round(second * PER_SECOND) for second in self._seconds(video)]
        made = {
            "video_grid_thw": torch.tensor([self._grid(video)]),
            "video_metadata": [VideoMetadata(len(moments), fps=PER_SECOND, frames_indices=moments)],
        }
        return cast(str, self._own.replace_video_token(made, video_idx=0))

    def runs(self, video: Video) -> list[int]:
        found = re.findall(f"(?:{re.escape(self.token)})+", self.written(video))
        lengths = [len(run) // len(self.token) for run in found]
        time, high, wide = self._grid(video)
        if sum(lengths) != time * high * wide // self._merge**2:
            raise ModelError(f"the processor gives {sum(lengths)} ids to a video of the grid {(time, high, wide)}")
        return lengths

    def tensors(self, videos: Sequence[Video]) -> Tensors:

        frames = [list(video.frames) for video in videos]
        made = self._pixels(videos=frames, return_tensors="pt", **self._unasked)
        pixels, grids = cast("torch.Tensor", made["pixel_values_videos"]), cast("torch.Tensor", made["video_grid_thw"])
        expected = [self._grid(video) for video in videos]
        if grids.tolist() != expected:
            raise ModelError(f"the video processor made grids {grids.tolist()} of videos whose grids are {expected}")
        return {"pixel_values_videos": pixels, **self.grids(videos)}

    def grids(self, videos: Sequence[Video]) -> Tensors:
        import torch

        found = {"video_grid_thw": torch.tensor([self._grid(video) for video in videos])}
        if self._timed:
            found["second_per_grid_ts"] = torch.tensor([self._step(video) for video in videos])
        return found

    def _grid(self, video: Video) -> list[int]:
        width, height = video.frames[0].size
        return [-(-len(video.frames) // self._time), height // self._patch, width // self._patch]

    def _seconds(self, video: Video) -> Sequence[float]:
        return video.seconds or [number * STEP for number in range(len(video.frames))]

    def _step(self, video: Video) -> float:
        """Seconds between one grid and the next, on average."""
        seconds = self._seconds(video)
        return self._time * (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)


def video_mode(extra: Mapping[str, str]) -> str:
    """The engine's option ``video``. Raises UsageError, also for an option that the engine does not have."""
    known_names("transformers", extra, OPTIONS)
    mode = extra.get(OPTION, MODES[0])
    if mode not in MODES:
        raise UsageError(f"engine.{OPTION} {mode!r} is not known: use one of {', '.join(MODES)}")
    return mode


def show_videos(mode: str, processor: Processor, config: PreTrainedConfig, folder: Path) -> dict[str, Json]:
    """Let a processor show videos whole where ``mode`` asks for it or, under ``auto``, where that is possible.

    Args:
        folder: where the checkpoint's video processor is configured.

    Returns:
        what a manifest says of it: ``video`` is ``native`` or ``frames``; ``video_reason`` why ``auto`` chose frames.

    Raises:
        Prerequisite: ``mode`` is ``native`` and it is not possible.
    """
    if mode == "frames":
        return {OPTION: "frames"}
    made = _open(processor, config, folder)
    if isinstance(made, QwenVideos):
        cast(QwenProcessor, processor).show_whole(made)
        return {OPTION: "native"}
    if mode == "native":
        raise Prerequisite(f"engine.{OPTION}=native: {made}; or use engine.{OPTION}=frames")
    return {OPTION: "frames", "video_reason": made}


def _open(processor: Processor, config: PreTrainedConfig, folder: Path) -> QwenVideos | str:
    """The videos of a checkpoint, or why there are none and what would help, in one line."""
    if not isinstance(processor, QwenProcessor):
        return f"videos of the family {config.model_type} are shown as images; choose a checkpoint of a Qwen-VL family"
    state = torchvision_state()
    if state != "works":
        import torch

        return (
            f"the video processor of {title(folder)} needs torchvision, which is {state}; "
            f"install the one built for torch {torch.__version__}"
        )
    try:
        return QwenVideos(config, processor, folder)
    except Exception as error:  # a stranger's files may fail in any way
        return f"{title(folder)}: its video processor cannot be used: {one_line(error)}; see its configs"
