import functools
import hashlib
import json
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from prh.harness.errors import DataError, StoreError, UsageError
from prh.harness.media import load_image
from prh.harness.scoring import episode_of, score_records, summarise
from prh.harness.task import DataOptions
from prh.harness.types import Box, Evidence, Metric, Sample
from prh.tasks import commands
from prh.tasks.anls import edit_distance, flat, similarity
from prh.tasks.checks import check
from prh.tasks.infographicsvqa import InfographicsVQA, export_submission
from prh.tests.tasks import fixtures_infographicsvqa as published
from pyarrow import parquet

NOTHING = Metric(None, None, None, 0)
ROW = {
    "questionId": "98313",
    "question": "Which social platform has heavy female audience?",
    "answers": ["pinterest", "Pinterest"],
    "answer_type": ["single span"],
    "image": {"bytes": b"x", "path": None},
    "image_url": "https://one.example/infographic.jpg",
    "operation/reasoning": ["counting"],
    "ocr": "[]",
    "data_split": "val",
}
NOTE = {
    "questionId": 98313,
    "question": "Which social platform has heavy female audience?",
    "image_local_name": "20471.jpeg",
    "image_url": "https://one.example/infographic.jpg",
    "ocr_output_file": "20471.json",
    "answers": ["pinterest"],
    "data_split": "val",
    "answer_type": ["single span"],
    "evidence": ["table/list"],
    "operation/reasoning": [],
}


def load(path: Path, split: str = "validation"):
    return InfographicsVQA().load(DataOptions(path, split))


def write_table(root: Path, *rows: dict[str, object], split: str = "validation") -> Path:
    (root / "InfographicVQA").mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), root / "InfographicVQA" / f"{split}-00000-of-00001.parquet")
    return root


def write_notes(root: Path, *rows: object, name: str = "infographicsVQA_val_v1.0_withQT.json") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps({"dataset_name": "infographicVQA", "data": rows}), encoding="utf-8")
    return root


def said(root: Path, split: str = "validation") -> str:
    with pytest.raises(DataError) as error:
        load(root, split)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is published ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "split"),
    [
        (published.write_validation, "validation"),
        (published.write_hub, "validation"),
        (published.write_test, "test"),
        (published.write_test_empty, "test"),
    ],
)
def test_the_splits_as_the_hub_has_them(tmp_path, write, split):
    expected = write(tmp_path).samples
    dataset = load(tmp_path, split)
    assert (dataset.source["layout"], dataset.source["split"]) == ("parquet", split)
    assert len(dataset.samples) == len(expected)
    for sample, right in zip(dataset.samples, expected, strict=True):
        assert (sample.id, sample.question, sample.gold) == (right.source, right.question, right.answers)
        assert (sample.answer_kind, sample.choices, sample.category) == ("text", (), "")
        assert sample.slices == right.tags
        (image,) = sample.media
        assert hashlib.sha256(image.encoded()).hexdigest() == right.sha256
        assert tuple(load_image(image).size) == right.size
    shown = {(sample.cluster, right.image) for sample, right in zip(dataset.samples, expected, strict=True)}
    assert len(shown) == len({cluster for cluster, _ in shown}) == len({image for _, image in shown})


def test_the_test_split_beside_the_others(tmp_path):
    published.write_hub(tmp_path)
    samples = load(tmp_path, "test").samples
    assert [sample.id for sample in samples] == ["200", "201", "0202", "203", "204"]
    assert {sample.gold for sample in samples} == {()}


def test_the_config_folder_itself_may_be_given(tmp_path):
    published.write_hub(tmp_path)
    assert len(load(tmp_path / "InfographicVQA").samples) == 12
    assert len(load(tmp_path / "InfographicVQA" / "validation-00001-of-00004.parquet").samples) == 1


@pytest.mark.parametrize("folder", ["", "infographicsvqa_qas"])
def test_the_challenges_own_files(tmp_path, png, folder):
    write_notes(tmp_path / folder, NOTE, {**NOTE, "questionId": 7, "image_local_name": "1.jpeg"})
    test = {key: NOTE[key] for key in ("question", "image_local_name")}
    write_notes(tmp_path / folder, {**test, "questionId": 9}, name="infographicsVQA_test_v1.0.json")
    (tmp_path / "infographicsvqa_images").mkdir()
    (tmp_path / "infographicsvqa_images" / "20471.jpeg").write_bytes(png(0))
    dataset = load(tmp_path)
    assert dataset.source["layout"] == "json"
    first, second = dataset.samples
    assert (first.id, first.gold, first.slices, first.evidence) == ("98313", ("pinterest",), ("single span",), ())
    assert (first.cluster, second.cluster) == ("20471.jpeg", "1.jpeg")
    assert load_image(first.media[0]).size == (16, 12)
    with pytest.raises(DataError, match=r"1\.jpeg: cannot read"):
        load_image(second.media[0])
    (unlabelled,) = load(tmp_path, "test").samples
    assert (unlabelled.id, unlabelled.gold, unlabelled.slices) == ("9", (), ())


