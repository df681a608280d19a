"""The card of a made dataset: what is in it, where it comes from, who wrote it, and what it was kept apart from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from ..harness import registry
from ..harness.record import Record
from ..harness.terminal import safe
from ..harness.types import Json
from .known import Known
from .recipe import Recipe
from .templates import UNTRAINED
from .yields import Tally

GATES = {
    "unreadable": "its media cannot be decoded",
    "evaluated": "its media are in an evaluation set",
    "evidence": "its evidence is not within its media",
    "unfit": "it has no room for any kind of the mix, such as a wrong box apart from the cue",
    "teacher": "the teacher has nothing to say, or says what may not be said",
    "early-answer": "the answer is stated before its evidence is shown",
    "performed": "a call did not do what it is there for when it was executed",
    "unseen": "a crop or frames do not show the evidence, or wrong ones do",
    "answer": "the last turn's answer is not read as an accepted one",
}


def card(recipe: Recipe, records: Sequence[Record], tallies: Sequence[Tally], known: Known) -> str:
    """The card in Markdown."""
    return "\n".join([*_head(records), *_made(tallies), *_who(records), *_apart(known), *_limits(recipe)])


def _of(record: Record, key: str) -> Json:
    return cast("Mapping[str, Json]", record["provenance"])[key]


def _head(records: Sequence[Record]) -> Iterator[str]:
    turns = [s for r in records for s in cast("list[dict[str, Json]]", r["segments"]) if s["role"] == "assistant"]
    trained = sum(bool(turn["trained"]) for turn in turns)
    licences = sorted({str(_of(record, "licence")) for record in records})
    yield "---"
    yield f"license: {'other' if len(licences) != 1 else json.dumps(licences[0].lower())}"
    yield "task_categories: [image-text-to-text, visual-question-answering]"
    yield "tags: [pixel-reasoning, synthetic, trajectories]"
    yield "---"
    yield "# Trajectories that look closer"
    yield ""
    yield (
        f"{len(records):,} trajectories made by `prh synth`: {len(turns):,} turns of an assistant that crops "
        f"images and selects frames before it answers, {trained:,} of them to be trained. The text was "
        "written by the teachers named below; every operation was executed by the harness, so that every observation "
        "is a real one."
    )
    yield ""
    yield (
        "`records.jsonl` holds one trajectory a line (`schema.json` describes it), `media/` the inputs as they came "
        "and what was shown of them, `yield.json` what was asked for and refused, `run.json` the recipe. "
        "`export/message_list.json` is the same in the format of Pixel Reasoner's released data."
    )
    yield ""


def plain(text: str) -> str:
    """Text of data or of a recipe on one line of Markdown that shows it as it stands: no link, no tag, no control."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(safe(" ".join(text.split())).split()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    yield line(header)
    yield line(["---"] * len(header))
    yield from (line([plain(str(cell)) for cell in row]) for row in rows)
    yield ""


def _made(tallies: Sequence[Tally]) -> Iterator[str]:
    yield "## What was made"
    yield ""
    rows = [row for tally in tallies for row in tally.rows()]
    yield from _table(["source", "kind", "made", "refused"], rows)
    refusing = sorted({gate for tally in tallies for gate in tally.refused})
    if refusing:
        yield "Refused means:"
        yield ""
        yield from (f"- `{gate}`: {GATES[gate]}" for gate in refusing)
        yield ""
    untrained = " and ".join(f"`{part}`" for part in UNTRAINED)
    yield (
        "Turns whose call is there to be recovered from (`provenance.steps` calls it "
        f"{untrained}) are not trained; all others are, the over-large crop of `further-zoom` among them."
    )
    yield ""


def _who(records: Sequence[Record]) -> Iterator[str]:
    yield "## Sources and licences"
    yield ""
    keys = ("source", "label", "licence")
    sources = Counter(tuple(str(_of(record, key)) for key in keys) for record in records)
    rows = [[*key, f"{count:,}"] for key, count in sorted(sources.items())]
    yield from _table(["source", "label", "licence", "trajectories"], rows)
    for name in dict.fromkeys(key[0] for key in sorted(sources)):
        if name in registry.names("sources"):
            yield f"- `{name}`: {getattr(registry.load('sources', name), 'summary', '')}"
    yield ""
    yield "## Teachers"
    yield ""
    found = Counter(json.dumps(_of(record, "teacher"), sort_keys=True) for record in records)
    taught = []
    for text, count in sorted(found.items()):
        teacher = cast("dict[str, Json]", json.loads(text))
        taught.append([str(teacher["name"]), str(teacher["model"] or "none"), str(teacher["how"]), f"{count:,}"])
    yield from _table(["teacher", "model", "how", "trajectories"], taught)


def _apart(known: Known) -> Iterator[str]:
    yield "## Kept apart from evaluation"
    yield ""
    yield (
        "Only training splits were read. The digests of every image's file and pixels, and of every video's file and "
        "of the pixels of its frames, were compared with those of:"
    )
    yield ""
    header = ["evaluation set", "split", "samples", "digests"]
    rows = [[str(one[key]) for key in ("task", "split", "samples", "digests")] for one in known.compared]
    yield from _table(header, rows or [["none", "", "", ""]])
    if known.absent:
        yield "These were not at hand and **were not compared with**:"
        yield ""
        yield from (f"- {one['task']} {one['split']}".rstrip() for one in known.absent)
        yield ""
    yield "A picture that was cropped, resized or compressed again has other pixels, and is not found this way."
    yield ""


def _limits(recipe: Recipe) -> Iterator[str]:
    synth = recipe.synth
    yield "## How it was made"
    yield ""
    yield (
        f"Seed {synth.seed}; edges of boxes are rounded outwards to {synth.grid:g} of the image; at most "
        f"{synth.frames} frames a call, unless a source names them. The mixes of kinds are those of the recipe in "
        "`run.json`; by default those of Pixel Reasoner (arXiv 2505.15966). The same recipe, versions and data give "
        "the same records."
    )
    yield ""
    yield "## Limits"
    yield ""
    yield (
        "Wrong boxes and frames are drawn by chance, not by a model's own mistakes. What `annotation` says is as true "
        "as the annotations and as plain as its sentences. What a model wrote was checked for its answer and its form, "
        "not sentence by sentence."
    )
    yield ""
