"""Readers of real data: what is asked of all of them alike."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness import registry
from prh.harness.errors import PrhError, UsageError
from prh.tests.training.sources import FIXTURE, check, lines, seeds
from prh.training.seeds import SourceOptions
from prh.training.sources.rows import split_files
from pyarrow import parquet

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


@FIXTURE
@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(tmp_path: Path, data: bytes) -> None:
    for source, name in (("jsonl", "rows.jsonl"), ("sa1b", "note.json"), ("star", "STAR_train.json")):
        (tmp_path / "raw").mkdir(exist_ok=True)
        file = tmp_path / "raw" / name
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