def test_what_a_miniature_adds_to_its_rows(tmp_path):
    extra = {"slices": ["needs_operation", "counting"], "evidence": [[1.0, 2.0, 3.0, 4.0]]}
    (sample,) = load(write_table(tmp_path, {**ROW, **extra})).samples
    assert sample.slices == ("single span", "counting", "needs_operation")
    assert sample.evidence == (Evidence(box=Box(1, 2, 4, 6)),)


def test_an_empty_image_cell_is_the_fault_of_its_sample(tmp_path):
    rows = [{**ROW, "questionId": str(i), "image": {"bytes": c, "path": None}} for i, c in enumerate((None, b"", b"x"))]
    samples = load(write_table(tmp_path, *rows)).samples
    for sample in samples[:2]:
        with pytest.raises(DataError, match=r"row \d: the image is empty"):
            load_image(sample.media[0])
    assert [sample.cluster for sample in samples] == ["0", "1", hashlib.sha256(b"x").hexdigest()]


# -- counts and splits ---------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("validation", 2801), ("test", 3288)])
def test_each_split_has_its_own_count(tmp_path, split, count):
    rows = [
        {**ROW, "questionId": str(number), "answers": ["a"] if split == "validation" else []} for number in range(count)
    ]
    schema = pa.Table.from_pylist([ROW]).schema
    (tmp_path / "InfographicVQA").mkdir()
    table = pa.Table.from_pylist(rows, schema=schema)
    parquet.write_table(table, tmp_path / "InfographicVQA" / f"{split}-00000-of-00001.parquet")
    dataset = load(tmp_path, split)
    assert dataset.complete
    assert dataset.source["counts"] == {"all": count}


@pytest.mark.parametrize("name", ["lmms-lab/DocVQA", "lmms-lab-encoder/DocVQA"])
def test_a_download_with_another_count_is_refused(tmp_path, monkeypatch, name):
    published.write_hub(tmp_path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    with pytest.raises(DataError, match="is not infographicsvqa as published: expected 2801 samples; found 12 samples"):
        InfographicsVQA().load(DataOptions(Path(name), "validation"))
    assert asked[0][0] == (name,)
    assert asked[0][1]["allow_patterns"] == ["InfographicVQA/*.parquet"]


def test_a_split_is_not_taken_for_another(tmp_path):
    published.write_test(tmp_path)
    assert "no validation-*.parquet; found test-00000-of-00004.parquet, " in said(tmp_path)
    with pytest.raises(UsageError, match="infographicsvqa has no split 'train'; it has validation, test"):
        load(tmp_path, "train")


def test_check_of_both_splits(tmp_path):
    published.write_hub(tmp_path)
    found = [tuple(one) for one in check(InfographicsVQA(), DataOptions(tmp_path, "validation"))]
    assert found == [
        ("rows", "rows that can be read", "12, layout parquet", True),
        ("samples", "2801", "12", False),
        ("media that decode", "6", "6", True),
        ("evidence outside its image", "0", "0", True),
    ]
    unlabelled = [tuple(one) for one in check(InfographicsVQA(), DataOptions(tmp_path, "test"))]
    assert unlabelled[1:3] == [
        ("samples", "3288", "5", False),
        ("answers, which are not public", "0 or all", "0", True),
    ]


@pytest.mark.parametrize(("words", "count"), [((), "2801"), (("--split", "test"), "3288")])
def test_the_command_checks_the_split_that_is_scored(tmp_path, monkeypatch, words, count):
    published.write_hub(tmp_path)
    monkeypatch.setattr(commands, "load_task", lambda _: InfographicsVQA())
    done = CliRunner().invoke(commands.data_group, ["check", "infographicsvqa", "--data", str(tmp_path), *words])
    assert done.exit_code == 2
    assert count in done.output


# -- hostile rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("questionId", None, "`questionId` must be text or a whole number, found None"),
        ("questionId", 1.5, "`questionId` must be text or a whole number, found 1.5"),
        ("questionId", " ", "`questionId` must be text or a whole number"),
        ("question", None, "`question` must be text that is not blank, found None"),
        ("question", " \n", "`question` must be text that is not blank"),
        ("answers", None, "`answers` must be a list of accepted answers, one or more, found None"),
        ("answers", [], "`answers` must be a list of accepted answers, one or more"),
        ("answers", ["", " "], "`answers` must be a list of accepted answers, one or more"),
        ("answers", "pinterest", "`answers` must be a list of texts, found 'pinterest'"),
        ("answers", [42], "`answers` must be a list of texts, found [42]"),
        ("answer_type", "single span", "`answer_type` must be a list of texts"),
        ("operation/reasoning", [1], "`operation/reasoning` must be a list of texts"),
        ("image", 3, "`image` must be encoded bytes, or a struct of bytes and path"),
        ("slices", "x", "`slices` must be a list of texts"),
        ("evidence", [[1, 2, 3]], "`evidence` must be a list of boxes"),
        ("evidence", [0], "`evidence` must be a list of boxes"),
    ],
)
def test_a_hostile_row_is_named(tmp_path, key, value, says):
    message = said(write_table(tmp_path, {**ROW, key: value}))
    assert "validation-00000-of-00001.parquet row 1: " in message
    assert says in message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("image_local_name", "../../secret.jpeg", "leaves the dataset folder"),
        ("image_local_name", "/etc/passwd", "leaves the dataset folder"),
        ("image_local_name", None, "data 2: `image_local_name` must be text"),
        ("answers", [], "data 2: `answers` must be a list of accepted answers, one or more"),
        ("questionId", 98313, "more than one row is called '98313'; ids must be unique"),
    ],
)
def test_a_hostile_row_of_the_challenges_file_is_named(tmp_path, key, value, says):
    assert says in said(write_notes(tmp_path, NOTE, {**NOTE, "questionId": 2, key: value}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "expected one JSON object, found list"),
        ("{}", "no `data`; expected a list of objects"),
        ("{", "not valid"),
    ],
)
def test_a_file_of_another_shape(tmp_path, content, says):
    (tmp_path / "infographicsVQA_val_v1.0_withQT.json").write_text(content)
    assert says in said(tmp_path)


