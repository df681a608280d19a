"""What a careless or hostile user hands over: one line each, nothing lost, nothing learnt that was not kept."""

import asyncio
import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from prh.harness.engine import smart_resize
from prh.harness.errors import DataError, PrhError, StoreError, UsageError
from prh.harness.store import encode_line
from prh.tests.training import lessons
from prh.training import checkpoints
from prh.training.card import plain
from prh.training.config import ModelPart, SftConfig, build, override
from prh.training.export import export
from prh.training.geometry import Grid
from prh.training.notices import Notice, notices
from prh.training.publish import card
from prh.training.seeds import SourceOptions
from prh.training.sft import _check_same, gather
from prh.training.sources.jsonl import JSONL
from prh.training.sources.miniature import Miniature
from prh.training.sources.sa1b import SA1B
from prh.training.synth import _check_kept
from prh.training.trajectories import perform, read_lessons


@pytest.fixture
def copy(school, tmp_path):
    """A folder of lessons that may be damaged."""
    return shutil.copytree(school, tmp_path / "copy")


def rewritten(folder, **values):
    """The journal with some values of every record replaced, its checksums right."""
    path = folder / "records.jsonl"
    records = [{**json.loads(line), **values} for line in path.read_text().splitlines()]
    path.write_bytes(b"".join(encode_line({k: v for k, v in one.items() if k != "crc"}) for one in records))


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 3000])
def test_a_value_that_python_does_not_take(text):
    with pytest.raises(UsageError, match=r"--set train.seed: its value is too long a number, or nested too deep"):
        override({}, [f"train.seed={text}"])


def test_a_number_that_no_float_holds():
    from prh.training.schedule import Optimisation

    with pytest.raises(UsageError, match="`lr` must be a number that can be computed with"):
        build(Optimisation, {"lr": 10**400})
    assert build(Optimisation, {"lr": 1}).lr == 1.0
    assert build(ModelPart, {"base": "tiny"}).base == "tiny"


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 0.0])
def test_a_grid_that_is_none(share):
    with pytest.raises(UsageError, match="`grid` must be a share"):
        Grid.of(share)


def test_what_is_named_in_a_card_is_shown_as_it_stands():
    shown = plain("a\n# b | <script>x</script> [c](d) \x1b[31m `e`")
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert r"\| \<script\>x\</script\> \[c\](d)" in shown
    assert plain("vstar-mini direct_attributes") == "vstar-mini direct_attributes"


def test_a_model_card_names_teachers_and_quotes_what_it_is_given(tmp_path):
    teachers = [{"name": "annotation", "model": None}, {"name": "endpoint", "model": "<b>|x"}, None]
    told = [SimpleNamespace(provenance={"source": "s", "teacher": one}) for one in teachers]
    config = SimpleNamespace(train=SimpleNamespace(batch=1))
    setting = SimpleNamespace(protocol=SimpleNamespace(name="pixel-reasoner"))
    training = SimpleNamespace(
        base="a: [b]\nlicense: x", out=tmp_path, lessons=told, steps=1, config=config, setting=setting
    )
    text = card(training, 1)
    assert r'base_model: "a: [b]\nlicense: x"' in text.splitlines()
    assert "| s | annotation | 1 |" in text
    assert r"| s | endpoint (\<b\>\|x) | 1 |" in text
    assert "| s | unknown | 1 |" in text


def test_an_image_that_was_swapped_is_noticed(copy, tmp_path):
    assert len(read_lessons(copy)) == export(copy, tmp_path / "before") == 8
    victim = sorted(copy.glob("media/*/*.png"))[0]
    other = sorted(copy.glob("media/*/*.png"))[1]
    victim.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="is not the file that was kept"):
        read_lessons(copy)
    with pytest.raises(DataError, match="is not the file that was kept"):
        export(copy, tmp_path / "swapped")
    victim.unlink()
    with pytest.raises(DataError, match="No such file"):
        read_lessons(copy)
    with pytest.raises(DataError, match="is missing"):
        export(copy, tmp_path / "missing")


def test_a_damaged_line_is_said_in_one(copy, capsys):
    path = copy / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:-20] + b"\n" + b"".join(lines[1:]))
    with notices():
        assert len(read_lessons(copy)) == 7
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning   ")
    assert "line 1" in said[0]
    with pytest.warns(Notice, match="line 1"):
        read_lessons(copy)


@pytest.mark.parametrize(
    "values",
    [
        {"inputs": [5]},
        {"inputs": "x"},
        {"provenance": "x"},
        {"gold": 5, "choices": "x"},
        {"segments": [{"role": 3}]},
        {"segments": [{"role": "assistant", "parts": 5}]},
        {"media": None, "inputs": None},
    ],
)
def test_a_record_of_another_shape_is_no_lesson(copy, values):
    rewritten(copy, **values)
    with pytest.raises(PrhError) as caught:
        read_lessons(copy)
    assert "\n" not in str(caught.value)


def test_a_script_that_ends_in_a_call(tmp_path):
    made = lessons.lesson(0)
    fit = lambda size, budget: smart_resize(size, budget, 28)  # noqa: E731
    with pytest.raises(DataError, match="its last turn makes a call and gives no answer"):
        asyncio.run(perform(made.sample, made.script[:1], lessons.setting(), fit))


