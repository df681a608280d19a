"""Screenshots with answer boxes (VISA), on small files in exactly their schema."""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from prh.harness.media import load_image
from prh.harness.types import Box
from prh.tests.training.sources import Values, lines, png, refused, seeds
from pyarrow import parquet


def visa(number: int = 1, **values: object) -> Values:
    return {
        "id": f"q{number}",
        "question": "when was the bridge opened",
        "image": {"bytes": png(98, 200), "path": f"page_{number}.png"},
        "image_size": [98, 200],
        "short_answer": "1932",
        "long_answer_type": "p",
        "bounding_box": [10, 20, 60, 50],
        "candidates": ["a", "b"],
        "pos_idx": 0,
        "url": "https://example.org/bridge",
        **values,
    }


def table(path: Path, rows: Sequence[Values]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_visa_parquet_gives_questions_with_the_answers_box(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train-00000-of-00002.parquet", [visa(1), visa(2, bounding_box=[0, 0, 99, 201])])
    table(tmp_path / "data" / "train-00001-of-00002.parquet", [visa(3)])
    table(tmp_path / "data" / "test-00000-of-00001.parquet", [visa(9)])
    found = seeds("screenshots", tmp_path)
    assert [seed.sample.id for seed in found] == [f"screenshots/q{number}" for number in (1, 2, 3)]
    one, whole = found[0], found[1]
    assert one.sample.gold == ("1932",)
    assert one.sample.answer_kind == "text"
    assert not one.sample.choices
    assert one.sample.evidence[0].box == Box(10, 20, 60, 50)
    assert one.origin == {"file": "train-00000-of-00002.parquet", "row": 1, "split": "train"}
    assert one.notes == {"url": "https://example.org/bridge", "long_answer_type": "p"}
    assert load_image(one.sample.media[0]).size == (98, 200)
    assert one.sample.media[0].name == "page_1.png"
    assert whole.sample.evidence[0].box == Box(0, 0, 98, 200)  # a pixel of overhang is cut
    assert [seed.sample.id for seed in seeds("screenshots", tmp_path, "test")] == ["screenshots/q9"]


def test_the_layout_of_the_hubs_conversion_is_read_by_its_folders(tmp_path: Path) -> None:
    table(tmp_path / "default" / "train" / "0000.parquet", [visa(1)])
    table(tmp_path / "default" / "test" / "0000.parquet", [visa(2)])
    assert [seed.sample.id for seed in seeds("screenshots", tmp_path)] == ["screenshots/q1"]
    refused("screenshots", tmp_path, "no validation split; found test, train", split="validation")
    table(tmp_path / "default" / "train" / "0001.parquet", [visa(1)])
    refused("screenshots", tmp_path, "0001.parquet row 1", "ids must be unique")


def test_visa_as_jsonl_takes_paths_and_the_other_names(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.png").write_bytes(png(100, 100))
    row = {"id": 5, "question": "who", "answers": ["Ada", "Ada L."], "bbox": [1.5, 2, 50, 60], "image": "a.png"}
    lines(tmp_path / "train.jsonl", [row, {**row, "id": 6, "answers": "Ada"}])
    found = seeds("screenshots", tmp_path, images="pages", licence="CC-BY-4.0")
    assert [seed.sample.gold for seed in found] == [("Ada", "Ada L."), ("Ada",)]
    assert found[0].sample.evidence[0].box == Box(1.5, 2, 50, 60)
    assert found[0].licence == "CC-BY-4.0"
    nameless = {key: value for key, value in row.items() if key != "id"}
    lines(tmp_path / "train.jsonl", [nameless, nameless])
    assert [s.sample.id for s in seeds("screenshots", tmp_path, images="pages")] == [
        "screenshots/train.jsonl/1",
        "screenshots/train.jsonl/2",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bounding_box": [10.0, 20.0, math.nan, 50.0]}, "four finite numbers"),
        ({"bounding_box": [60, 20, 10, 50]}, "corners are in order"),
        ({"bounding_box": [10, 20, 10, 50]}, "corners are in order"),
        ({"bounding_box": [10, 20, 120, 50]}, "within the image of 98x200"),
        ({"bounding_box": [200, 300, 220, 350]}, "within the image"),
        ({"bounding_box": [0.1, 0.1, 0.6, 0.5]}, "is it in pixels?"),
        ({"bounding_box": [10, 20, 60]}, "four finite numbers"),
        ({"bounding_box": None}, "none of the keys bounding_box, bbox"),
        ({"bounding_box": "10,20,60,50"}, "four finite numbers"),
        ({"question": "  "}, "`question` must be text"),
        ({"short_answer": None}, "none of the keys short_answer, answers"),
        ({"short_answer": ""}, "`short_answer` must be texts"),
        ({"image": {"bytes": png()[:60], "path": "p.png"}}, "p.png: the image cannot be decoded"),
        ({"image": {"bytes": b"<svg/>", "path": None}}, "not an image"),
        ({"image": {"bytes": None, "path": "../../secret.png"}}, "leaves the dataset folder"),
        ({"image": {"bytes": None, "path": "gone.png"}}, "cannot read"),
        ({"image": {"bytes": None, "path": None}}, "encoded bytes"),
        ({"image": None}, "encoded bytes"),
        ({"id": 2.5}, "`id` must be"),
    ],
)
def test_a_hostile_screenshot_is_refused_in_one_line(tmp_path: Path, values: Values, said: str) -> None:
    file = table(tmp_path / "rows.parquet", [visa(2, **values)])
    refused("screenshots", file, "rows.parquet row 1", said)


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    refused("screenshots", tmp_path, "no .parquet or .jsonl file")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    refused("screenshots", tmp_path / "a.parquet", "not a readable parquet file")
    refused("screenshots", table(tmp_path / "b.parquet", [{"text": "x"}]), "b.parquet row 1")
    good = table(tmp_path / "c.parquet", [visa(1), visa(2)]).read_bytes()
    (tmp_path / "c.parquet").write_bytes(good[:200] + good[-200:])
    refused("screenshots", tmp_path / "c.parquet", "c.parquet")