def test_missing_columns_say_what_was_expected_and_found(tmp_path):
    says = (
        "expected the columns questionId, question, answers, answer_type, image, operation/reasoning; found question, "
    )
    assert says in said(write_table(tmp_path, {"question": "q", "answers": ["a"]}))


def test_blank_answers_and_labels_are_passed_over(tmp_path):
    row = {**ROW, "answers": ["", None, " 46 million"], "answer_type": [None, ""], "operation/reasoning": None}
    (sample,) = load(write_table(tmp_path, row)).samples
    assert (sample.gold, sample.slices) == ((" 46 million",), ())


# -- ANLS ----------------------------------------------------------------------------------------

TEXT = st.text(st.sampled_from("abA \n\u00df\u0130"), max_size=8)


def brute(first: str, second: str) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        same = first[i - 1] == second[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (not same))

    return distance(len(first), len(second))


def challenge(answer: str, gold: list[str]) -> float:
    """The challenge's script, in its own order of operations."""
    values = []
    for one in gold:
        right, given_ = " ".join(one.strip().lower().split()), " ".join(answer.strip().lower().split())
        length = max(len(one.upper()), len(answer.upper()))
        values.append(0.0 if length == 0 else float(brute(right, given_)) / float(length))
    result = 1 - min(values)
    return 0.0 if result < 0.5 else result


@given(TEXT, TEXT)
@example("kitten", "sitting")
def test_the_distance_is_that_of_brute_force(first, second):
    assert edit_distance(first, second) == edit_distance(second, first) == brute(first, second)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
@example("ab", ["abcd"])
@example("", [""])
@example(" a ", ["a"])
def test_similarity_is_that_of_the_challenge(answer, gold):
    assert similarity(answer, gold) == pytest.approx(max(challenge(answer, gold), 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "gold", "anls", "exact"),
    [
        ("Pinterest", ("pinterest",), 1.0, 1.0),
        ("  THE   web\tindex\n", ("The Web Index",), 1.0, 1.0),
        ("ab", ("abcd",), 0.5, 0.0),
        ("a", ("abc",), 0.0, 0.0),
        ("42", ("42%",), 2 / 3, 0.0),
        ("42%", ("42%", "0.42"), 1.0, 1.0),
        ("The answer is 42", ("42",), 0.0, 0.0),
        ("None", ("None",), 1.0, 1.0),
        ("facebook twitter", ("facebook, twitter", "twitter, facebook"), 1 - 1 / 17, 0.0),
        ("abc", (" abd          ",), 1 - 1 / 14, 0.0),
        ("", ("abc",), 0.0, 0.0),
        (None, ("abc",), 0.0, 0.0),
        (None, ("",), 0.0, 0.0),
    ],
)
def test_scores(answer, gold, anls, exact):
    scores = InfographicsVQA().score(Sample("1", "q", (), gold, "text"), answer)
    assert scores == {"anls": pytest.approx(anls), "accuracy": exact}