@pytest.mark.parametrize("values", [{"media": [{"index": "x", "files": []}]}, {"media": 3}, {"segments": [4]}])
def test_a_record_of_another_shape_is_not_exported(copy, tmp_path, values):
    rewritten(copy, **values)
    with pytest.raises(DataError, match="cannot be exported"):
        export(copy, tmp_path / "out")


def test_a_synthesis_does_not_go_on_in_records_of_others(tmp_path):
    whole = {"id": "a", **{key: [] for key in ("gold", "slices", "media", "segments", "inputs")}}
    _check_kept(tmp_path, [{**whole, "provenance": {"template": "single-pass"}}])
    for wrong in ({**whole, "provenance": {}}, {**whole, "provenance": {"template": "single-pass"}, "gold": 5}, whole):
        with pytest.raises(StoreError, match="was not written by `prh synth`"):
            _check_kept(tmp_path, [wrong])


def changed(path, change):
    """A file of records with each of them changed, its checksum too."""
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    made = [change({key: value for key, value in record.items() if key != "crc"}) for record in kept]
    path.write_bytes(b"".join(map(encode_line, made)))


def test_lessons_without_a_trained_turn_are_met_before_the_first_step(copy, tmp_path):
    def untrained(record):
        return json.loads(json.dumps(record).replace('"trained": true', '"trained": false'))

    changed(copy / "records.jsonl", untrained)
    values = {"model": {"base": "tiny"}, "data": {"lessons": [str(copy)]}}
    with pytest.raises(DataError, match="no turn of it is marked as trained"):
        gather(build(SftConfig, values), tmp_path)
    assert len(gather(build(SftConfig, override(values, ["data.mask=last-two"])), tmp_path)) == 8


def test_kinds_of_trajectories_are_left_out_for_an_ablation(copy, tmp_path):
    kinds = iter(["single-pass", "recrop-once"] * 4)
    changed(copy / "records.jsonl", lambda record: {**record, "provenance": {"template": next(kinds)}})
    values = {"model": {"base": "tiny"}, "data": {"lessons": [str(copy)]}}
    left = override(values, ['data.without=["recrop-once"]'])
    kept = [lesson.provenance["template"] for lesson in gather(build(SftConfig, left), tmp_path)]
    assert kept == ["single-pass"] * 4
    with pytest.raises(UsageError, match="leaves no trajectory"):
        gather(build(SftConfig, override(values, ['data.without=["recrop-once", "single-pass"]'])), tmp_path)
    with pytest.raises(UsageError, match="no trajectory of kind reselect, only recrop-once, single-pass"):
        gather(build(SftConfig, override(values, ['data.without=["reselect"]'])), tmp_path)
    with pytest.raises(UsageError, match="released conversations do not say"):
        gather(build(SftConfig, override(left, ['data.released=["none.json"]'])), tmp_path)
    with pytest.raises(UsageError, match=r"data\.without must be one of"):
        build(SftConfig, override(values, ['data.without=["recrop"]']))


def test_released_data_without_a_conversation(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    values = {"model": {"base": "tiny"}, "data": {"released": ["none.json"]}}
    with pytest.raises(DataError, match="holds no conversation"):
        gather(build(SftConfig, values), tmp_path)


@pytest.mark.parametrize("identity", [None, [], "x"])
def test_a_manifest_that_says_nothing(tmp_path, identity):
    with pytest.raises(StoreError, match="does not say what was trained"):
        _check_same({"identity": identity}, SimpleNamespace(out=tmp_path, identity={}))


@pytest.mark.parametrize("case", ["step", "names", "number", "shape", "none"])
def test_a_damaged_state_is_told_with_what_to_do(tmp_path, case):
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    one = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2, 3)
    one.step()
    checkpoints.save_states(tmp_path, [one.state_dict()], 7)
    assert checkpoints.load_states(tmp_path, [one]) == 7
    bad = {"names": "x", "number": "0.99.exp_avg", "shape": "0.0.exp_avg"}
    if case == "step":
        (tmp_path / "step.json").write_text('{"step": "x"}')
    elif case == "none":
        (tmp_path / "step.json").unlink()
    else:
        checkpoints.save_tensors(tmp_path / "optimizer.safetensors", {bad[case]: torch.zeros(1)})
    with pytest.raises(StoreError, match="remove this checkpoint to begin again"):
        checkpoints.load_states(tmp_path, [one])


def test_a_log_that_is_no_file(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot read"):
        checkpoints.read_log(tmp_path)


def test_annotations_that_are_pipes_or_nowhere(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"no \.json file"):
        list(SA1B().seeds(SourceOptions(data=tmp_path)))


@pytest.mark.parametrize("settings", [{"editions": 10**20}, {"categories": ["no_such"]}])
def test_a_miniature_that_cannot_be_drawn(cache, settings):
    with pytest.raises(UsageError, match=r"`editions` must be|its categories are direct_attributes"):
        Miniature().seeds(SourceOptions(settings=settings))


@pytest.mark.parametrize("row", [{"image": "loop.png"}, {"frames": ["a.png"], "shown": 10**9}])
def test_a_row_that_leads_nowhere(tmp_path, row):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "a.png").write_bytes(b"")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": 1, "question": "q", "answer": "x", **row}))
    with pytest.raises(DataError, match=r"line 1: (`image`|loop\.png|`shown`|media path)"):
        list(JSONL().seeds(SourceOptions(data=path)))
