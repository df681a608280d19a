"""The model ``prh`` of lmms-eval over a stand-in for lmms-eval: its settings are used or refused."""

import importlib
import sys

import pytest
from PIL import Image
from prh.harness.errors import ModelError, UsageError
from prh.harness.scripted import ScriptedEngine
from prh.harness.store import read_json
from prh.harness.types import Span
from prh.tests.models.fake_lmms import write_package

MODULE = "prh.models.lmms_model"


@pytest.fixture
def model(cache, tmp_path, monkeypatch):
    """What ``--model prh --model_args ARGS`` makes, over an engine that says a text, and the engine's options."""
    write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lmms_eval" or name == MODULE]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module(MODULE)
    opened = []

    class Factory:
        said = "It is \\boxed{C}"

        def defaults(self, name):
            return {}

        def open(self, name, options):
            opened.append(options)
            return ScriptedEngine(self.say)

        def say(self, talk):
            if not self.said:
                raise ModelError("nothing to say")
            return self.said

    factory = Factory()
    monkeypatch.setattr(module, "find_engine", lambda name, engine: factory)

    def make(args, **more):
        text = f"model=some-model,out=traces,{args}"
        return module.PrhModel.create_from_arg_string(text, {"batch_size": 1, "device": None, **more})

    yield make, opened, factory
    for name in [name for name in sys.modules if name.partition(".")[0] == "lmms_eval" or name == MODULE]:
        del sys.modules[name]


def ask(made, count=2):
    from lmms_eval.api.instance import Instance

    docs = [[{"role": "user", "content": [{"type": "image", "url": Image.new("RGB", (56, 56))},
                                          {"type": "text", "text": f"Which, {number}?"}]}]
            for number in range(count)]  # fmt: skip
    made.task_dict = {"local": {"test": docs}}
    tasks = [("", lambda doc: doc, {}, number, "local", "test") for number in range(count)]
    return [one.text for one in made.generate_until([Instance("generate_until", args, 0, {}) for args in tasks])]


def test_settings_are_used(model, tmp_path):
    make, opened, _ = model
    made = make(
        "budget.input=[784,7840],limits.turns=3,sampling.temperature=0.5,operations=[],attention=sdpa,batch=4,"
        "offline=true,model_revision=v1,engine.factor=32,dtype=bfloat16,max_error_share=0.5"
    )
    assert made.setting.budget.input == Span(784, 7840)
    assert (made.setting.limits.turns, made.setting.sampling.temperature) == (3, 0.5)
    assert made.setting.protocol.operations == ()
    (options,) = opened
    assert (options.attention, options.batch, options.offline, options.revision) == ("sdpa", 4, True, "v1")
    assert (options.extra, options.dtype, list(options.train())) == ({"factor": "32"}, "bfloat16", [])
    assert made.error_share == 0.5
    assert ask(made) == ["C", "C"]
    manifest = read_json(tmp_path / "traces" / "local" / "run.json")
    assert manifest["identity"]["budget"]["input"] == [784, 7840]
    make("", batch_size="8")
    make("", batch_size="auto")
    assert [chosen.batch for chosen in opened[1:]] == [8, 16]


def test_a_profile_and_a_share_of_errors_are_used(model):
    make, _, factory = model
    assert ask(make("profile=strict")) == ["C", "C"]
    assert ask(make("reply=whole")) == ["It is \\boxed{C}"] * 2
    factory.said = ""
    assert ask(make("out=calm,max_error_share=1"), 1) == [""]
    with pytest.raises(ModelError, match="ended in an error, which is no answer"):
        ask(make("out=strict"), 1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("limit.turns=3", "--model_args: `limit` is not a setting"),
        ("limits.turn=3", "`limits.turn` is not known"),
        ("trust=true", "`trust` is not a setting"),
        ("budget.input=[784,]x]", "budget.input=[784,]x] is neither a list nor a table"),
        ("budget.input=784", "`budget.input` must be [fewest, most] pixels"),
        ("split=train", "`split` is decided by lmms-eval"),
        ("executor=ray", "`executor` is decided by lmms-eval"),
        ("options_seed=1", "`options_seed` is decided by lmms-eval"),
        ("batch=0", "`batch` must be a whole number from 1"),
        ("offline=maybe", "`offline` must be true or false"),
        ("max_error_share=2", "`max_error_share` must be a share"),
        ("engine.api_key=sk-1234567890", "`engine.api_key` looks like a secret"),
        ("profile=paper", "profile paper has no rules for"),
        ("profile=strct", "did you mean strict?"),
        ("reply=some", "reply=some must be one of"),
    ],
)
def test_what_is_no_setting_is_refused(model, args, said):
    make, opened, _ = model
    with pytest.raises(UsageError) as caught:
        make(args)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert opened == []
