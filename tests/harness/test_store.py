"""The run folder: nothing finished is lost, and what is torn is known for what it is."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.errors import StoreError
from prh.harness.record import SCHEMA, Record, canonical, to_record
from prh.harness.runner import pending, run_all
from prh.harness.scripted import ScriptedEngine
from prh.harness.store import (
    JOURNAL,
    RunStore,
    decode_line,
    encode_line,
    read_journal,
    read_records,
    runs_below,
    write_json,
)
from prh.harness.types import Json
from prh.tests.harness.support import crop, episode, image, sample, setting, video


def record(name: str, repeat: int = 0, end: str = "answered", text: str = "x") -> Record:
    return {"schema": SCHEMA, "id": name, "repeat": repeat, "end": end, "segments": [], "text": text}


def write(folder: Path, *records: Record) -> Path:
    with RunStore(folder) as store:
        for one in records:
            store.append(one)
    return folder / JOURNAL


@given(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_line_reads_back_and_any_changed_byte_is_noticed(text: str, number: int, share: float) -> None:
    value: Record = {"schema": SCHEMA, "id": text, "n": number, "f": share}
    line = encode_line(value)
    assert line.count(b"\n") == 1
    back = decode_line(line)
    assert back is not None
    assert {key: back[key] for key in value} == value
    for place in range(8, len(line) - 1, 7):
        assert decode_line(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]) is None


def test_a_lone_surrogate_from_a_model_can_be_kept() -> None:
    line = encode_line(record("a", text="\ud800"))
    line.decode("utf-8")
    assert decode_line(line) is not None


def test_the_journal_cut_at_every_byte_of_its_last_two_lines(tmp_path: Path) -> None:
    records = [record(f"s{i}", text="é" * 20) for i in range(4)]
    data = write(tmp_path / "run", *records).read_bytes()
    lines = data.splitlines(keepends=True)
    ends = [sum(map(len, lines[: i + 1])) for i in range(4)]
    for cut in range(ends[1], ends[3] + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / JOURNAL).write_bytes(data[:cut])
        whole = sum(cut >= end - 1 for end in ends)
        journal = read_journal(folder / JOURNAL)
        assert [one["id"] for one in journal.records] == [f"s{i}" for i in range(whole)]
        torn = cut not in ends and cut + 1 not in ends
        assert len(journal.damaged) == torn
        with RunStore(folder) as store:
            assert len(store.damaged) == torn
            assert set(store.records) == {(f"s{i}", 0) for i in range(whole)}
            for one in records[whole:]:
                store.append(one)
        assert (folder / JOURNAL).read_bytes() == data


def test_a_damaged_line_in_the_middle_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, record("a"), record("b"), record("c"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"answered", b"Answered") + lines[2])
    journal = read_journal(path)
    assert [one["id"] for one in journal.records] == ["a", "c"]
    assert journal.damaged[0].startswith(f"{JOURNAL} line 2")


def test_errors_run_again_and_the_last_record_of_a_sample_counts(tmp_path: Path) -> None:
    write(tmp_path, record("a", end="engine_error"), record("b"))
    with RunStore(tmp_path) as store:
        assert set(store.records) == {("b", 0)}
        store.append(record("a"))
    assert [(one["id"], one["end"]) for one in read_records(tmp_path)] == [("a", "answered"), ("b", "answered")]


def test_a_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    path.write_bytes(encode_line({**record("a"), "schema": 99}))
    with pytest.raises(StoreError, match="schema 99"):
        read_journal(path)


def test_shards_are_merged(tmp_path: Path) -> None:
    for shard, name in (("rank0", "b"), ("rank1", "a")):
        with RunStore(tmp_path, shard) as store:
            store.append(record(name))
    assert [one["id"] for one in read_records(tmp_path)] == ["a", "b"]


def test_a_second_writer_is_refused_and_a_dead_ones_lock_is_reclaimed(tmp_path: Path) -> None:
    code = f"""
        import os, sys
        from pathlib import Path
        from prh.harness.store import RunStore
        with RunStore(Path({str(tmp_path)!r})) as store:
            print("open", flush=True)
            sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=f"process {child.pid} is writing"), RunStore(tmp_path):
        pass
    child.kill()
    child.communicate()
    with RunStore(tmp_path) as store:
        store.append(record("a"))
    assert len(read_records(tmp_path)) == 1


