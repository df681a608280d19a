"""STAR, on small files in exactly its schema."""

import json
import math
from pathlib import Path

import pytest
from prh.harness.errors import UsageError
from prh.harness.video import read_frames
from prh.tests.training.sources import Values, mp4, refused, seeds


def question(number: int = 13, video: str = "6H78U", **values: object) -> Values:
    texts = ["The closet/cabinet.", "The blanket.", "The clothes.", "The table."]
    return {
        "question_id": f"Interaction_T1_{number}",
        "question": "Which object was tidied up by the person?",
        "video_id": video,
        "start": 1.0,
        "end": 2.0,
        "answer": "The clothes.",
        "question_program": [{"function": "Filter", "value_input": ["tidy"]}],
        "choices": [{"choice_id": n, "choice": text, "choice_program": []} for n, text in enumerate(texts)],
        "situations": {"000012": {"rel_pairs": [["o001", "o002"]], "actions": ["a1"], "bbox": [[1, 2, 3, 4]]}},
        **values,
    }


def star(folder: Path, *rows: object, split: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"STAR_{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def charades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("charades") / "Charades_v1_480"
    mp4(folder / "6H78U.mp4")
    mp4(folder / "LONG1.mp4", 8)
    return folder


def test_star_gives_the_frames_that_the_model_is_shown_within_the_window(tmp_path: Path, charades: Path) -> None:
    rows = [question(1), question(2, start=0.0, end=60.0), question(3, start=1.31, end=1.32), question(4, "LONG1")]
    found = seeds("star", star(tmp_path, *rows), videos=str(charades))
    assert [seed.sample.id for seed in found] == [f"star/Interaction_T1_{number}" for number in (1, 2, 4)]
    one = found[0]
    times = read_frames(one.sample.media[0]).seconds
    assert len(times) == 16
    assert one.sample.evidence[0].frames == tuple(n for n, time in enumerate(times, 1) if 1.0 <= time <= 2.0)
    assert one.sample.gold == ("C",)
    assert one.sample.category == "Interaction"
    assert one.sample.answer_kind == "option"
    assert one.sample.choices[2] == "The clothes."
    assert one.notes == {"window": [1.0, 2.0]}
    assert one.sample.media[0].start is None  # the whole video is shown
    assert found[1].sample.evidence[0].frames == (1, 3, 5, 7, 9, 11, 13, 16)  # as many as can be selected
    assert found[1].origin == {"file": "STAR_train.json", "row": 2, "split": "train"}


def test_choices_of_star_stand_in_the_order_of_their_ids(tmp_path: Path, charades: Path) -> None:
    row = question(choices=[{"choice_id": 1, "choice": "no"}, {"choice_id": 0, "choice": "yes"}], answer="no")
    (seed,) = seeds("star", star(tmp_path, row, split="val"), "val", videos=str(charades))
    assert seed.sample.choices == ("yes", "no")
    assert seed.sample.gold == ("B",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"start": 2.0, "end": 1.0}, "no window"),
        ({"start": -1.0}, "no window"),
        ({"start": math.nan}, "`start` must be a finite number"),
        ({"end": "2.0"}, "`end` must be a finite number"),
        ({"start": 50.0, "end": 60.0}, "beyond the last frame shown"),
        ({"video_id": "../6H78U"}, "leaves the dataset folder"),
        ({"video_id": "/etc/6H78U"}, "leaves the dataset folder"),
        ({"video_id": "NONE"}, "NONE.mp4: cannot read"),
        ({"video_id": "TORN"}, "TORN.mp4: the video is truncated"),
        ({"video_id": 7}, "`video_id` must be text"),
        ({"answer": "The lamp."}, "the text of one of the choices"),
        ({"choices": []}, "2 to 26 choices"),
        ({"choices": [{"choice_id": 0, "choice": "a"}, {"choice_id": 0, "choice": "b"}]}, "different choice_id"),
        ({"choices": ["a", "b"]}, "list of objects"),
        ({"question": None}, "`question` must be text"),
        ({"question_id": None}, "`question_id`"),
        ({"question": "\ud800"}, "`question` must be text"),
    ],
)
def test_a_hostile_row_of_star_is_refused_in_one_line(
    tmp_path: Path, charades: Path, values: Values, said: str
) -> None:
    torn = charades / "TORN.mp4"
    torn.write_bytes((charades / "6H78U.mp4").read_bytes()[:-300])
    star(tmp_path, question(1), question(2, **values))
    refused("star", tmp_path, "STAR_train.json row 2", said, videos=str(charades))


def test_files_of_star_that_are_none_are_refused(tmp_path: Path, charades: Path) -> None:
    star(tmp_path, question(1), question(1))
    refused("star", tmp_path, "row 2", "ids must be unique", videos=str(charades))
    with pytest.warns(UserWarning, match="1 faulty rows"):
        assert len(seeds("star", tmp_path, videos=str(charades), faulty="skip")) == 1
    refused("star", star(tmp_path, "row"), "row 1", "expected a JSON object", videos=str(charades))
    (tmp_path / "STAR_train.json").write_text('{"rows": []}')
    refused("star", tmp_path, "expected a JSON list")
    with pytest.raises(UsageError, match=r"no STAR_val\.json"):
        seeds("star", tmp_path, "val")
    with pytest.raises(UsageError, match="`videos`"):
        seeds("star", tmp_path, videos="nowhere")
