"""The generic JSONL source."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.errors import DataError, PrhError
from prh.harness.types import Box
from prh.harness.video import read_frames
from prh.tests.training.sources import FIXTURE, Values, check, lines, mp4, png, refused, seeds
from prh.training.seeds import Seed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(100, 80))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.png").write_bytes(png(100, 80)[:70])
    for number in range(1, 13):
        (tmp_path / "clip").mkdir(exist_ok=True)
        (tmp_path / "clip" / f"{number}.png").write_bytes(png(32, 32, (number, 0, 0)))
    return tmp_path


ROW: Values = {"id": "r1", "image": "a.png", "question": "What?", "answer": "red"}


def one(folder: Path, **values: object) -> Seed:
    row = {key: value for key, value in {**ROW, **values}.items() if value is not None}
    (seed,) = seeds("jsonl", lines(folder / "rows.jsonl", [row]))
    return seed


def test_jsonl_reads_what_it_documents(folder: Path) -> None:
    seed = one(
        folder,
        image=None,
        images=["a.png", "deep/c.png"],
        choices=["red", "green", "blue"],
        answer="green",
        boxes=[[0.1, 0.25, 0.5, 0.75], [0, 0, 1, 1]],
        box_unit="unit",
        box_image=2,
        category="colours",
        licence="CC0-1.0",
        split="train",
        notes={"target": "square", "deep": [1, {"a": None}]},
    )
    sample = seed.sample
    assert sample.id == "jsonl/r1"
    assert sample.gold == ("B",)
    assert sample.answer_kind == "option"
    assert [item.box for item in sample.evidence] == [Box(10, 20, 50, 60), Box(0, 0, 100, 80)]
    assert {item.media for item in sample.evidence} == {2}
    assert sample.category == "colours"
    assert seed.licence == "CC0-1.0"
    assert seed.notes == {"target": "square", "deep": [1, {"a": None}]}
    assert seed.origin == {"file": "rows.jsonl", "row": 1, "split": "train"}


def test_jsonl_reads_videos_as_files_folders_and_lists(folder: Path) -> None:
    mp4(folder / "v.mp4")
    file = one(folder, image=None, video="v.mp4", start=0.5, end=2, shown=8, evidence_frames=[1, 8])
    media = file.sample.media[0]
    assert (media.start, media.end, media.frames) == (0.5, 2.0, 8)
    assert file.sample.evidence[0].frames == (1, 8)
    assert len(read_frames(media).frames) == 8
    clip = one(folder, image=None, video="clip", fps=4, start=0, end=1).sample.media[0]
    assert [path.name for path in clip.source] == [f"{number}.png" for number in range(1, 13)]  # type: ignore[union-attr]
    assert read_frames(clip).indices[-1] == 3
    listed = one(folder, image=None, frames=["clip/3.png", "clip/1.png"]).sample.media[0]
    assert [path.name for path in listed.source] == ["3.png", "1.png"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "gold", "kind"),
    [
        ({"answer": 3}, ("3",), "integer"),
        ({"answer": "-12"}, ("-12",), "integer"),
        ({"answer": 3.5}, ("3.5",), "number"),
        ({"answer": 3, "answer_kind": "number"}, ("3",), "number"),
        ({"answer": None, "answers": ["two", "2"]}, ("two", "2"), "text"),
        ({"answer": "B", "choices": ["x", "y"]}, ("B",), "option"),
        ({"answer": None, "answers": ["A", "x"], "choices": ["x", "y", "x"]}, ("A", "C"), "option"),
    ],
)
def test_answers_say_their_kind(folder: Path, values: Values, gold: tuple[str, ...], kind: str) -> None:
    sample = one(folder, **values).sample
    assert (sample.gold, sample.answer_kind) == (gold, kind)


def test_a_row_without_question_is_for_a_teacher_that_proposes(folder: Path) -> None:
    seed = one(folder, question=None, answer=None, box=[1, 1, 50, 50], box_unit="pixels", notes={"a": 1})
    assert seed.sample.question == ""
    assert seed.notes == {"a": 1, "propose": True}
    assert seed.sample.answer_kind == "option"
    assert seed.sample.gold == ()


def test_rows_of_other_splits_are_passed_over(folder: Path) -> None:
    rows = [{**ROW, "id": number, "split": split} for number, split in enumerate(["train", "test", "train"])]
    assert [s.sample.id for s in seeds("jsonl", lines(folder / "r.jsonl", rows))] == ["jsonl/0", "jsonl/2"]
    assert [s.sample.id for s in seeds("jsonl", folder / "r.jsonl", "test")] == ["jsonl/1"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": "../a.png"}, "leaves the dataset folder"),
        ({"image": "/etc/hostname"}, "leaves the dataset folder"),
        ({"image": "a\u0000.png"}, "control characters"),
        ({"image": "gone.png"}, "cannot read"),
        ({"image": "clip"}, "not a file"),
        ({"image": "torn.png"}, "torn.png: the image cannot be decoded"),
        ({"image": ["a.png"]}, "`image` must be a path"),
        ({"image": None}, "one of the keys image, images, video, frames, found none"),
        ({"video": "clip"}, "found image, video"),
        ({"image": None, "video": "gone.mp4"}, "cannot read"),
        ({"image": None, "video": "clip", "start": 1}, "`fps`"),
        ({"image": None, "video": "clip", "start": 3, "end": 1, "fps": 4}, "no window"),
        ({"image": None, "video": "clip", "fps": 0}, "`fps` must be"),
        ({"image": None, "video": "empty"}, "holds no image"),
        ({"image": None, "frames": ["clip/1.png", "clip/99.png"]}, "no frame '99.png'"),
        ({"image": None, "frames": []}, "`frames` must be texts"),
        ({"image": None, "video": "clip", "box": [1, 1, 9, 9], "box_unit": "pixels"}, "this row has a video"),
        ({"image": None, "video": "clip", "evidence_frames": [0]}, "from 1 to 16"),
        ({"image": None, "video": "clip", "evidence_frames": [17]}, "from 1 to 16"),
        ({"image": None, "video": "clip", "evidence_frames": [2, 2]}, "none twice"),
        ({"image": None, "video": "clip", "evidence_frames": [1.0]}, "whole numbers"),
        ({"evidence_frames": [1]}, "`evidence_frames` is of videos"),
        ({"start": 1}, "`start` is of videos"),
        ({"box": [1, 1, 9, 9]}, "`box_unit`"),
        ({"box": [1, 1, 9, 9], "box_unit": "cm"}, "`box_unit` must be pixels or unit"),
        ({"box": [1, 1, 9, math.nan], "box_unit": "pixels"}, "four finite numbers"),
        ({"box": [9, 1, 1, 9], "box_unit": "pixels"}, "corners are in order"),
        ({"box": [1, 1, 102, 9], "box_unit": "pixels"}, "within the image of 100x80"),
        ({"box": [0, 0, 1.5, 1], "box_unit": "unit"}, "within the image"),
        ({"box": [0.1, 0.1, 0.5, 0.5], "box_unit": "pixels"}, "is it in pixels?"),
        ({"boxes": [[1, 1, 9, 9], [1, 2, 3]], "box_unit": "pixels"}, "box 2: `boxes`"),
        ({"boxes": [], "box_unit": "pixels"}, "list of boxes"),
        ({"box": [1, 1, 9, 9], "box_unit": "pixels", "box_image": 2}, "from 1 to 1"),
        ({"answer": None}, "none of the keys answer, answers"),
        ({"answer": []}, "an answer or a list"),
        ({"answer": True}, "an answer or a list"),
        ({"answer": {"a": 1}}, "an answer or a list"),
        ({"answer": "E", "choices": ["x", "y"]}, "letters or texts of the choices"),
        ({"answer": "A", "choices": ["B", "A"]}, "letters or texts of the choices"),
        ({"choices": ["x"]}, "list of 2 to 26 texts"),
        ({"choices": ["x", 2]}, "list of 2 to 26 texts"),
        ({"question": None}, "no `question`"),
        ({"question": ""}, "`question` must be text"),
        ({"answer_kind": "integer"}, "fits answers of kind text"),
        ({"answer_kind": "poem"}, "`answer_kind`"),
        ({"id": None}, "no `id`"),
        ({"id": True}, "`id` must be"),
        ({"notes": []}, "`notes` must be an object"),
        ({"anwser": "x"}, "unknown keys anwser"),
        ({"split": 3}, "`split` must be text"),
    ],
)
def test_a_hostile_line_is_refused_in_one_line(folder: Path, values: Values, said: str) -> None:
    row = {key: value for key, value in {**ROW, **values}.items() if value is not None}
    file = lines(folder / "rows.jsonl", [{**ROW, "id": "first"}, row])
    refused("jsonl", file, "rows.jsonl line 2", said)


def test_lines_that_are_no_rows_are_refused(folder: Path) -> None:
    file = lines(folder / "rows.jsonl", [ROW, ROW])
    refused("jsonl", file, "rows.jsonl line 2", "'jsonl/r1'", "ids must be unique")
    for line, said in ((b"[1]", "a JSON object"), (b'{"id": ', "not valid JSON"), (b"\xff{}", "not UTF-8 at byte 0")):
        file.write_bytes(json.dumps(ROW).encode() + b"\n\n" + line + b"\n")
        refused("jsonl", file, "rows.jsonl line 3", said)
    file.write_bytes(b'{"id": 1' + b"0" * 5000 + b"}")
    refused("jsonl", file, "rows.jsonl line 1", "not valid JSON")


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a.png", "../a.png"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@FIXTURE
@given(
    st.dictionaries(
        st.sampled_from(["id", "image", "question", "answer", "choices", "box", "boxes", "box_unit", "notes"]), wild
    )
)
def test_no_line_of_json_does_more_than_be_refused(folder: Path, values: Values) -> None:
    file = lines(folder / "rows.jsonl", [{**ROW, **values}])
    try:
        found = seeds("jsonl", file)
    except PrhError as error:
        check(error, "rows.jsonl line 1")
    else:
        for evidence in (item for seed in found for item in seed.sample.evidence):
            assert evidence.box is None or Box(0, 0, 100, 80).intersection(evidence.box) == evidence.box


@FIXTURE
@given(st.lists(st.floats() | st.integers(-500, 500), min_size=4, max_size=4))
def test_a_box_is_within_its_image_or_refused(folder: Path, box: list[float]) -> None:
    file = lines(folder / "rows.jsonl", [{**ROW, "box": box, "box_unit": "pixels"}])
    try:
        (seed,) = seeds("jsonl", file)
    except DataError as error:
        check(error, "rows.jsonl line 1")
    else:
        cut = seed.sample.evidence[0].box
        assert cut is not None
        assert 0 <= cut.left < cut.right <= 100
        assert 0 <= cut.top < cut.bottom <= 80
        assert all(abs(mine - given) <= 1 for mine, given in zip(cut, box, strict=True))
