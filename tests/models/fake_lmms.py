"""As much of lmms-eval as is used of it, for an environment without it: a package with one chat model, ``prh_echo``."""

import sys

from prh.tests.harness.test_plugins import install

INSTANCE = """from dataclasses import dataclass


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


class Instance:
    def __init__(self, request_type, arguments, idx, metadata):
        self.args = arguments


def unwrap_generation_output(output):
    return output.text, output.token_counts
"""
# Arguments are parted at commas outside of brackets, and numbers and truths are read, as its own parser does.
MODEL = r"""import re


def value(text):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if text.isnumeric() else float(text)
    except ValueError:
        return text


class lmms:
    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @classmethod
    def create_from_arg_string(cls, text, more=None):
        parts = [part.split("=", 1) for part in re.split(r",(?![^\[{]*[\]}])", text) if part]
        given = {name: value(text) for name, text in parts}
        return cls(**given, **{name: text for name, text in (more or {}).items() if text is not None})
"""
MODELS = '''import os

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms


class Echo(lmms):
    """Answers A, or tells the key that it has."""

    is_simple = False

    def __init__(self, pretrained="", say="A", batch_size=1, **kwargs):
        super().__init__()
        self.say, self.asked = say, 0

    def generate_until(self, requests):
        self.asked += 1
        key = os.environ.get("OPENAI_API_KEY", "")
        if self.say == "key" and self.asked % 3 == 1:
            raise RuntimeError(f"the headers were Bearer {key}")
        said = {"A": "\\\\boxed{A}", "key": f"\\\\boxed{{{key}}}"}[self.say]
        if self.say == "key" and self.asked % 3 == 2:
            said = f"[LMMS_EVAL_REQUEST_FAILED after 5 retries] {key}"
        return [GenerationResult(said, TokenCounts(120, 7)) for _ in requests]


def get_model(name):
    if name != "prh_echo":
        raise ValueError(f"there is no model {name!r}")
    return Echo
'''


def write_package(site):
    """The package below a folder of ``PYTHONPATH``; returns the environment that finds it."""
    files = {"__init__.py": "", "api/__init__.py": "", "api/instance.py": INSTANCE, "api/model.py": MODEL}
    for name, text in {**files, "models/__init__.py": MODELS}.items():
        path = site / "lmms_eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    install(site, "lmms-eval", {})
    return {"PYTHONPATH": str(site), "PRH_LMMS_EVAL_PYTHON": sys.executable}
