"""What a process says and how it ends when it is told to stop."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys
from prh.harness.signals import stoppable

with stoppable("goes on later"):
    try:
        signal.raise_signal(int(sys.argv[1]))
    finally:
        print("cleaned up")
"""
AFTER = """
import signal, sys
from prh.harness.signals import stoppable

with stoppable("goes on later"):
    pass
signal.raise_signal(int(sys.argv[1]))
"""


def ended(program, number):
    words = [sys.executable, "-c", program, str(int(number))]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_either_signal_is_answered_and_cleans_up(number, code):
    done = ended(PROGRAM, number)
    assert done.returncode == code
    assert done.stdout == "cleaned up\n"
    assert "goes on later" in done.stderr


def test_it_is_as_before_afterwards():
    done = ended(AFTER, signal.SIGTERM)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""


@pytest.mark.parametrize("code", ["0", "3", "'a reason'"])
def test_another_end_is_not_mistaken_for_one(code):
    program = (
        f"from prh.harness.signals import stoppable\nwith stoppable('goes on later'):\n    raise SystemExit({code})"
    )
    assert "goes on later" not in ended(program, 0).stderr
