"""Whether a checkpoint's answers depend on what its crops show: ``make controls MODEL=tiny``.

Each miniature of still pictures three times: with tools; with tools whose crops show what another question is about, of
the same form and with another answer; and without tools. Accuracy (for infographicsvqa-mini ANLS) on the questions that
need an operation, with 95 % intervals, beside that of the best constant answer.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from measure import machine
from prh.harness.evaluate import plan, run
from prh.harness.media import load_image
from prh.harness.operations import CropImage
from prh.harness.request import Request
from prh.harness.types import Box, Size
from prh.training.drills import CELLS, cells
from prh.training.wording import form_of

TASKS = ("vstar-mini", "tallyqa-complex-mini", "infographicsvqa-mini")


class Swapped(CropImage):
    """A crop that succeeds as the call asks for it, and shows what another question is about, as tightly as calls can.

    Every sample must have another one of the same form with another answer and evidence.
    """

    def __init__(self, samples):
        self.others = {sample.id: partner(sample, samples) for sample in samples}

    def run(self, arguments, view):
        made = super().run(arguments, view)
        other = self.others[view.conversation.sample_id]
        picture = load_image(other.media[0]).image
        size = Size(*picture.size)
        box = Box(*cells(other.evidence[0].box, size)).scaled(size.width / CELLS, size.height / CELLS)
        image = picture.crop(tuple(round(edge) for edge in box))
        (draft,) = made.drafts
        return replace(made, drafts=(replace(draft, image=image),))


def partner(sample, samples):
    """The next sample of the same form of question with another answer and evidence."""
    place = [one.id for one in samples].index(sample.id)
    later = [*samples[place + 1 :], *samples[:place]]
    form = form_of(sample.question)[0]
    fits = (one for one in later if form_of(one.question)[0] is form and told(one) != told(sample) and one.evidence)
    return next(fits)


def told(sample):
    """The answer as it stands in the picture."""
    return sample.choices["ABCDEFGH".index(sample.gold[0])] if sample.choices else sample.gold[0]


def figures(model, task, protocol, folder, *, swapped=False):
    """The primary metric on questions that need an operation."""
    out = folder / f"{task}-{protocol}-{swapped}"
    made = plan(Request(model=model, task=task, out=out, overrides={"protocol": protocol}))
    if swapped:
        own = made.setting.protocol
        operations = [Swapped(made.samples) if one.name == "crop_image" else one for one in own.operations]
        made = replace(made, setting=replace(made.setting, protocol=type(own)(operations, own.padding)))
    metrics = run(made).metrics
    return metrics["slices"]["needs_operation"][metrics["primary"]]


def main(model):
    ways = {
        "with tools": {"protocol": "pixel-reasoner"},
        "crops of another question": {"protocol": "pixel-reasoner", "swapped": True},
        "without tools": {"protocol": "direct"},
    }
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            rows = {name: figures(model, task, folder=Path(folder), **how) for name, how in ways.items()}
            rows["best constant answer"] = figures("blind", task, "pixel-reasoner", Path(folder) / "blind")
            for name, row in rows.items():
                low, value, high = (100 * row[key] for key in ("low", "value", "high"))
                print(f"{task:22} {name:26} {value:5.1f} ({low:.1f}-{high:.1f}), n {row['n']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny")