def test_a_long_answer_takes_no_long_time():
    assert similarity("word " * 40_000, ["word", "another"]) == 0.0


def test_texts_are_compared_flat():
    assert flat(" A\u00a0 b\n") == "a b"


# -- what a run says -----------------------------------------------------------------------------


def record(number: str, reply: str, gold: tuple[str, ...] = ("right",), repeat: int = 0, end: str = "answered"):
    return {
        "id": number,
        "repeat": repeat,
        "cluster": "",
        "category": "",
        "slices": [],
        "answer_kind": "text",
        "question": "q",
        "choices": [],
        "gold": list(gold),
        "evidence": [],
        "end": end,
        "operations": [],
        "segments": [{"role": "assistant", "parts": [{"text": reply}]}],
        "usage": {"turns": 1, "images": 1, "prompt_tokens": 1, "new_tokens": 1},
        "seconds": {},
    }


class Whole:
    """Reads the whole reply; an empty one is no answer."""

    name = "whole"
    version = 1

    def kinds(self):
        return ("text",)

    def reads(self, task):
        return True

    def extract(self, *given):
        return (given[-2] or None, "whole")

    def judge(self, task, sample, answer):
        return task.score(sample, answer)

    def aggregate(self, task, rows):
        return task.aggregate(rows)


def metrics(records):
    task = InfographicsVQA()
    return summarise(list(map(episode_of, records)), score_records(records, task, Whole(), ""), task, Whole())


def test_a_labelled_run_has_both_means():
    found = metrics([record("1", "Right"), record("2", "righ"), record("3", ""), record("4", "x", end="turn_limit")])
    assert found["primary"] == "anls"
    assert found["metrics"]["anls"]["value"] == pytest.approx(1.8 / 4)
    assert (found["metrics"]["accuracy"]["value"], found["metrics"]["accuracy"]["n"]) == (0.25, 4)


def test_a_run_without_labels_has_no_result_rather_than_zero():
    found = metrics([record("1", "a", ()), record("2", "", ())])
    assert (found["n"], found["metrics"]["rapr"]["n"]) == (2, 2)
    empty = {"value": None, "low": None, "high": None, "n": 0}
    assert (found["metrics"]["anls"], found["metrics"]["accuracy"]) == (empty, empty)
    assert InfographicsVQA().score(Sample("1", "q", (), (), "text"), "a") == {}
    assert InfographicsVQA().aggregate([]) == {"anls": NOTHING, "accuracy": NOTHING}


def test_a_submission_has_every_question_once(tmp_path):
    records = [
        record("0202", "caf\u00e9 1", ()),
        record("0202", "caf\u00e9 2", (), repeat=1),
        record("99", "", ()),
        record("7", "unfinished", (), end="truncated"),
        record("8", "broken", (), end="data_error"),
    ]
    found = export_submission(records, tmp_path / "deep" / "infographicsvqa.json", Whole())
    assert found == (4, 3)
    assert json.loads((tmp_path / "deep" / "infographicsvqa.json").read_text(encoding="utf-8")) == [
        {"questionId": 202, "answer": "caf\u00e9 1"},
        {"questionId": 99, "answer": ""},
        {"questionId": 7, "answer": ""},
        {"questionId": 8, "answer": ""},
    ]


def test_a_submission_of_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match="sample 'direct_attributes/0' has no question id of InfographicVQA"):
        export_submission([record("direct_attributes/0", "A")], tmp_path / "x.json", Whole())
    assert not (tmp_path / "x.json").exists()
    with pytest.raises(StoreError, match="cannot write"):
        export_submission([record("1", "A")], tmp_path, Whole())


def test_what_the_task_declares():
    task = InfographicsVQA()
    assert (task.name, task.answer_kind, task.primary) == ("infographicsvqa", "text", "anls")
    assert (task.splits, task.chance.of("")) == (("validation", "test"), None)
