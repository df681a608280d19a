"""Whole syntheses: the same whatever runs at once and whenever it is killed, readable by all who read runs."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

import prh
import pytest
from prh.harness.engine import smart_resize
from prh.harness.errors import UsageError
from prh.harness.media import Media
from prh.harness.record import canonical, text_of, to_record
from prh.harness.settings import resolve
from prh.harness.store import decode_line, read_json, read_manifest, read_records
from prh.tests.training.making import canonicals, film, image_seed, made, png, setting, video_seed
from prh.training.config import read_recipe
from prh.training.export import export
from prh.training.known import Known, marks
from prh.training.recipe import SourcePart, read
from prh.training.released import read_message_list
from prh.training.schema import schema
from prh.training.synth import Order, synthesise
from prh.training.trajectories import perform, read_lessons

TINY = """
[synth]
grid = 0.1
frames = 4
overview = false
against = []

[setting]
padding = 0.0
budget = { input = [784, 19600], crop = [784, 19600], video_frame = [784, 7056], selected_frame = [784, 19600] }
"""
MIX = "mix = { single-pass = 2, recrop-once = 1, recrop-twice = 1, further-zoom = 1, text-only = 2, failed-once = 1 }"


def recipe(tmp_path, count=12, tasks=("vstar-mini",), head=TINY):
    parts = [
        f'[[source]]\nname = "miniature"\nlabel = "{task}"\ncount = {count}\nsettings = {{ task = "{task}" }}\n{MIX}\n'
        for task in tasks
    ]
    path = tmp_path / "recipe.toml"
    path.write_text(head + "\n".join(parts), encoding="utf-8")
    return path


def synth(path, out, concurrency=4):
    values, root = read_recipe(str(path))
    return synthesise(Order(read(values), root, out, concurrency))


@pytest.fixture(scope="module")
def minis(tmp_path_factory):
    """A synthesis from two miniatures, one of pictures and one of clips."""
    folder = tmp_path_factory.mktemp("minis")
    result = synth(recipe(folder, 14, ("vstar-mini", "mvbench-mini")), folder / "run", 1)
    return folder, result


def cli(*words, cwd=None, **values):
    command = [sys.executable, "-m", "prh", *map(str, words)]
    env = os.environ | values
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


# -- the same result ---------------------------------------------------------------------------------------------


def test_the_same_records_whatever_runs_at_once(minis):
    folder, _ = minis
    synth(folder / "recipe.toml", folder / "many", 9)
    assert canonicals(folder / "many") == canonicals(folder / "run")
    for name in ("yield.json", "README.md", "schema.json", "export/message_list.json", "scores/strict.jsonl"):
        assert (folder / "many" / name).read_bytes() == (folder / "run" / name).read_bytes(), name


def mixed_seeds(folder):
    """Good seeds among bad ones of every sort, so that there is more than one round."""
    for number in range(40):
        if number % 5 == 1:
            yield image_seed(number, (300, 200, 400, 300))
        elif number % 5 == 2:
            yield image_seed(number, media=(Media("image", "broken", b"?"),))
        elif number % 5 == 3:
            yield image_seed(number, notes={"target": "blue ball"})
        else:
            yield image_seed(number)


def test_refusals_are_made_good_in_the_same_way_whatever_runs_at_once(tmp_path):
    part = SourcePart("test", count=12)
    known = Known(where={marks(image_seed(4).sample.media[0]).content: "a set"})
    results = [
        made(tmp_path / str(at_once), mixed_seeds(tmp_path), part, known=known, concurrency=at_once)
        for at_once in (1, 3, 16)
    ]
    first, *others = [canonicals(tmp_path / str(at_once)) for at_once in (1, 3, 16)]
    assert len(first) == 12
    assert all(other == first for other in others)
    assert len({json.dumps(tally.json()) for tally, _ in results}) == 1
    assert {"evidence", "unreadable", "early-answer", "evaluated"} == set(results[0][0].refused)


def test_what_is_there_is_not_made_again(tmp_path):
    part = SourcePart("test", count=12)
    whole, _ = made(tmp_path / "whole", mixed_seeds(tmp_path), part)
    for kept in (0, 1, 5, 11):
        folder = tmp_path / f"kept{kept}"
        made(folder, mixed_seeds(tmp_path), part)
        lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "records.jsonl").write_bytes(b"".join(lines[:kept]) + (lines[kept][:40] if kept else b""))
        tally, _ = made(folder, mixed_seeds(tmp_path), part)
        assert canonicals(folder) == canonicals(tmp_path / "whole")
        assert tally.json() == whole.json()
        after = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
        assert after[:kept] == lines[:kept]


def test_killed_and_begun_again(tmp_path):
    path = recipe(tmp_path, 45)
    code, _, errors = cli("synth", path, "--out", tmp_path / "whole")
    assert code == 0, errors
    out, journal = tmp_path / "killed", tmp_path / "killed" / "records.jsonl"
    for least in (3, 14, 26):
        process = subprocess.Popen([sys.executable, "-m", "prh", "synth", path, "--out", out])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= least:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        assert process.wait() == -signal.SIGKILL
    with journal.open("ab") as file:
        file.write(b'{"crc":"00000000","sch')
    code, printed, errors = cli("synth", path, "--out", out)
    assert code == 0, errors
    assert "trajectories made before" in printed
    assert canonicals(out) == canonicals(tmp_path / "whole")
    lines = [decode_line(line) for line in journal.read_bytes().splitlines(keepends=True)]
    assert max(Counter((line["id"], line["repeat"]) for line in lines).values()) == 1
    for name in ("yield.json", "README.md", "export/message_list.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_manifest(out)["finished"]


def test_interrupted_it_says_how_to_go_on(tmp_path):
    path, out = recipe(tmp_path, 150), tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "prh", "synth", path, "--out", out], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "records.jsonl").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "goes on" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert read_manifest(out)["finished"] is None


def test_a_changed_recipe_does_not_go_on(minis, tmp_path):
    folder, _ = minis
    path = recipe(tmp_path, 15, ("vstar-mini", "mvbench-mini"))
    with pytest.raises(UsageError, match="recipe"):
        synth(path, folder / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="no run folder"):
        synth(path, tmp_path / "other")


# -- what is in it -----------------------------------------------------------------------------------------------


def test_every_record_performs_again(minis, tmp_path):
    folder, _ = minis
    made(tmp_path / "own", [image_seed(1), video_seed(film(tmp_path / "clip"), number=2)])
    of_recipe = resolve([("recipe", tomllib.loads(TINY)["setting"])], 0)
    for run, chosen in ((folder / "run", of_recipe), (tmp_path / "own", setting(padding=0.0))):
        records = {f"{record['id']}#{record['repeat']}": record for record in read_records(run)}
        lessons = read_lessons(run)
        assert len(lessons) == len(records)
        for lesson in lessons:
            again = asyncio.run(perform(lesson.sample, lesson.script, chosen, fit))
            repeated, record = json.loads(json.dumps(to_record(again, {}))), records[lesson.name]
            assert canonical(repeated)["segments"] == canonical(record)["segments"]
            assert repeated["operations"] == record["operations"]
            assert repeated["media"] == [{**item, "files": []} for item in record["media"]]


def fit(size, span):
    return smart_resize(size, span, 28)


def check(value, rules, place="record"):
    """What of JSON Schema 2020-12 the schema uses, and nothing else."""
    known = {"type", "enum", "const", "required", "properties", "additionalProperties", "items", "minItems", "maxItems"}
    known |= {"anyOf", "pattern", "minimum", "minLength", "$schema", "title", "description"}
    assert set(rules) <= known, set(rules) - known
    kinds = {
        "object": lambda v: isinstance(v, dict),
        "array": lambda v: isinstance(v, list),
        "string": lambda v: isinstance(v, str),
        "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        "boolean": lambda v: isinstance(v, bool),
        "null": lambda v: v is None,
    }
    allowed = rules.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    assert not allowed or any(kinds[kind](value) for kind in allowed), f"{place}: {value!r} is no {allowed}"
    assert "enum" not in rules or value in rules["enum"], f"{place}: {value!r}"
    assert "const" not in rules or value == rules["const"], f"{place}: {value!r}"
    assert not isinstance(value, str) or re.search(rules.get("pattern", ""), value), f"{place}: {value!r}"
    assert not isinstance(value, str) or len(value) >= rules.get("minLength", 0), place
    assert not isinstance(value, int | float) or value >= rules.get("minimum", value), f"{place}: {value!r}"
    if isinstance(value, list):
        assert rules.get("minItems", 0) <= len(value) <= rules.get("maxItems", 1 << 30), place
        for number, item in enumerate(value):
            check(item, rules.get("items", {}), f"{place}[{number}]")
    if isinstance(value, dict):
        assert set(rules.get("required", ())) <= set(value), f"{place}: {set(rules['required']) - set(value)}"
        properties = rules.get("properties", {})
        assert rules.get("additionalProperties", True) or set(value) <= set(properties), f"{place}: {set(value)}"
        for key, item in value.items():
            check(item, properties.get(key, {}), f"{place}.{key}")
    if "anyOf" in rules:
        assert any(valid(value, one) for one in rules["anyOf"]), f"{place}: {value!r}"


def valid(value, rules):
    with contextlib.suppress(AssertionError):
        check(value, rules)
        return True
    return False


def test_the_schema_holds_for_every_record(minis):
    folder, _ = minis
    rules = read_json(folder / "run" / "schema.json")
    assert rules == json.loads(json.dumps(schema()))
    records = read_records(folder / "run")
    for record in records:
        check(record, rules)
    for change in ({"gold": []}, {"provenance": {}}, {"inputs": [{"kind": "audio", "name": ""}]}, {"new": 1}):
        assert not valid({**records[0], **change}, rules), change


def test_provenance_says_who_made_what_of_what(minis):
    folder, _ = minis
    for record in read_records(folder / "run"):
        provenance = record["provenance"]
        assert provenance["source"] == "miniature"
        assert provenance["licence"] == "Apache-2.0"
        assert provenance["origin"]["split"] == "train"
        assert provenance["origin"]["sample"] in record["id"]
        assert provenance["teacher"]["name"] == "annotation"
        assert len(provenance["steps"]) == len(record["operations"])
        assert {"prh", "templates", "wording"} == set(provenance["versions"])


def test_every_kind_is_there_and_the_yield_says_so(minis):
    folder, result = minis
    assert result.records == 28
    (images, clips) = read_json_list(folder / "run" / "yield.json")
    assert (images["asked"], images["made"], clips["made"]) == (14, 14, 14)
    assert {"single-pass", "recrop-once", "recrop-twice", "further-zoom", "text-only", "failed-once"} == set(
        images["kinds"]
    )
    assert {"single-pass", "text-only", "failed-once"} == set(clips["kinds"])
    failed = [r for r in read_records(folder / "run") if r["provenance"]["template"] == "failed-once"]
    for record in failed:
        assert record["operations"][0]["error"] in ("out_of_bounds", "bad_index")
        assert [s["trained"] for s in record["segments"] if s["role"] == "assistant"] == [False, True, True]
        assert "Execution error" in text_of(record["segments"][3])


def read_json_list(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_card_names_sources_licences_teachers_and_what_was_compared(minis, tmp_path):
    folder, _ = minis
    text = (folder / "run" / "README.md").read_text(encoding="utf-8")
    assert "| miniature | vstar-mini | Apache-2.0 | 14 |" in text
    assert "without a model" in text
    assert "- `miniature`: train split of a synthetic miniature" in text
    assert "| none |  |  |  |" in text
    path = recipe(tmp_path, 2, head=TINY.replace("against = []", 'against = ["vstar-mini", "mvbench"]'))
    synth(path, tmp_path / "run")
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "| vstar-mini | test | 191 | 382 |" in text
    assert "**were not compared with**:\n\n- mvbench test" in text


def test_readers_of_runs_read_it(minis):
    folder, _ = minis
    frame = prh.load_records(folder / "run")
    assert len(frame) == 28
    assert set(frame["accuracy"]) == {1.0}
    name = read_records(folder / "run")[0]["id"]
    code, printed, _ = cli("show", folder / "run", name)
    assert code == 0
    assert "boxed" in printed


def test_the_export_is_read_as_released_data(minis, tmp_path):
    folder, _ = minis
    released = folder / "run" / "export"
    conversations = list(read_message_list(released / "message_list.json", released))
    records = read_records(folder / "run")
    assert [one.id for one in conversations] == [record["id"] for record in records]
    for one, record in zip(conversations, records, strict=True):
        assert [message.role for message in one.messages] == [segment["role"] for segment in record["segments"]]
        assert [message.text for message in one.messages] == [text_of(segment) for segment in record["segments"]]
        opening = read_json_list(released / "message_list.json")[0]["message_list"][1]["content"]
        assert list(opening[0]) == ["text"]
        media = [medium for message in one.messages for medium in message.media]
        assert len(media) == len(record["media"])
        assert [medium.kind == "video" for medium in media] == [item["kind"] == "video" for item in record["media"]]
    code, printed, _ = cli("synth", "--export", tmp_path / "again", folder / "run")
    assert code == 0
    assert "28 trajectories" in printed
    again = (tmp_path / "again" / "message_list.json").read_bytes()
    assert again == (released / "message_list.json").read_bytes()
    assert export(folder / "run", tmp_path / "again") == 28


def test_media_of_a_record_are_kept_once_and_lead_nowhere_else(minis):
    folder, _ = minis
    for record in read_records(folder / "run"):
        names = [name for item in record["media"] for name in item["files"]]
        names += [entry["file"] for entry in record["inputs"]]
        assert all(re.fullmatch(r"media/[0-9a-f]{2}/[0-9a-f]{64}\.(png|webp|mp4)", name) for name in names)
        assert all((folder / "run" / name).is_file() for name in names)


def test_a_seed_may_be_used_more_than_once(tmp_path):
    part = SourcePart("test", count=9, each=3)
    tally, records = made(tmp_path / "run", [image_seed(number) for number in range(4)], part)
    assert Counter(record["repeat"] for record in records) == {0: 4, 1: 4, 2: 1}
    assert tally.offered == 9
    fewer, records = made(tmp_path / "fewer", [image_seed(0)], part)
    assert sum(fewer.made.values()) == 3
    assert len({record["provenance"]["template"] for record in records}) > 1


# -- recipes and the command line --------------------------------------------------------------------------------


def test_other_protocols_and_coordinates(tmp_path):
    """The release reads a box that touches 1.0 as pixels: no box shows what lies at the image's edge."""
    seeds = [image_seed(number, (290, 200, 318, 238) if number % 2 else (100, 80, 140, 110)) for number in range(6)]
    chosen = setting("pixel-reasoner-released", padding=0.0)
    tally, records = made(tmp_path / "run", seeds, SourcePart("test", mix={"single-pass": 1}), chosen=chosen)
    assert len(records) == 3
    assert tally.refused == {"unfit": {"": 3}}
    for record in records:
        left, top, right, bottom = record["operations"][0]["root_box"]
        assert 60 <= left <= 100  # a cell more than the evidence on each side: the resized crop must be large enough
        assert 40 <= top <= 80
        assert 140 <= right <= 194
        assert 110 <= bottom <= 146


