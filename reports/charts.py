"""Static charts as inline SVG: drawn by matplotlib, the same bytes for the same figures, coloured by the page.

A page's strict policy forbids style attributes and a dark page needs other colours, so that every style becomes a
presentation attribute and every colour a variable of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree as ET

from ..harness.errors import Prerequisite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
# Colours that stand for variables of the page; matplotlib writes them as they are, in lower case.
INK, SOFT, LINE, WASH, BAND = "#000001", "#000002", "#000003", "#000004", "#000005"
RUNS = ("#000010", "#000011", "#000012", "#000013", "#000014")
VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    WASH: "--wash",
    BAND: "--faint",
    **{colour: f"--run-{number}" for number, colour in enumerate(RUNS)},
}
MARKERS = ("s", "o", "D", "^", "v")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_SETTINGS = {
    "svg.hashsalt": "prh",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": SOFT,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval, drawn in the colour and with the marker of a run."""

    run: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a chart.

    Attributes:
        band: half of the width that is shaded around 0: the smallest difference that would be found.
        strong: whether it stands for a whole task rather than for a part of one.
        link: where a click on its label leads.
    """

    label: str
    points: tuple[Point, ...]
    band: float | None = None
    strong: bool = False
    link: str = ""


def forest(lines: Sequence[Line], margins: Sequence[float], label: str) -> str:
    """Differences in points, a row each, with its margin and the band of what could not have been found."""
    with _figure(9.4, 0.62 + 0.245 * len(lines)) as figure:
        axes = figure.subplots()
        _rows(axes, lines)
        for place, line in enumerate(lines):
            if line.band is not None:
                axes.barh(
                    place, 200 * line.band, left=-100 * line.band, height=0.86, color=BAND, alpha=0.17, linewidth=0
                )
        axes.axvline(0, color=SOFT, linewidth=0.9, zorder=1)
        _margins(axes, margins)
        _intervals(axes, lines)
        edges = [
            100 * edge
            for line in lines
            for point in line.points
            for edge in (point.low, point.high, point.value)
            if edge is not None
        ]
        reach = max([abs(edge) for edge in edges], default=5.0) * 1.12 + 1
        axes.set_xlim(-min(reach, 102), min(reach, 102))
        axes.set_xlabel("difference in percentage points; right is better than the baseline")
        return _svg(figure, "forest", label)


def _margins(axes: Axes, margins: Sequence[float]) -> None:
    """One dotted line where all rows have the same margin, else each row's own."""
    dotted: dict[str, Any] = {"color": SOFT, "linewidth": 0.9, "linestyle": (0, (2, 3)), "zorder": 1}
    if len(set(margins)) == 1:
        axes.axvline(-100 * margins[0], **dotted)
        return
    for place, margin in enumerate(margins):
        axes.plot([-100 * margin] * 2, [place - 0.5, place + 0.5], **dotted)


def parts(groups: Sequence[tuple[str, Sequence[Line]]], label: str, name: str, width: float = 9.4) -> str:
    """Rates by category, a panel for each metric, a row for each category."""
    count = max((len(lines) for _, lines in groups), default=0)
    with _figure(width, 0.72 + (0.235 + 0.075 * _most(groups)) * count) as figure:
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for place, (axes, (title, lines)) in enumerate(zip(panels, groups, strict=True)):
            if place:
                axes.grid(axis="x", color=LINE, linewidth=0.7)
                axes.set_axisbelow(True)
            else:
                _rows(axes, lines)
            _intervals(axes, lines)
            axes.set_xlim(-2, 102)
            axes.set_title(title)
            axes.set_xlabel("%")
        return _svg(figure, name, label)


def curves(
    series: Sequence[tuple[str, Sequence[tuple[float, float, float, float]]]], title: str, label: str, name: str
) -> str:
    """Lines over steps with their bands: points of (step, value, low, high)."""
    with _figure(4.6, 2.7) as figure:
        axes = figure.subplots()
        for number, (words, points) in enumerate(series):
            steps, values, lows, highs = (list(column) for column in zip(*points, strict=True))
            colour = RUNS[number % len(RUNS)]
            marker = MARKERS[number % len(MARKERS)] if len(points) <= 12 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=words)
            if any(low < high for low, high in zip(lows, highs, strict=True)):
                axes.fill_between(steps, lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.tick_params(axis="y", labelcolor=SOFT)
        axes.set_title(title)
        axes.set_xlabel("step")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
        return _svg(figure, name, label)


def _most(groups: Sequence[tuple[str, Sequence[Line]]]) -> int:
    return max((len(line.points) for _, lines in groups for line in lines), default=1)


def _rows(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_yticks(range(len(lines)), [_short(line.label) for line in lines])
    for line, text in zip(lines, axes.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if line.strong else "normal")
        text.set_parse_math(False)
        if line.link:
            text.set_url(line.link)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)


def _short(text: str) -> str:
    return text if len(text) <= 44 else f"{text[:43]}\u2026"


def _intervals(axes: Axes, lines: Sequence[Line]) -> None:
    for place, line in enumerate(lines):
        for rank, point in enumerate(line.points):
            height = place + (rank - (len(line.points) - 1) / 2) * 0.24
            colour = RUNS[point.run % len(RUNS)]
            if point.low is not None and point.high is not None:
                axes.plot(
                    [100 * point.low, 100 * point.high],
                    [height] * 2,
                    color=colour,
                    linewidth=1.5,
                    solid_capstyle="butt",
                )
            size = 5.4 if line.strong else 4.4
            axes.plot(
                [100 * point.value], [height], marker=MARKERS[point.run % len(MARKERS)], color=colour, markersize=size
            )


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure without a window, closed by nobody because nobody keeps it. Raises Prerequisite."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Made
    except ImportError:
        raise Prerequisite('a report needs matplotlib: install it with `pip install "prh[report]"`') from None
    with mpl.rc_context(cast("dict[Any, Any]", _SETTINGS)):
        yield Made(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, name: str, label: str) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its font lacks: the page's fonts have them
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _quiet(buffer.getvalue(), name, label)


def _quiet(text: str, name: str, label: str) -> str:
    """An SVG without styles, scripts, metadata or identifiers that another chart of the page may have."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK[1:].partition("}")[0])
    root = ET.fromstring(text)  # noqa: S314 - written by matplotlib just above
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("style", "metadata"):
                parent.remove(child)
    for node in root.iter():
        _plain(node, name)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("stroke-linejoin", "round")
    return ET.tostring(root, encoding="unicode")


def _plain(node: ET.Element, name: str) -> None:
    """Turn a node's style into attributes, its colours into variables, and make its references its own."""
    for part in node.attrib.pop("style", "").split(";"):
        key, _, value = part.partition(":")
        if value:
            node.set(key.strip(), value.strip())
    font = node.attrib.pop("font", None)
    if font:
        weight, size = ("600" if "bold" in font else "400"), re.search(r"([\d.]+)px", font)
        node.set("font-weight", weight)
        node.set("font-size", size.group(1) if size else "10")
    for key in ("fill", "stroke"):
        if node.get(key) in VARIABLES:
            node.set(key, f"var({VARIABLES[str(node.get(key))]})")
    if "id" in node.attrib:
        node.set("id", f"{name}-{node.attrib['id']}")
    target = node.get(XLINK)
    if target and node.tag == f"{{{SVG}}}use":
        node.set(XLINK, f"#{name}-{target[1:]}")
    for key, value in list(node.attrib.items()):
        if "url(#" in value:
            node.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
