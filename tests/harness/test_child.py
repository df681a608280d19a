"""A program in a process of its own: what it answers, and every way in which it may not."""

import sys

import pytest
from prh.harness.child import Child, ChildError, python_with
from prh.harness.errors import Prerequisite

PROGRAM = """
import json, os, sys
out = os.fdopen(int(sys.argv[-1]), "w")
print("noise on the way")
for line in sys.stdin:
    request = json.loads(line)
    print("more noise", request)
    if request["do"] == "die":
        sys.stderr.write("a reason\\nout of memory\\n")
        os._exit(3)
    reply = {"error": "it does not work"} if request["do"] == "fail" else {"ok": [request["do"], sys.path[:1]]}
    out.write("" if request["do"] == "garble" else json.dumps(reply))
    out.write("{}\\n" if request["do"] == "garble" else "\\n")
    out.flush()
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
        said, path = child.ask(do=f"\u00e9{number}")
        assert said == f"\u00e9{number}"
        assert path != [str(tmp_path)], "what stands beside it shadows no package"
    assert capfd.readouterr() == ("", "")


def test_an_error_is_one_and_the_next_question_is_answered(child):
    with pytest.raises(ChildError, match="the program: it does not work"):
        child.ask(do="fail")
    with pytest.raises(ChildError, match="nothing that can be read"):
        child.ask(do="garble")
    assert child.ask(do="go on")


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