def test_a_full_disk_is_one_line_and_earlier_records_are_intact(tmp_path: Path) -> None:
    code = f"""
        import resource, signal
        from pathlib import Path
        from prh.harness.errors import StoreError
        from prh.harness.store import RunStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with RunStore(Path({str(tmp_path)!r})) as store:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                for number in range(1000):
                    name = f"s{{number:04d}}"
                    rest = {{"end": "answered", "segments": [], "t": "x" * 300}}
                    store.append({{"schema": 1, "id": name, "repeat": 0, **rest}})
            except StoreError as error:
                print(number, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    count, _, message = done.stdout.partition(" ")
    assert "earlier records are intact" in message
    assert message.count("\n") == 1
    journal = read_journal(tmp_path / JOURNAL)
    assert journal.damaged == []
    assert [one["id"] for one in journal.records] == [f"s{number:04d}" for number in range(int(count))]
    assert int(count) > 5


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/prh-run"), tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match="choose another --out"), RunStore(folder):
            pass


def test_a_folder_removed_while_it_is_written_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunStore(folder) as store:
        store.append(record("a"))
        (folder / JOURNAL).unlink()
        with pytest.raises(StoreError, match="was removed"):
            store.append(record("b"))


def test_images_are_stored_once_by_content(tmp_path: Path) -> None:
    one = sample(image())
    box = crop(0.2, 0.2, 0.7, 0.7)
    first = episode([box, "\\boxed{A}"], one)
    second = episode([box, box, "\\boxed{A}"], sample(image(), id="s2"))
    with RunStore(tmp_path) as store:
        files = store.keep_media(first.conversation)
        again = store.keep_media(second.conversation)
    assert files[1] == again[1]
    assert files[2] == again[2] == again[3]
    assert (tmp_path / files[1][0]).read_bytes() == one.media[0].source
    assert len(list(tmp_path.glob("media/*/*"))) == 2


def test_a_crop_reads_back_pixel_for_pixel(tmp_path: Path) -> None:
    from PIL import Image

    trajectory = episode([crop(0.2, 0.2, 0.7, 0.7), "\\boxed{A}"])
    with RunStore(tmp_path) as store:
        files = store.keep_media(trajectory.conversation)
    with Image.open(tmp_path / files[2][0]) as kept:
        assert kept.convert("RGB").tobytes() == trajectory.conversation.pixels(2).seen[0].tobytes()


def test_a_video_is_kept_as_the_frames_that_were_seen(tmp_path: Path) -> None:
    trajectory = episode(["\\boxed{A}"], sample(video(tmp_path / "clip")))
    with RunStore(tmp_path / "run") as store:
        files = store.keep_media(trajectory.conversation)
    assert len(files[1]) == len(set(files[1])) == 16


def test_a_run_argument_means_a_run_or_the_runs_below_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run"):
        runs_below(tmp_path)
    for name in ("b", "a"):
        write_json(tmp_path / name / "run.json", {"schema": 1})
    assert [path.name for path in runs_below(tmp_path)] == ["a", "b"]
    assert runs_below(tmp_path / "a") == [tmp_path / "a"]


def test_any_concurrency_and_order_give_the_same_canonical_records(tmp_path: Path) -> None:
    samples = [sample(image(200 + i, 100), id=f"s{i:02d}") for i in range(40)]

    def script(conversation: object) -> str:
        number = int(conversation.sample_id[1:])  # type: ignore[attr-defined]
        turns = conversation.turns  # type: ignore[attr-defined]
        return crop(0.1, 0.1, 0.5 + number / 100, 0.9) if turns < number % 4 else f"\\boxed{{{'AB'[number % 2]}}}"

    results = []
    for concurrency in (1, 8, 64):
        salt = concurrency * 7919
        engine = ScriptedEngine(script, delay=lambda key, salt=salt: (hash((key, salt)) % 7) / 2000)  # type: ignore[misc]
        with RunStore(tmp_path / str(concurrency)) as store:
            jobs = pending(samples, 2, store)
            asyncio.run(run_all(jobs, engine, setting(), store, concurrency=concurrency))
        results.append([canonical(one) for one in read_records(tmp_path / str(concurrency))])
    assert len(results[0]) == 80
    assert json.dumps(results[0]) == json.dumps(results[1]) == json.dumps(results[2])


def test_canonical_drops_what_may_differ_and_nothing_else() -> None:
    one = to_record(episode([crop(0.2, 0.2, 0.7, 0.7), "\\boxed{A}"]), {})
    assert set(one) - set(canonical(one)) == {"usage", "seconds", "decoders"}
    segment: dict[str, Json] = {"role": "assistant", "parts": [], "finish": "stop"}
    spent: dict[str, Json] = {"seconds": 1.5, "new_tokens": 7, "logprobs": [-0.1]}
    assert canonical({**one, "segments": [{**segment, **spent}]})["segments"] == [segment]


def test_media_are_on_disk_before_the_record_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunStore.append

    def append(self: RunStore, value: Record) -> None:
        for item in value["media"]:  # type: ignore[union-attr]
            for name in item["files"]:  # type: ignore[index, call-overload, union-attr]
                assert (self.folder / name).is_file()  # type: ignore[operator]
        real(self, value)

    monkeypatch.setattr(RunStore, "append", append)
    with RunStore(tmp_path) as store:
        engine = ScriptedEngine(lambda c: crop(0.2, 0.2, 0.7, 0.7) if c.turns == 0 else "\\boxed{A}")
        asyncio.run(run_all(pending([sample()], 1, store), engine, setting(), store, concurrency=4))
    assert len(read_records(tmp_path)) == 1
    assert list(tmp_path.glob("media/*/*"))
