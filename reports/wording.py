"""Figures as a reader meets them: rates in percent, differences in points, intervals, p values."""

from __future__ import annotations

from collections.abc import Mapping

from ..harness.types import Metric
from .statistics import Difference

MINUS, DASH = "\u2212", "\u2013"
COUNTS = ("operations", "turns", "images", "prompt_tokens", "new_tokens", "seconds", "cost")
NAMES = {
    "rapr": "RaPR",
    "rapr_successful": "RaPR, successful",
    "op_error_rate": "Op-error rate",
    "episodes_with_op_error": "Episodes with an op error",
    "crop_iou": "Crop IoU, median",
    "operations": "Operations",
    "turns": "Turns",
    "images": "Images",
    "prompt_tokens": "Prompt tokens",
    "new_tokens": "New tokens",
    "seconds": "Seconds",
    "cost": "Cost",
    "anls": "ANLS",
    "accuracy": "Accuracy",
}


def name_of(metric: str) -> str:
    """What a metric is called; of a part or a task, such as ``vstar.accuracy``, after its name."""
    head, dot, tail = metric.partition(".")
    if dot:
        return f"{name_of(head)}: {name_of(tail)}"
    return NAMES.get(metric, metric.replace("_", " "))


def is_rate(metric: str) -> bool:
    """Whether a metric is shown in percent, not as a plain number."""
    return metric not in COUNTS


def number(metric: str, value: float | None) -> str:
    """A value: rates in percent, others with as many digits as they need."""
    if value is None:
        return DASH
    if is_rate(metric):
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def signed(metric: str, value: float | None) -> str:
    """A difference with its sign, in points for rates."""
    if value is None:
        return DASH
    text = number(metric, abs(value))
    return text if float(text.replace(",", "")) == 0 else f"{'+' if value > 0 else MINUS}{text}"


def interval(metric: str, own: Metric) -> str:
    """A 95 % interval, empty where there is none."""
    if own.low is None or own.high is None:
        return ""
    return f"{number(metric, own.low)} \u2013 {number(metric, own.high)}"


def gap(metric: str, own: Difference) -> str:
    """The interval of a difference, empty where there is none."""
    if own.low is None or own.high is None:
        return ""
    return f"{signed(metric, own.low)} to {signed(metric, own.high)}"


def chance(p: float | None) -> str:
    """A p value, as ``p = 0.03``."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def valued(metric: str, own: Metric) -> str:
    """A value with its interval in brackets."""
    between = interval(metric, own)
    return number(metric, own.value) + (f" [{between}]" if between else "")


def margins(own: Mapping[str, float], sign: str = "") -> str:
    """The margins of tasks in points, once where all are the same: ``2 points``, ``2 points on a, 3 points on b``."""
    texts = {task: f"{sign}{100 * margin:g} points" for task, margin in own.items()}
    alike = len(set(texts.values())) == 1
    return ", ".join(dict.fromkeys(text if alike else f"{text} on {task}" for task, text in texts.items()))


def several(count: int, noun: str) -> str:
    """A count with its noun: ``1 sample``, ``1,204 samples``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
