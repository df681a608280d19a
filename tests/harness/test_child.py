"""A program in a process of its own: what it answers, and every way in which it may not."""

import sys

import pytest
from prh.harness.child import Child, ChildError, python_with
from prh.harness.errors import Prerequisite

PROGRAM = """
import os, sys
print("noise on the way")

class Served:
    def say(self, text):
        print("more noise", text)
        return [text, sys.path[:1]]

    def fail(self):
        raise ValueError("it does\\n work")

    def garble(self):
        os.write(int(sys.argv[-1]), b"\\xff{}")

    def die(self):
        sys.stderr.write("a reason\\nout of memory\\n")
        os._exit(3)

    def _own(self):
        pass
"""


@pytest.fixture
def child(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    made = Child("the program", "json", program)
    yield made
    made.close()


def test_it_answers_whatever_it_prints(child, tmp_path, capfd):
    for number in range(3):
        said, path = child.ask(do="say", text=f"\u00e9{number}")
        assert said == f"\u00e9{number}"
        assert path != [str(tmp_path)], "what stands beside it shadows no package"
    assert capfd.readouterr() == ("", "")


def test_an_error_is_one_and_the_next_question_is_answered(child):
    with pytest.raises(ChildError, match="the program: ValueError: it does work"):
        child.ask(do="fail")
    for name in ("nothing", "_own"):
        with pytest.raises(ChildError, match=name):
            child.ask(do=name)
    with pytest.raises(ChildError, match="nothing that can be read"):
        child.ask(do="garble")
    assert child.ask(do="say", text="go on")


def test_one_that_dies_says_its_last_line(child):
    for _ in range(2):
        with pytest.raises(ChildError, match="the program ended unexpectedly: out of memory"):
            child.ask(do="die")


def test_closing_twice_and_asking_after(child):
    child.close()
    child.close()


def test_an_interpreter_is_named_by_a_variable(monkeypatch, tmp_path):
    assert python_with("json") == sys.executable
    with pytest.raises(Prerequisite, match="set PRH_NO_SUCH_THING_PYTHON"):
        python_with("no_such_thing")
    monkeypatch.setenv("PRH_NO_SUCH_THING_PYTHON", "/nowhere/python")
    assert python_with("no_such_thing") == "/nowhere/python"
    with pytest.raises(ChildError, match="cannot be started"):
        Child("it", "no_such_thing", tmp_path / "x.py")
