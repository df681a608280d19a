"""`prh train tiny` in small: every part a step or two, from random weights to what reinforcement makes of them."""

import json
from dataclasses import replace

import pytest
from prh.harness.errors import UsageError
from prh.training import tiny
from prh.training.config import build, override, read_recipe
from prh.training.learner import computed_in
from prh.training.tiny import TinyConfig

LESSONS = """
[synth]
grid = 0.1
factor = 28
overview = false

[setting]
protocol = "pixel-reasoner"
padding = 0.0

[setting.budget]
input = [784, 19600]
crop = [784, 19600]

[setting.limits]
new_tokens = 64
tokens = 2048

[[source]]
name = "miniature"
settings = { task = "vstar-mini", editions = 1, categories = ["direct_attributes"] }
count = 8
mix = { single-pass = 100 }
"""
SMALL = (
    "sight.steps=2",
    "sight.batch=4",
    "sight.editions=1",
    "sight.pictures={vstar-mini=4}",
    "warm.train.steps=2",
    "warm.train.batch=4",
    "sft.train.steps=1",
    "sft.train.batch=4",
)
STAGE = '[{steps=2, tower=0.0, mix={"vstar-mini/overview"=1}}]'
ROUND = ("train.rounds=1", "rollout.queries=2", "rollout.group=2", "train.batch=4", "data=[{task='vstar-mini'}]")


@pytest.fixture(scope="module")
def made(cache, tmp_path_factory):
    """The folder, its logs and when its weights were written, at first and after the same command once more."""
    from prh.training import probe, sight

    out, written = tmp_path_factory.mktemp("tiny"), []
    lessons = out.parent / "lessons.toml"
    lessons.write_text(LESSONS)
    values, _ = read_recipe("tiny")
    parts = [f"{part}.{key}" for part in ("practice", "further") for key in (f"stages={STAGE}", "batch=4", "pool=4")]
    config = build(TinyConfig, override(values, [*SMALL, *parts, f"lessons={lessons}"]))
    config = replace(config, arms={name: (*ROUND, *sets) for name, sets in config.arms.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "LOOKED", 2)
        patch.setattr(sight, "HELD", 8)
        patch.setattr(tiny, "write_card", lambda folder, _out, _say: (folder / "README.md").write_text(folder.name))
        for _ in range(2):
            tiny.make(config, out, "rl", lambda _: None)
            logs = {path: path.read_text() for path in out.rglob("log.jsonl")}
            written.append(logs | {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")})
    return out, *written


def test_every_part_is_a_checkpoint_that_the_next_begins_with(made):
    out, _, _ = made
    told = {name: json.loads((out / name / "training.json").read_text()) for name in names(out)}
    assert list(told) == ["tiny-base", "tiny-rl", "tiny-rl-no-curiosity", "tiny-sft", "tiny-warm"]
    assert told["tiny-rl"]["base"] == told["tiny-rl-no-curiosity"]["base"] == "tiny-warm"
    assert told["tiny-warm"]["base"] == told["tiny-sft"]["base"] == "further/step-000002"
    assert [name for name, one in told.items() if one["kind"] == "grpo"] == ["tiny-rl", "tiny-rl-no-curiosity"]
    rewards = {name: one["identity"]["reward"] for name, one in told.items() if "rl" in name}
    weights = {name: terms["curiosity-paper"].get("weight", 1) for name, terms in rewards.items()}
    assert weights == {"tiny-rl": 1, "tiny-rl-no-curiosity": 0}


def test_what_is_done_is_left_alone(made):
    _, first, again = made
    assert len(first) > 10
    assert again == first


def names(out):
    return sorted(path.name for path in out.glob("tiny-*"))


@pytest.mark.parametrize(
    ("found", "chosen"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False, "avx512_f": True}, "no")],
)
def test_the_base_computes_in_what_the_processor_has_units_for(monkeypatch, found, chosen):
    computed_in.cache_clear()
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found, raising=False)
    assert [computed_in(name) for name in ("auto", "no", "bf16")] == [chosen, "no", "bf16"]
    computed_in.cache_clear()


def test_an_unknown_precision_is_refused_before_anything_is_drawn(tmp_path):
    values, _ = read_recipe("tiny")
    config = build(TinyConfig, override(values, ["sight.precision=fp16"]))
    with pytest.raises(UsageError, match=r"sight\.precision must be one of auto, no, bf16, not 'fp16'"):
        tiny.make(config, tmp_path / "out", "base", print)
    assert not (tmp_path / "out").exists()