@pytest.mark.parametrize("name", ["synth-mini", "synth-paper"])
def test_the_recipes_of_the_package_are_read(name):
    values, _ = read_recipe(name)
    parts = read(values).source
    assert all(part.split == "train" for part in parts)
    if name == "synth-paper":
        text = sum(part.count for part in parts if set(part.weights()) == {"text-only"})
        assert (sum(part.count for part in parts), text) == (7500, 2000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[synth]\nsede = 1", "`synth.sede` is not a setting; use seed"),
        ("[synth]\ngrid = 0.3", "grid"),
        ("[synth]\nfor = 1", "must be a text"),
        ("[setting]\npading = 0.1", "padding"),
        ('[[source]]\nname = "miniatur"', "did you mean miniature"),
        ('[[source]]\nname = "miniature"\nteacher = "anotation"', "use annotation"),
        ('[[source]]\nname = "miniature"\nmix = { recrop = 1 }', "recrop-once"),
        ('[[source]]\nname = "miniature"\nsplit = "test"', "no training split"),
        ('[[source]]\nname = "miniature"\nsettings = { edition = 1 }', "use editions"),
        ('[[source]]\nname = "miniature"\nsettings = { task = "vstar" }', "no synthetic miniature"),
        ('[[source]]\nname = "miniature"\nteacher = "endpoint"', "teacher.endpoint.model"),
        ('[[source]]\nname = "miniature"\n[[source]]\nname = "miniature"', "label"),
        ('[[source]]\nname = "miniature"\nlabels = "x"', "use label"),
        ("", "source"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_in_one_line(tmp_path, text, says):
    path = tmp_path / "recipe.toml"
    path.write_text(text if "[[source]]" in text or not text else f'{text}\n[[source]]\nname = "miniature"\n')
    with pytest.raises(UsageError) as caught:
        synth(path, tmp_path / "run")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_setting_of_a_checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "prh.json").write_text(json.dumps({"padding": 0.03, "limits": {"turns": 7}}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 16, "merge_size": 2}))
    from prh.training.recipe import factor_of, setting_of

    values = {"synth": {"for": str(folder)}, "source": [{"name": "miniature"}], "setting": {"limits": {"turns": 6}}}
    chosen = read(values)
    setting = setting_of(chosen)
    assert (setting.protocol.padding, setting.limits.turns, factor_of(chosen)) == (0.03, 6, 32)
    assert factor_of(read({"source": [{"name": "miniature"}]})) == 28


