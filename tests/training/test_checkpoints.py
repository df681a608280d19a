"""What a training leaves: folders that others load, that are evaluated as they are, and a log that says how it went."""

import json
import stat
import tomllib
import warnings

import pytest
import torch
from accelerate.tracking import GeneralTracker
from prh.harness.evaluate import plan, run
from prh.harness.request import Request
from prh.harness.store import read_records
from prh.harness.task import Selection
from prh.models.processor import quiet
from prh.tests.training.lessons import config, examples
from prh.training import checkpoints, sft
from prh.training.batches import collate
from prh.training.config import SftConfig, build, override
from prh.training.trainable import open_trainable
from prh.training.weights import load_weights

LORA = ("lora.rank=4", "lora.dropout=0.05", "model.freeze=['model.visual.*']")


class Values(GeneralTracker):
    name, requires_logging_directory = "values", False

    def __init__(self):
        super().__init__()
        self.rows, self.config = [], {}

    @property
    def tracker(self):
        return self.rows

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step, **_):
        self.rows.append((step, values))


def trained(folder, school, *sets, trackers=()):
    values = override(tomllib.loads(config(folder, school).read_text()), sets)
    return sft.train(build(SftConfig, values), folder / "out", folder, trackers=trackers)


@pytest.fixture(scope="module")
def full(school, tmp_path_factory):
    """A training that was evaluated every step on two samples, its folder and what a tracker was told."""
    told = Values()
    sets = ("eval.tasks=['vstar-mini']", "eval.every=3", "eval.limit=2", "train.keep=1")
    return trained(tmp_path_factory.mktemp("full"), school, *sets, trackers=[told]), told


@pytest.fixture(scope="module")
def adapter(school, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lora"), school, *LORA)


@pytest.fixture(scope="module")
def halved(school, tmp_path_factory):
    """Updated in float32, computed and saved in bfloat16, activations computed twice."""
    sets = ("model.saved=bfloat16", "model.precision=bf16", "model.checkpointing=true", "train.packed=true")
    return trained(tmp_path_factory.mktemp("halved"), school, *sets)


def opened(folder):
    return open_trainable(str(folder), "float32", "eager", "cpu")[0]


def test_a_folder_holds_what_is_said_of_it(full, adapter):
    for folder in (full[0], adapter):
        names = {path.name for path in folder.iterdir()}
        assert {"prh.json", "training.json", "README.md", "tokenizer.json", "preprocessor_config.json"} <= names
        assert "state" not in names
        made = json.loads((folder / "training.json").read_text())
        assert made["step"] == made["steps"] == 4
        assert made["identity"]["trajectories"] == sft.digest(sft.gather(build_config(made, folder), folder))
        assert json.loads((folder / "prh.json").read_text())["protocol"] == "pixel-reasoner"
        assert "| noise | test | 8 |" in (folder / "README.md").read_text()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert len(modes) == 1


def build_config(made, folder):
    return build(SftConfig, tomllib.loads((folder.parent.parent / "sft.toml").read_text()))


def logits(module, batch):
    with torch.no_grad():
        return module(**batch.inputs, use_cache=False).logits


def test_plain_transformers_load_it(full):
    from transformers import AutoModelForImageTextToText

    engine = opened(full[0])
    batch = collate(examples(engine, [0, 1]), engine.processor, engine.pad)
    with quiet():
        plain = AutoModelForImageTextToText.from_pretrained(full[0], attn_implementation="eager")
    assert plain.dtype == torch.float32
    assert torch.equal(logits(plain, batch), logits(engine.module, batch))


def test_plain_peft_loads_an_adapter(adapter):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    named = json.loads((adapter / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "tiny"
    base, engine = opened("tiny"), None
    batch = collate(examples(base, [0, 1]), base.processor, base.pad)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = AutoModelForImageTextToText.from_pretrained(
            base.module.name_or_path, attn_implementation="eager", dtype=base.module.dtype
        )
        plain = PeftModel.from_pretrained(plain, str(adapter))
    assert not any("visual" in name for name, _ in plain.named_parameters() if "lora_" in name)
    assert (logits(plain, batch) - logits(base.module, batch)).abs().max() > 1e-4
    engine = opened_adapter(adapter)
    assert torch.equal(logits(plain, batch), logits(engine.module, batch))


def opened_adapter(folder):
    from prh.harness.engine import EngineOptions
    from prh.models.transformers_engine import TransformersFactory

    return TransformersFactory().open(str(folder), EngineOptions(attention="eager", device="cpu"))


def test_saved_in_fewer_bits_and_gone_on_with_in_all(halved):
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    with quiet():
        plain = AutoModelForImageTextToText.from_pretrained(halved)
    assert {weight.dtype for weight in plain.parameters()} == {torch.bfloat16}
    masters = load_file(halved.parent / "step-000004/state/model.safetensors")
    assert {weight.dtype for weight in masters.values()} == {torch.float32}
    engine = opened("tiny")
    load_weights(engine.module, halved.parent / "step-000004", "float32")
    own = engine.module.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in masters.items())
    assert all(torch.equal(weight, own[name].bfloat16()) for name, weight in plain.state_dict().items())


def test_the_evaluator_speaks_in_the_log_and_to_trackers(full):
    folder, told = full
    rows = checkpoints.read_log(folder.parent)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    curve = [row for row in rows if "loss" not in row]
    assert [row["step"] for row in curve] == [3, 4]
    assert all({"vstar-mini.accuracy", "vstar-mini.rapr", "vstar-mini.op_error_rate"} <= set(row) for row in curve)
    assert [(step, sorted(row)) for step, row in told.rows if "loss" not in row] == [
        (row["step"], sorted(set(row) - {"step"})) for row in curve
    ]
    assert [step for step, row in told.rows if "loss" in row] == [1, 2, 3, 4]
    assert told.config["optim.lr"] == 1e-3
    assert len(read_records(folder.parent / "evals/step-000003/vstar-mini")) == 2
    assert [step for step, _ in checkpoints.checkpoints(folder.parent)] == [2, 4]
    assert not list(folder.parent.glob(".evaluated*"))


def ids(folder):
    return {
        record["id"]: [segment["ids"] for segment in record["segments"] if segment["role"] == "assistant"]
        for record in read_records(folder)
    }


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_the_trainers_greedy_episodes_are_those_of_prh_eval(request, kind, prh, tmp_path):
    """Those that this process plays on the saved folder, and those of a command of its own."""
    made = request.getfixturevalue(kind)
    folder = made[0] if kind == "full" else made
    run(plan(Request(str(folder), "vstar-mini", tmp_path / "own", selection=Selection(4))))
    words = ("--model", folder, "--task", "vstar-mini", "--limit", "4", "--out", tmp_path / "command")
    assert prh("eval", *words) == 0
    own = ids(tmp_path / "own")
    assert own == ids(tmp_path / "command")
    assert len(own) == 4
    assert all(turn for turns in own.values() for turn in turns)


def test_a_loss_falls_alike_in_half_precision_packed_and_checkpointed(full, halved):
    """The same data in the same order, so that only rounding lies between the two."""
    one, two = (
        [row["loss"] for row in checkpoints.read_log(folder.parent) if "loss" in row] for folder in (full[0], halved)
    )
    assert one[-1] < one[0] - 1
    assert two == pytest.approx(one, rel=0.04)
