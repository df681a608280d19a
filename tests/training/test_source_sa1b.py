"""SA-1B, on small files in exactly its schema."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prh.harness.errors import UsageError
from prh.harness.media import load_image
from prh.harness.types import Box, Json
from prh.tests.training.sources import Values, refused, seeds


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