def test_the_command_line(tmp_path):
    code, printed, errors = cli("synth", "synth-mini", cwd=tmp_path)
    assert code == 2
    assert "--out" in errors
    code, printed, _ = cli("list", "sources", "--json")
    assert code == 0
    assert "miniature" in json.loads(printed)["sources"]
    path = recipe(tmp_path, 3)
    code, printed, _ = cli("synth", path, "--out", tmp_path / "run", "--limit", 2, "--set", "synth.seed=5")
    assert code == 0
    assert "2/2 made" in printed
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert {record["provenance"]["seed"] for record in read_records(tmp_path / "run")} == {5}


def test_help_loads_no_torch():
    code = (
        "import sys; from prh.training import synth_commands; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_bar_on_a_terminal(monkeypatch):
    from prh.training.synth_commands import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    bar = Progress()
    bar.begun("mini", 2)
    bar.last = 0.0
    bar.finished("mini", {"id": "a"}, None)
    bar.finished("mini", {"id": "b"}, None)
    assert "[###############               ] mini: 1/2 made" in screen.getvalue()
    assert screen.getvalue().endswith("\n")


def test_paths_of_a_recipe_begin_where_it_stands(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(png(seed=1))
    row = {
        "id": "a",
        "image": "a.png",
        "question": "Which?",
        "answer": "5",
        "box": [100, 80, 140, 110],
        "box_unit": "pixels",
        "split": "train",
    }
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps(row) + "\n")
    source = '[[source]]\nname = "jsonl"\ndata = "data"\nmix = { single-pass = 1 }\n'
    (tmp_path / "recipe.toml").write_text(TINY + source)
    result = synth(Path(tmp_path / "recipe.toml"), tmp_path / "run")
    assert result.records == 1
