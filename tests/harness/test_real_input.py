"""The main job on real input: a real-architecture checkpoint, files in V*'s published layouts, a real photograph."""

import io
import json
from pathlib import Path

import matplotlib.cbook
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prh.harness.record import canonical
from prh.harness.store import read_json, read_manifest, read_records
from prh.tests.harness.test_cli import prh


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """The portrait that matplotlib ships, 512 x 600."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


def folders(root: Path, photograph: Image.Image) -> Path:
    questions = [
        ("direct_attributes", "sa_1", "What is on the person's head?", ["a cap", "a crown", "a scarf", "nothing"]),
        ("direct_attributes", "sa_2", "What colour is the jacket?", ["black", "green", "white", "red"]),
        ("relative_position", "sa_3", "Is the flag on the left or right side of the person?", ["right", "left"]),
    ]
    for number, (category, name, question, options) in enumerate(questions):
        folder = root / category
        folder.mkdir(parents=True, exist_ok=True)
        photograph.rotate(number, resample=Image.Resampling.BICUBIC).save(folder / f"{name}.jpg", quality=95)
        row = {"target_object": ["cap"], "bbox": [[150, 20, 200, 120]], "question": question, "options": options}
        (folder / f"{name}.json").write_text(json.dumps(row))
    return root


def parquet(root: Path, photograph: Image.Image) -> Path:
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=95)
    options = "(A) black\n(B) green\n(C) white\n(D) red\n"
    text = f"What colour is the jacket?\n{options}Answer with the option's letter from the given choices directly."
    row = {
        "image": {"bytes": buffer.getvalue(), "path": "sa_2.jpg"},
        "text": text,
        "category": "direct_attributes",
        "label": "A",
        "question_id": "1",
    }
    root.mkdir()
    pq.write_table(pa.Table.from_pylist([row]), root / "test-00000-of-00001.parquet")
    return root


@pytest.mark.parametrize("layout", [folders, parquet])
def test_a_checkpoint_on_photographs_in_both_layouts(layout: object, photograph: Image.Image, tmp_path: Path) -> None:
    data = layout(tmp_path / "vstar", photograph)  # type: ignore[operator]
    out = tmp_path / "run"
    words = ["eval", "--model", "tiny", "--task", "vstar", "--data", str(data), "--dtype", "float32"]
    done = prh(*words, "--out", str(out))
    assert "not the whole of vstar" in done.stderr
    manifest, records = read_manifest(out), read_records(out)
    assert manifest["engine"]["name"] == "transformers"  # type: ignore[index, call-overload]
    assert manifest["identity"]["protocol"] == "pixel-reasoner"  # type: ignore[index, call-overload]
    for record in records:
        photo, reply = record["media"][0], record["segments"][2]  # type: ignore[index, call-overload]
        assert photo["original"] == [512, 600]  # type: ignore[index, call-overload]
        assert all(side % 28 == 0 for side in photo["seen"])  # type: ignore[index, call-overload, union-attr]
        assert (out / photo["files"][0]).suffix == ".jpg"  # type: ignore[index, call-overload, operator]
        assert reply["role"] == "assistant"  # type: ignore[index, call-overload]
        said = [len(one["ids"]) for one in record["segments"] if one["role"] == "assistant"]  # type: ignore[index, call-overload, union-attr, arg-type]
        assert sum(said) == record["usage"]["new_tokens"]  # type: ignore[index, call-overload]
    metrics = read_json(out / "metrics.json")
    assert metrics["n"] == len(records)
    again = tmp_path / "again"
    prh(*words, "--out", str(again), "--concurrency", "1")
    assert [canonical(r) for r in read_records(again)] == [canonical(r) for r in records]
    replay = tmp_path / "replay"
    settings = ["--set", "limits.new_tokens=64"]
    prh("eval", "--model", f"replay:{out}", "--task", "vstar", "--data", str(data), "--out", str(replay), *settings)
    assert [canonical(r)["segments"] for r in read_records(replay)] == [canonical(r)["segments"] for r in records]
