"""A verdict as JUnit XML: a suite a task, a case a check; identical verdicts give identical bytes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from ..harness.terminal import safe
from .gate import TaskVerdict, Verdict


def junit(verdict: Verdict) -> bytes:
    """The document.

    A regression is a failure; what is incomparable and too many errors are errors; what is inconclusive is skipped,
    or a failure where the gate is strict.
    """
    root = ET.Element("testsuites", name="prh gate")
    for task in verdict.tasks:
        root.append(_suite(task, verdict.strict))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(task: TaskVerdict, strict: bool) -> ET.Element:
    suite = ET.Element("testsuite", name=_text(task.task))
    kinds = {"regression": "failure", "errors": "error", "incomparable": "error"}
    kinds["inconclusive"] = "failure" if strict else "skipped"
    counts = dict.fromkeys(("failure", "error", "skipped"), 0)
    for check in task.checks:
        case = ET.SubElement(suite, "testcase", classname=_text(f"prh.{task.task}"), name=_text(check.name))
        if kind := kinds.get(check.state):
            counts[kind] += 1
            found = ET.SubElement(case, kind, message=_text(check.text))
            if kind != "skipped":
                found.set("type", check.state)
        else:
            ET.SubElement(case, "system-out").text = _text(check.text)
    suite.set("tests", str(len(task.checks)))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(counts[kind]))
    return suite


def _text(text: str) -> str:
    """Text without what XML cannot hold."""
    return safe(text).replace("\n", " ")
