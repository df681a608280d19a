"""STAR (Wu et al. 2021, https://github.com/csbobby/STAR_Benchmark): questions about moments of Charades videos.

``STAR_<split>.json`` is a list of objects; those keys are read that are named without brackets::

    {"question_id": "Interaction_T1_13", "question", "video_id": "6H78U", "start": 11.1, "end": 19.6,
     "answer": "The clothes.", "choices": [{"choice_id": 0, "choice": "The blanket.", ("choice_program")}, ..],
     ("question_program"), ("situations")}

Learnt from the authors' visualisation tools (``code/visualization_tools/qa_visualization.py``: seconds of the whole
video, ``<video_id>.mp4``), their README (Charades scaled to 480p) and a printed row in a public reader of STAR. The
answer is the text of a choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...harness.errors import DataError, UsageError
from ...harness.media import Media
from ...harness.types import LETTERS, Evidence, Sample
from ...harness.video import read_frames, uniform
from ..seeds import Seed, SourceOptions
from .asked import asked
from .rows import Row, json_list, sifted

FOLDERS = ("Charades_v1_480", "videos", "")


class STAR:
    """Questions of STAR with the frames that answer them.

    The model is shown ``shown`` frames of the whole video; evidence is those of them whose time lies within the
    row's ``start`` and ``end``, at most ``most`` of these, spread evenly. A row whose window holds none of the frames
    shown cannot be answered from them and is passed over.

    ``data`` is ``STAR_<split>.json`` or the folder that holds it. Settings: ``videos`` (folder of ``<video_id>.mp4``;
    by default ``Charades_v1_480`` or ``videos`` beside the questions, or that folder itself), ``shown`` (16), ``most``
    (8, what ``select_frames`` takes), ``faulty``.
    """

    name = "star"
    summary = "STAR: questions about moments of Charades videos, with the frames that answer them"
    licence = "Charades: Allen Institute for AI, non-commercial use; questions: as the STAR repository states"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """See ``Source``; a missing or broken video is the fault of its row."""
        asking = asked(self.name, options, {"videos": "", "shown": 16, "most": 8})
        questions = asking.root if asking.root.is_file() else asking.root / f"STAR_{options.split}.json"
        if not questions.is_file():
            raise UsageError(f"source star: no {questions.name} in {asking.root}; fetch it or choose another split")
        videos = _videos(questions.parent, asking.text("videos"))
        reader = _Reader(videos, asking.whole("shown", 2, 256), asking.whole("most", 1, 256), options.split)
        return sifted(self.name, json_list(questions), reader.seeds, asking.faulty)


def _videos(folder: Path, chosen: str) -> Path:
    if chosen:
        path = folder / Path(chosen).expanduser()
        if not path.is_dir():
            raise UsageError(
                f"source star: setting `videos`: no folder {chosen}; give the one that holds the .mp4 files"
            )
        return path
    return next(path for path in (folder / name for name in FOLDERS) if path.is_dir())


@dataclass(frozen=True, slots=True)
class _Reader:
    videos: Path
    shown: int
    most: int
    split: str
    times: dict[Path, tuple[float, ...]] = field(default_factory=dict)

    def seeds(self, row: Row) -> Iterator[Seed]:
        name, video = row.identifier("question_id"), row.text("video_id")
        start, end = row.number("start"), row.number("end")
        if start < 0 or end <= start:
            row.fail(f"`start` {start:g} and `end` {end:g} are no window; expected seconds, 0 <= start < end")
        choices, gold = _choices(row)
        question = row.text("question")
        media = Media("video", f"{video}.mp4", row.path("video_id", self.videos, f"{video}.mp4"), frames=self.shown)
        frames = self._within(row, media, start, end)
        if frames:
            evidence = (Evidence(frames=frames),)
            category = name.split("_")[0]
            sample = Sample(
                f"star/{name}", question, (media,), gold, "option", choices, category, (), media.name, evidence
            )
            origin = {**row.origin, "split": self.split}
            yield Seed(sample, STAR.name, STAR.licence, origin, {"window": [start, end]})

    def _within(self, row: Row, media: Media, start: float, end: float) -> tuple[int, ...]:
        """The frames shown, from 1, whose time is within the window, thinned to ``most``."""
        times = self._times(row, media)
        if start > times[-1]:
            row.fail(f"`start` {start:g} is beyond the last frame shown, at {times[-1]:g} s; fix the row or the video")
        inside = [number for number, time in enumerate(times, 1) if start <= time <= end]
        if len(inside) > self.most:
            inside = [inside[place] for place in uniform(0, len(inside) - 1, self.most)]
        return tuple(inside)

    def _times(self, row: Row, media: Media) -> tuple[float, ...]:
        path = media.source
        if not isinstance(path, Path) or path not in self.times:
            try:
                clip = read_frames(media)
            except DataError as error:
                row.fail(error)
            if not clip.seconds:
                row.fail(f"{media.name}: the video does not say when its frames are shown; convert it to MP4")
            if not isinstance(path, Path):
                return clip.seconds
            self.times[path] = clip.seconds
        return self.times[path]


def _choices(row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The choices in the order of their ids, and the letters of those that are the answer."""
    numbered = sorted((choice.whole("choice_id"), choice.text("choice")) for choice in row.rows("choices"))
    if not 2 <= len(numbered) <= len(LETTERS) or len({number for number, _ in numbered}) < len(numbered):
        row.refuse("choices", f"2 to {len(LETTERS)} choices of different choice_id")
    answer = row.text("answer").strip()
    gold = tuple(LETTERS[place] for place, (_, choice) in enumerate(numbered) if choice.strip() == answer)
    return tuple(choice for _, choice in numbered), gold or row.refuse("answer", "the text of one of the choices")
