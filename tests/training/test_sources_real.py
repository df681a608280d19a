"""Readers of real data, on small files in exactly their schemas."""

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prh.harness import registry
from prh.harness.errors import DataError, PrhError, UsageError
from prh.harness.media import load_image
from prh.harness.types import Box, Json
from prh.harness.video import read_frames
from prh.training.seeds import Seed, SourceOptions
from prh.training.sources.baked import boxed, letters_of, unboxed, unpicked
from prh.training.sources.rows import split_files
from pyarrow import parquet

Values = dict[str, Any]
FIXTURE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png(width: int = 60, height: int = 40, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def mp4(path: Path, seconds: int = 4, fps: int = 8) -> None:
    """Grey clips; frame n has level 4 * n and is shown at n / fps seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * fps):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number % 256, np.uint8), "rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def seeds(source: str, data: Path | None, split: str = "train", seed: int = 0, **chosen: Json) -> list[Seed]:
    reader: Any = registry.make("sources", source)
    return list(reader.seeds(SourceOptions(data, split, seed, chosen)))


def check(error: PrhError, *said: str) -> None:
    """One line that names what it must."""
    message = str(error)
    assert message.isprintable(), message
    assert len(message) < 900, message
    for part in said:
        assert part in message, message


def refused(source: str, data: Path, *said: str, split: str = "train", **chosen: Json) -> None:
    with pytest.raises(DataError) as caught:
        seeds(source, data, split, **chosen)
    check(caught.value, *said)


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- every source ------------------------------------------------------------------------------------------------

SOURCES = ("sa1b", "screenshots", "star", "jsonl", "pixelreasoner-rl")


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_what_it_is_and_what_is_missing(name: str, tmp_path: Path) -> None:
    reader: Any = registry.make("sources", name)
    assert reader.name == name
    assert reader.summary
    assert reader.licence
    with pytest.raises(UsageError, match="`data`"):
        reader.seeds(SourceOptions())
    with pytest.raises(UsageError, match="no file or folder"):
        reader.seeds(SourceOptions(tmp_path / "none"))
    with pytest.raises(UsageError, match="did you mean faulty"):
        reader.seeds(SourceOptions(tmp_path, settings={"faulti": "skip"}))
    (tmp_path / "STAR_train.json").write_text("[]")
    lines(tmp_path / "a.jsonl", [])
    parquet.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="one of refuse, skip"):
        reader.seeds(SourceOptions(tmp_path, settings={"faulty": "ignore"}))


# -- SA-1B -------------------------------------------------------------------------------------------------------


def mask(number: int, *box: float, iou: float = 0.95, stability: float = 0.97) -> Values:
    return {
        "bbox": list(box),
        "area": 60,
        "segmentation": {"size": [300, 400], "counts": "oao34f^13M2N2N2O1"},
        "predicted_iou": iou,
        "point_coords": [[1.5, 2.5]],
        "crop_box": [0.0, 0.0, 400.0, 300.0],
        "id": number,
        "stability_score": stability,
    }


def sa1b(folder: Path, number: int = 34, masks: Sequence[Values] = (), **image: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"sa_{number}.jpg"
    Image.new("RGB", (400, 300), (number % 256, 9, 9)).save(folder / name)
    head = {"image_id": number, "width": 400, "height": 300, "file_name": name, **image}
    note = folder / f"sa_{number}.json"
    note.write_text(json.dumps({"image": head, "annotations": list(masks)}), encoding="utf-8")
    return note


GOOD = [
    mask(1, 10.0, 20.0, 39.0, 29.0),  # 40 x 30 of 400 x 300: 1 %
    mask(2, 200.0, 100.0, 44.0, 34.0),
    mask(3, 0.0, 0.0, 399.0, 299.0),  # all of it
    mask(4, 50.0, 50.0, 39.0, 29.0, iou=0.5),
    mask(5, 60.0, 50.0, 39.0, 29.0, stability=0.5),
    mask(6, 90.0, 90.0, 200.0, 2.0),  # too thin
]


def test_sa1b_yields_small_sure_masks_as_places_for_a_question(tmp_path: Path) -> None:
    for number in (34, 1010):
        sa1b(tmp_path / "sa_000000", number, GOOD)
    sa1b(tmp_path, 7, [GOOD[2]])  # nothing small
    found = seeds("sa1b", tmp_path, per_image=5)
    assert [seed.sample.id.rsplit("/", 1)[0] for seed in found] == ["sa1b/1010"] * 2 + ["sa1b/34"] * 2
    assert {seed.sample.id for seed in found} == {f"sa1b/{image}/{one}" for image in (34, 1010) for one in (1, 2)}
    one = next(seed for seed in found if seed.sample.id == "sa1b/34/1")
    assert one.sample.question == ""
    assert one.sample.gold == ()
    assert one.notes["propose"] is True
    assert one.sample.evidence[0].box == Box(10, 20, 50, 50)
    assert one.origin == {"file": "sa_000000/sa_34.json", "annotation": "1"}
    assert load_image(one.sample.media[0]).size == (400, 300)
    assert one.licence == "SA-1B Dataset Research License"


def test_the_mask_chosen_depends_on_seed_image_and_mask_alone(tmp_path: Path) -> None:
    masks = [mask(number, 10.0 * number, 10.0, 39.0, 29.0) for number in range(1, 21)]
    sa1b(tmp_path / "one", 34, masks)
    sa1b(tmp_path / "two", 34, masks[::-1])
    sa1b(tmp_path / "two", 35, masks)
    chosen = {seed: [s.sample.id for s in seeds("sa1b", tmp_path / "one", seed=seed)] for seed in range(8)}
    assert all(len(ids) == 1 for ids in chosen.values())
    assert len({ids[0] for ids in chosen.values()}) > 3
    for seed, ids in chosen.items():
        assert [s.sample.id for s in seeds("sa1b", tmp_path / "two", seed=seed)][:1] == ids


def test_settings_of_sa1b_say_what_is_small_and_sure(tmp_path: Path) -> None:
    note = sa1b(tmp_path, 34, GOOD)
    wide = {"area": [0.0, 1.0], "predicted_iou": 0.4, "stability_score": 0.4, "min_side": 1, "per_image": 9}
    assert len(seeds("sa1b", note, **wide)) == 6
    assert len(seeds("sa1b", note, **{**wide, "area": [0.9, 1.0]})) == 1
    wrong: list[dict[str, Json]] = [{"area": [0.2, 0.1]}, {"area": [0, math.nan]}, {"area": 0.1}, {"per_image": 0}]
    for chosen in (*wrong, {"per_image": True}, {"stability_score": 2}, {"predicted_iou": "high"}):
        with pytest.raises(UsageError, match="setting"):
            seeds("sa1b", note, **chosen)


@pytest.mark.parametrize(
    ("masks", "image", "said"),
    [
        ([mask(1, 10, 20, math.nan, 30)], {}, "four finite numbers"),
        ([mask(1, 10, 20, math.inf, 30)], {}, "four finite numbers"),
        ([mask(1, 10, 20, 39)], {}, "annotations 1: `bbox`"),
        ([mask(1, 380, 20, 39, 29)], {}, "within the image of 400x300"),
        ([mask(1, -20, 20, 39, 29)], {}, "within the image"),
        ([mask(1, 10, 20, -5, 29)], {}, "none of the sides below 0"),
        ([GOOD[0], {**GOOD[1], "bbox": "10 20"}], {}, "annotations 2: `bbox`"),
        ([GOOD[0], {**GOOD[1], "id": 1}], {}, "two annotations have the id '1'"),
        ([{**GOOD[0], "id": None}], {}, "`id` must be"),
        ([{**GOOD[0], "predicted_iou": "0.9"}], {}, "`predicted_iou`"),
        (["mask"], {}, "list of objects"),
        (GOOD, {"width": 0}, "`width`"),
        (GOOD, {"height": 301}, "has 400x300 pixels, not 400x301"),
        (GOOD, {"file_name": "../sa_34.jpg"}, "leaves the dataset folder"),
        (GOOD, {"file_name": "/etc/passwd"}, "leaves the dataset folder"),
        (GOOD, {"file_name": "sa_34\n.jpg"}, "control characters"),
        (GOOD, {"file_name": "sa_35.jpg"}, "cannot read"),
        (GOOD, {"file_name": 34}, "`file_name` must be text"),
        (GOOD, {"image_id": [34]}, "`image_id`"),
    ],
)
def test_a_hostile_annotation_is_refused_in_one_line(tmp_path: Path, masks: Any, image: Values, said: str) -> None:
    sa1b(tmp_path, 34, masks, **image)
    refused("sa1b", tmp_path, "sa_34.json", said)


def test_files_of_sa1b_that_are_none_are_refused_or_skipped(tmp_path: Path) -> None:
    sa1b(tmp_path, 1, GOOD)
    (tmp_path / "sa_2.json").write_bytes(b'{"image": ')
    refused("sa1b", tmp_path, "sa_2.json", "not valid JSON")
    (tmp_path / "sa_2.json").write_bytes(b"\xef\xbb\xbf{}")
    refused("sa1b", tmp_path, "sa_2.json", "byte order mark")
    (tmp_path / "sa_2.json").write_bytes(b"[]")
    refused("sa1b", tmp_path, "sa_2.json", "one JSON object")
    (tmp_path / "sa_2.json").write_bytes(b"[" * 9000)
    refused("sa1b", tmp_path, "sa_2.json", "levels deep")
    (tmp_path / "sa_2.json").unlink()
    data = (tmp_path / "sa_1.jpg").read_bytes()
    sa1b(tmp_path / "more", 3, GOOD)
    (tmp_path / "sa_1.jpg").write_bytes(data[: len(data) // 2])
    refused("sa1b", tmp_path, "sa_1.json: image: sa_1.jpg", "cannot be decoded")
    with pytest.warns(UserWarning, match="1 faulty rows passed over, the first: .*sa_1.json"):
        assert [seed.sample.cluster for seed in seeds("sa1b", tmp_path, faulty="skip")] == ["sa_3.jpg"]
    sa1b(tmp_path / "again", 3, GOOD)
    (tmp_path / "sa_1.jpg").write_bytes(data)
    refused("sa1b", tmp_path, "more", "ids must be unique", per_image=2)


# -- screenshots -------------------------------------------------------------------------------------------------


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


# -- STAR --------------------------------------------------------------------------------------------------------


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


# -- JSONL -------------------------------------------------------------------------------------------------------


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


@FIXTURE
@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(folder: Path, data: bytes) -> None:
    for source, name in (("jsonl", "rows.jsonl"), ("sa1b", "note.json"), ("star", "STAR_train.json")):
        (folder / "raw").mkdir(exist_ok=True)
        file = folder / "raw" / name
        file.write_bytes(data)
        try:
            seeds(source, file)
        except PrhError as error:
            check(error, name)


def test_files_are_chosen_by_the_split_their_names_say(tmp_path: Path) -> None:
    for name in ("plain.jsonl", "train-1.jsonl", "val_2.jsonl", "test/a.jsonl"):
        lines(tmp_path / name, [])
    names = {split: [p.name for p in split_files(tmp_path, split, (".jsonl",))] for split in ("train", "validation")}
    assert names == {"train": ["train-1.jsonl"], "validation": ["val_2.jsonl"]}
    (tmp_path / "val_2.jsonl").unlink()
    assert [p.name for p in split_files(tmp_path, "validation", (".jsonl",))] == ["plain.jsonl"]


# -- baked questions ---------------------------------------------------------------------------------------------

plain = st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"]), min_size=1, max_size=20).map(str.strip)
words = plain.filter(bool).filter(lambda text: len(text) > 1)
SHAPES: dict[str, Callable[[str], str]] = {
    "{}: ": lambda rows: f"\nchoices:\n{rows}",
    "({}) ": lambda rows: f"\nOptions:\n{rows}",
    "{}. ": lambda rows: f"\n{rows}",
}


@given(words, st.lists(words, min_size=2, max_size=26), st.sampled_from(sorted(SHAPES)), st.booleans(), st.booleans())
def test_options_are_unpicked_from_the_shapes_they_are_baked_in(
    text: str, options: list[str], shape: str, placed: bool, guided: bool
) -> None:
    rows = "\n".join(shape.format(chr(65 + place)) + option for place, option in enumerate(options))
    guide = "\n\n\n\nGuidelines: Understand the query. Put your answer within \\boxed{}." if guided else ""
    baked = ("<image>\n" if placed else "") + text + SHAPES[shape](rows) + guide
    assert unpicked(baked) == (text, tuple(options))


@given(st.text(max_size=200))
def test_unpicking_never_invents(text: str) -> None:
    question, choices = unpicked(text)
    assert question in text
    assert all(choice in text for choice in choices)
    assert not choices or (question and len(choices) >= 2)


@given(st.text(max_size=60))
def test_unboxing_never_fails(text: str) -> None:
    for wrapped in (text, f"\\boxed{{{text}}}", f"[{text}]", f"\\boxed{{[{text}]}}"):
        assert all(isinstance(answer, str) for answer in unboxed(wrapped))
    boxed(text)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("\\boxed{B}", ("B",)),
        (" \\boxed{\\frac{1}{2}} ", ("\\frac{1}{2}",)),
        ("42%", ("42%",)),
        ("\\boxed{['two', \"it's 2\", 'don\\'t']}", ("two", "it's 2", "don't")),
        ('\\boxed{["two", 2]}', ("two", "2")),
        ("\\boxed{[1, 2.5]}", ("1", "2.5")),
        ("\\boxed{[__import__('os').getcwd()]}", ("[__import__('os').getcwd()]",)),
        ("\\boxed{[a] and [b]}", ("[a] and [b]",)),
        ("\\boxed{A} or \\boxed{B}", ("\\boxed{A} or \\boxed{B}",)),
        ("\\boxed{}", ()),
        ("\\boxed{A", ("\\boxed{A",)),
    ],
)
def test_golds_are_unboxed_and_never_evaluated(text: str, answers: tuple[str, ...]) -> None:
    assert unboxed(text) == answers


def test_letters_are_read_and_ambiguity_is_not_guessed() -> None:
    assert letters_of("(b)", ("x", "y")) == ()
    assert [letters_of(text, ("x", "y")) for text in ("B", "(B)", "B.", "y", "C")] == [("B",)] * 4 + [()]
    assert letters_of("A", ("B", "A")) == ()
    assert letters_of("A", ("A", "B")) == ("A",)
    assert letters_of("x", ("x", "y", "x")) == ("A", "C")
