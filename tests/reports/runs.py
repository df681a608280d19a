"""Real run folders in a moment: the harness's own evaluation of a scripted engine on questions of text alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prh.harness.engine import Turn
from prh.harness.errors import ModelError
from prh.harness.evaluate import Plan, load_profile, load_task, run
from prh.harness.ledger import Conversation
from prh.harness.manifest import dataset_fingerprint
from prh.harness.request import Request
from prh.harness.scripted import ScriptedEngine
from prh.harness.settings import resolve
from prh.harness.task import Dataset
from prh.harness.types import Call, Json, Sample

FAILS = "fails"


@dataclass(frozen=True)
class Make:
    """What a run is to be.

    Attributes:
        answers: of each sample, one for each repeat: 1 right, 0 wrong, another text as it is said, ``FAILS`` an error.
        calls: samples in which an operation is called first (which fails: there is no image to crop).
        settings: as in ``prh.toml``.
        asked: samples that are run, of those in ``answers``; all by default.
    """

    answers: Sequence[object]
    model: str = "base"
    task: str = "vstar-mini"
    calls: Sequence[int] = ()
    settings: Mapping[str, Json] = field(default_factory=dict)
    asked: Sequence[int] | None = None
    question: str = "What is it?"
    shared: int = 1
    profile: str = "strict"

    def samples(self) -> list[Sample]:
        """Questions, ``shared`` of them on each image, in two categories."""
        choices, gold = (("x", "y"), "A") if self.task.startswith("vstar") else ((), "7")
        kind = {"vstar-mini": "option", "tallyqa-complex-mini": "integer"}.get(self.task, "text")
        return [
            Sample(
                f"s{n:04}", self.question, (), (gold,), kind, choices, f"part {n % 2}", (), f"image {n // self.shared}"
            )  # type: ignore[arg-type]
            for n in range(len(self.answers))
        ]

    def at(self, folder: Path) -> Path:
        """Evaluate into a folder, which is returned."""
        task, samples = load_task(self.task), self.samples()
        gold, wrong = ("A", "B") if self.task.startswith("vstar") else ("7", "8")
        said = {sample.id: answer for sample, answer in zip(samples, self.answers, strict=True)}
        calling = {samples[number].id for number in self.calls}

        def script(talk: Conversation) -> str | Turn:
            if talk.sample_id in calling and not talk.turns:
                return Turn("Look.", native_calls=(Call("crop_image", {"bbox_2d": [0, 0, 1, 1], "target_image": 1}),))
            answer = said[talk.sample_id]
            if isinstance(answer, (list, tuple)):
                answer = answer[int(talk.key.rpartition("#")[2])]
            if answer == FAILS:
                raise ModelError("the server went away")
            text = {1: gold, 0: wrong}.get(answer, answer) if isinstance(answer, int) else answer
            return f"\\boxed{{{text}}}"

        setting = resolve([("task", task.settings), ("test", self.settings)], 0)
        repeats = max([len(answer) for answer in self.answers if isinstance(answer, (list, tuple))], default=1)
        identity = {
            "task": task.name,
            "split": "test",
            "dataset": dataset_fingerprint(samples),
            "model": self.model,
            "numerics": {"name": "scripted"},
            **setting.identity(),
        }
        chosen = samples if self.asked is None else [samples[number] for number in self.asked]
        request = Request(self.model, self.task, folder, repeats=repeats)
        engine, profile = ScriptedEngine(script, self.model), load_profile(self.profile)
        run(Plan(request, task, profile, Dataset(samples, {}), chosen, engine, setting, identity, 1.0, ()))
        return folder


def make(folder: Path, answers: Sequence[object], **options: object) -> Path:
    """A run folder; options as of ``Make``."""
    return replace(Make(answers), **options).at(folder)  # type: ignore[arg-type]


def flipped(n: int, right: int, gained: int = 0, lost: int = 0) -> tuple[list[object], list[object]]:
    """Answers of a baseline and a candidate to ``n`` samples, so many of which the candidate gains and loses."""
    before = [1] * right + [0] * (n - right)
    after = [0] * lost + [1] * (right - lost + gained) + [0] * (n - right - gained)
    return list(before), list(after)
