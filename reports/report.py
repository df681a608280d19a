"""The report: one HTML file that holds everything, loads nothing, and is the same bytes for the same runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ..harness.errors import Prerequisite, UsageError
from ..harness.types import Json
from . import baselines, curves, provenance
from .album import Album, Images
from .banner import GLYPHS, banner, heading, verdicts_on
from .documents import SCHEMA
from .episodes import Table, visible
from .field import Field, field_of
from .gate import Verdict
from .limits import GateLimits
from .runs import entrants
from .samples import Gatherer, Packed
from .sections import comparability, differences
from .summary import evaluations_json, report_markdown, trainings_json
from .views import SHAPES, task_view

if TYPE_CHECKING:
    from markupsafe import Markup

Form = Literal["html", "json", "md"]
SCRIPTS = ("explorer.js", "sample.js", "start.js")
# The table for a page without JavaScript shows so many rows; the rest is in the run folders.
STATIC_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How a report is made.

    Attributes:
        images: ``thumb``, ``full`` or ``none``.
        profile: how answers are read; by default as each run's were.
        allow: fields that may differ because they are what is compared.
    """

    images: Images = "thumb"
    profile: str | None = None
    allow: tuple[str, ...] = ()
    limits: GateLimits = field(default_factory=GateLimits)


def report(words: Sequence[str], options: Options) -> str:
    """The page about runs and trainings as the command line names them, the baseline first. Raises PrhError."""
    return documents(words, options, ["html"])["html"]


def documents(words: Sequence[str], options: Options, forms: Sequence[Form]) -> dict[Form, str]:
    """What is said about runs and trainings in the forms that are asked for: the page, JSON, Markdown. Raises PrhError.

    Args:
        words: as the command line names them, the baseline first.
    """
    trainings = [curves.read_training(Path(word)) for word in words if curves.is_training(Path(word))]
    columns = [word for word in words if not curves.is_training(Path(word))]
    if not columns and not trainings:
        raise UsageError("name a run folder, a folder of runs, or a training's folder")
    shown = field_of(entrants(columns), options.profile, options.allow) if columns else None
    verdicts = verdicts_on(shown, options.limits) if shown else []
    gatherer = Gatherer(shown, options.images if "html" in forms else "none") if shown else None
    packed = gatherer.gather() if gatherer else None
    told = curves.manifests(trainings)
    made: dict[Form, str] = {}
    if "html" in forms:
        page: Table = _trainings_alone(trainings)
        data: Table = {"index": "", "chunks": [], "pictures": []}
        if shown and gatherer and packed:
            page = _evaluations(shown, verdicts, packed, gatherer.album, options)
            pictures = list(gatherer.album.stored.items())
            data = {"index": packed.index, "chunks": cast(Json, packed.chunks), "pictures": cast(Json, pictures)}
        made["html"] = _page(page, data, trainings, told)
    if "json" in forms:
        whole: Table = evaluations_json(shown, verdicts, packed) if shown and packed else {"schema": SCHEMA}
        own = provenance.manifests(shown) if shown else []
        whole |= {"trainings": trainings_json(trainings), "provenance": cast(Json, [*own, *told])}
        made["json"] = json.dumps(whole, allow_nan=False) + "\n"
    if "md" in forms:
        made["md"] = report_markdown(shown, verdicts, trainings)
    return made


def _page(page: Table, data: Table, trainings: Sequence[curves.Training], told: Sequence[Table]) -> str:
    """The page of what is said of evaluations, with the curves of trainings."""
    page = {"manifests": [], "missing": "", **page, "curves": cast(Json, curves.views(trainings))}
    page["manifests"] = [*cast("list[Json]", page["manifests"]), *told]
    page["curves_note"] = "By step, from the trainings' logs; trainings that differ in their seed alone are one line."
    page["sections"] = cast(Json, _sections(page))
    return _rendered(page, data)


def _evaluations(shown: Field, verdicts: Sequence[Verdict], packed: Packed, album: Album, options: Options) -> Table:
    roles = ["baseline", *[""] * (len(shown.labels) - 1)] if len(shown.labels) > 1 else [""]
    tasks = [task_view(shown, task, packed) for task in shown.tasks]
    return {
        **heading(shown),
        "entrants": [
            {"number": number, "label": label, "role": role}
            for number, (label, role) in enumerate(zip(shown.labels, roles, strict=True))
        ],
        "verdict": banner(shown, verdicts, options.limits),
        "comparability": cast(Json, comparability(shown)),
        "forest": differences(shown, options.limits),
        "tasks": cast(Json, tasks),
        "samples": packed.pictured[1],
        "pictures_note": _pictures_note(packed, album, options.images),
        "rows": cast(Json, packed.rows[:STATIC_ROWS]),
        "rows_note": _rows_note(len(packed.rows)),
        "published": baselines.published_table(shown),
        "published_note": baselines.note(shown),
        "manifests": cast(Json, provenance.manifests(shown)),
        "missing": _missing_note(album),
    }


def _trainings_alone(trainings: Sequence[curves.Training]) -> Table:
    names = ", ".join(visible(training.folder.name, 60) for training in trainings)
    return {
        "title": f"{names} \u00b7 prh report",
        "heading": names,
        "against": "",
        "lead": f"{len(trainings)} training log{'s' if len(trainings) > 1 else ''}",
        "verdict": {
            "state": "alone",
            "word": "Training",
            "sentence": "Curves of a training; a verdict compares the evaluations of two checkpoints.",
            "note": "`prh report BASELINE CANDIDATE TRAINING` shows both on one page.",
            "rows": [],
        },
    }


def _pictures_note(packed: Packed, album: Album, images: Images) -> str:
    pictured, whole = packed.pictured
    if images == "none":
        return f"{whole:,} samples, without pictures; `--images thumb` embeds them."
    if pictured < whole:
        most = f"{whole:,} samples. The pictures of the {pictured:,} most instructive ones are in this file"
        return f"{most}; of the others it names the files. `--images full` embeds all."
    kind = "as they are" if images == "full" else f"about {album.side} pixels wide or high"
    return f"{whole:,} samples with their pictures, {kind}. Boxes are drawn in the source image's own pixels."


def _rows_note(count: int) -> str:
    return f"The first {STATIC_ROWS:,} of {count:,} samples." if count > STATIC_ROWS else f"{count:,} samples."


def _missing_note(album: Album) -> str:
    if not album.missing:
        return ""
    first = visible(min(album.missing), 300)
    return f"{len(album.missing)} pictures could not be embedded, such as: {first}"


def _sections(page: Table) -> list[tuple[str, str]]:
    names = {
        "verdict": "Verdict",
        "comparability": "Comparability",
        "forest": "Differences",
        "tasks": "Metrics",
        "curves": "Training",
        "samples": "Samples",
        "published": "Published figures",
        "manifests": "Provenance",
    }
    places = {"forest": "differences", "tasks": "metrics", "curves": "training", "manifests": "provenance"}
    return [(places.get(key, key), name) for key, name in names.items() if page.get(key)]


def _rendered(page: Table, data: Table) -> str:
    """The page as HTML. Raises Prerequisite where Jinja2 is missing."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise Prerequisite('a report needs Jinja2: install it with `pip install "prh[report]"`') from None
    css, js = _asset("report.css"), _script()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("report.html.j2"))
    text = template.render(
        page=_marked({**_EMPTY, **page}, Markup),
        data=data,
        css=Markup(css),  # noqa: S704 - our own file
        js=Markup(js),  # noqa: S704 - our own file
        policy=_policy(css, js),
        shapes=SHAPES,
        glyphs=GLYPHS,
        version=version("prh"),
    )
    return text.lstrip()


_EMPTY: Table = dict.fromkeys(
    ("comparability", "forest", "tasks", "entrants", "samples", "published", "published_note", "rows", "rows_note"),
    None,
)


def _marked(value: object, markup: type[Markup]) -> object:
    """The page with its charts, which are markup of our own making, marked as such; all else stays text."""
    if isinstance(value, dict):
        return {name: markup(own) if name in ("svg", "chart") else _marked(own, markup) for name, own in value.items()}
    return [_marked(own, markup) for own in value] if isinstance(value, list) else value


def _script() -> str:
    body = "\n".join(_asset(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}}})();\n'


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _policy(css: str, js: str) -> str:
    """A content security policy under which nothing runs but our script, and nothing is fetched."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; script-src {digest(js)}; style-src {digest(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
