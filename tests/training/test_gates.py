"""Each gate refuses what it is there for, and lets the rest through."""

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from prh.harness.digests import cache_dir
from prh.harness.errors import UsageError
from prh.harness.media import Media
from prh.harness.types import Box, Evidence, Size
from prh.tests.training.making import film, image_seed, made, png, scene, setting, shop, video_seed
from prh.training import synthesis
from prh.training.gates import Refused, check_evidence, check_performed, check_script, check_split, stated
from prh.training.inputs import keep_inputs
from prh.training.known import Known, know, marks
from prh.training.recipe import SourcePart
from prh.training.synthesis import check_answer
from prh.training.templates import Analyses, Plan, Step
from prh.training.trajectories import Said


def refused(folder, seed, mix=None, **values):
    """The gate that refuses a seed, with its reason."""
    tally, records = made(folder, [seed], SourcePart("test", mix=mix or {"single-pass": 1}), **values)
    assert not records
    assert not tally.made
    (gate,) = tally.refused
    return gate, tally.examples[gate][0]


def saying(monkeypatch, overview="", finding="It is blue.", reply=""):
    async def write(self, case):
        return Analyses(overview, finding, reply)

    monkeypatch.setattr("prh.training.teachers.annotation.Annotation.write", write)


def test_a_good_seed_passes_every_gate(tmp_path):
    tally, records = made(tmp_path, [image_seed()])
    assert len(records) == 1
    assert not tally.refused


@pytest.mark.parametrize("split", ["test", "val", "validation", "dev", "minival", "testmini", "", "untrained", "eval"])
def test_only_training_splits(split):
    with pytest.raises(UsageError, match="no training split"):
        check_split(split, "test")


@pytest.mark.parametrize("split", ["train", "Train", "training", "train_2021", "train-00"])
def test_training_splits(split):
    check_split(split, "test")


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence(box=Box(300, 200, 340, 230)), "not within"),
        (Evidence(box=Box(-9, 0, 10, 10)), "not within"),
        (Evidence(box=Box(50, 50, 50, 90)), "not within"),
        (Evidence(media=2, box=Box(1, 1, 9, 9)), "media 2"),
        (Evidence(frames=(3,)), "frames of an image"),
    ],
)
def test_evidence_lies_within_its_image(tmp_path, evidence, reason):
    gate, text = refused(tmp_path, image_seed(evidence=(evidence,)))
    assert gate == "evidence"
    assert reason in text


def test_evidence_frames_are_frames_of_the_video(tmp_path):
    gate, text = refused(tmp_path, video_seed(film(tmp_path / "clip"), (15, 17)))
    assert gate == "evidence"
    assert "17" in text


def test_evidence_in_two_images_cannot_be_shown_by_one_call():
    two = image_seed(media=(Media("image", "a", png(seed=1)), Media("image", "b", png(seed=2))))
    boxes = (Evidence(1, Box(1, 1, 9, 9)), Evidence(2, Box(1, 1, 9, 9)))
    with pytest.raises(Refused, match="several media"):
        check_evidence(replace(two.sample, evidence=boxes), [Size(320, 240)] * 2)


def test_media_that_cannot_be_decoded(tmp_path):
    gate, text = refused(tmp_path, image_seed(media=(Media("image", "broken.png", b"no image"),)))
    assert gate == "unreadable"
    assert "broken.png" in text


def test_an_image_that_is_evaluated_is_known_by_its_file_and_by_its_pixels(tmp_path):
    seed = image_seed(5)
    (media,) = seed.sample.media
    found = marks(media)
    again = io.BytesIO()
    Image.open(io.BytesIO(media.source)).save(again, "BMP")
    other = image_seed(media=(Media("image", "other.bmp", again.getvalue()),))
    assert marks(other.sample.media[0]).content != found.content
    for number, (known, one) in enumerate([({found.content: "set"}, seed), ({found.pixels[0]: "set"}, other)]):
        gate, text = refused(tmp_path / str(number), one, known=Known(where=known))
        assert gate == "evaluated"
        assert "is in set" in text
    _, records = made(tmp_path / "free", [image_seed(6)], known=Known(where={found.content: "set"}))
    assert len(records) == 1


def test_a_video_that_is_evaluated_is_known_by_any_frame_that_is_not_plain(tmp_path):
    media, other = film(tmp_path / "one", 1), film(tmp_path / "two", 2)
    (tmp_path / "two" / "003.png").write_bytes((tmp_path / "one" / "007.png").read_bytes())
    known = Known(where=dict.fromkeys(marks(media).pixels, "set"))
    assert known.holds(marks(other)) == "set"
    for folder in ("three", "four"):
        film(tmp_path / folder, 3 + len(folder))
        buffer = io.BytesIO()
        Image.new("RGB", (112, 84)).save(buffer, "PNG")
        (tmp_path / folder / "000.png").write_bytes(buffer.getvalue())
    black = [film_of(tmp_path / folder) for folder in ("three", "four")]
    assert not Known(where=dict.fromkeys(marks(black[0]).pixels, "set")).holds(marks(black[1]))


def film_of(folder: Path) -> Media:
    return Media("video", folder.name, tuple(sorted(folder.iterdir())))


def test_the_window_of_a_video_does_not_hide_it(tmp_path):
    media = film(tmp_path / "one", 1)
    cut = replace(media, start=0.0, end=1.0, fps=8.0, frames=4)
    assert Known(where={marks(media).content: "set"}).holds(marks(cut)) == "set"


def test_a_seed_without_room_for_its_mix(tmp_path):
    gate, text = refused(tmp_path, image_seed(box=(0, 0, 320, 240)), {"recrop-once": 1, "further-zoom": 1})
    assert gate == "unfit"
    assert "recrop-once" in text


def test_a_seed_without_a_question_needs_a_teacher_that_proposes(tmp_path):
    gate, text = refused(tmp_path, image_seed(question=""))
    assert gate == "teacher"
    assert "endpoint" in text


@pytest.mark.parametrize(
    "overview",
    ["The ball is blue.", "It is BLUE", r"So \boxed{B}", "The answer is B.", "I think option (B) fits.", "Answer: B"],
)
def test_an_answer_before_its_evidence(tmp_path, monkeypatch, overview):
    saying(monkeypatch, overview)
    gate, text = refused(tmp_path, image_seed())
    assert gate == "early-answer"
    assert "turn 1" in text


def test_an_answer_between_a_wide_crop_and_the_cue(tmp_path, monkeypatch):
    seed = image_seed(notes={"target": "blue ball"})
    gate, _ = refused(tmp_path, seed, {"further-zoom": 1})
    assert gate == "early-answer"


@pytest.mark.parametrize(
    ("text", "gold", "kind", "early"),
    [
        ("There are 3 cups.", "3", "integer", "3"),
        ("There are 13 cups.", "3", "integer", ""),
        ("Three cups stand there.", "3", "integer", "three"),
        ("The label reads OIL.", "oil", "text", "oil"),
        ("The foil shines.", "oil", "text", ""),
        ("A cup stands there.", "A", "text", "A"),
        ("Here is a cup.", "A", "text", ""),
        ("Now I will zoom in to look closer at the cup.", "I", "text", ""),
        ("The cup is at [0.3, 0.1, 1, 0.5].", "3", "integer", ""),
        ("The cup is at [0.3, 0.1]: 3.", "3", "integer", "3"),
        ("It costs 4.50 $.", "4.50 $", "text", "4.50 $"),
    ],
)
def test_what_states_an_answer(text, gold, kind, early):
    sample = replace(image_seed().sample, gold=(gold,), answer_kind=kind, choices=())
    assert stated(text, sample) == early


def test_what_the_question_names_gives_nothing_away():
    sample = replace(image_seed().sample, question="What colour is the blue box's lid?")
    script = (Said("Look at the blue box.\n<tool_call>{}</tool_call>"), Said(r"It is blue. \boxed{B}"))
    plan = Plan("single-pass", (Step("cue", "crop_image", {}),))
    check_script(script, plan, sample, ["blue box"])
    with pytest.raises(Refused, match="blue"):
        check_script(script, plan, sample, ["green box"])


@pytest.mark.parametrize("tag", ["<tool_call>", "</tool_call>", "<|im_end|>", "<|image_pad|>", "<tools>"])
def test_tags_in_what_is_said(tmp_path, monkeypatch, tag):
    saying(monkeypatch, finding=f"It is blue {tag}")
    gate, text = refused(tmp_path, image_seed())
    assert gate == "teacher"
    assert tag in text


def test_a_crop_that_misses_the_evidence(tmp_path, monkeypatch):
    real = synthesis.draw

    def aside(kind, shown, rng):
        plan = real(kind, shown, rng)
        moved = replace(plan.steps[-1], arguments={"bbox_2d": [0.5, 0.5, 0.9, 0.9], "target_image": 1})
        return Plan(plan.kind, (*plan.steps[:-1], moved))

    monkeypatch.setattr(synthesis, "draw", aside)
    gate, text = refused(tmp_path, image_seed())
    assert gate == "unseen"
    assert "nothing of the evidence" in text


def test_a_wrong_crop_that_shows_the_evidence(tmp_path, monkeypatch):
    real = synthesis.draw

    def same(kind, shown, rng):
        plan = real(kind, shown, rng)
        return Plan(plan.kind, (replace(plan.steps[-1], part="wrong"), plan.steps[-1]))

    monkeypatch.setattr(synthesis, "draw", same)
    gate, text = refused(tmp_path, image_seed(), {"recrop-once": 1})
    assert gate == "unseen"
    assert "a wrong call shows all" in text


def test_wrong_frames_that_show_the_evidence_and_right_ones_that_miss_an_event(tmp_path):
    class Fake:
        error = None
        frames = (5, 9)
        root_box = None

    seed = video_seed(film(tmp_path / "clip"), (5, 6, 12, 13))
    shown = scene(seed)
    for part, text in (("wrong", "shows part"), ("cue", "shows part")):
        plan = Plan("single-pass", (Step(part, "select_frames", {}),))
        trajectory = type("T", (), {"operations": [Fake()], "conversation": None})()
        with pytest.raises(Refused, match=text):
            check_performed(trajectory, plan, shown)


def test_a_call_that_is_to_fail_and_does_not(tmp_path, monkeypatch):
    real = synthesis.draw

    def harmless(kind, shown, rng):
        plan = real(kind, shown, rng)
        return Plan(plan.kind, (replace(plan.steps[-1], part="failing"), plan.steps[-1]))

    monkeypatch.setattr(synthesis, "draw", harmless)
    gate, text = refused(tmp_path, image_seed(), {"failed-once": 1})
    assert gate == "performed"
    assert "to fail" in text


def test_a_trajectory_that_cannot_be_performed(tmp_path):
    gate, text = refused(tmp_path, image_seed(), chosen=setting(padding=0.0, limits={"turns": 1}))
    assert gate == "performed"
    assert "turn_limit" in text


@pytest.mark.parametrize("finding", [r"It is red. \boxed{A} It is not."])
def test_a_last_turn_with_another_answer(tmp_path, monkeypatch, finding):
    saying(monkeypatch, reply=finding)
    gate, text = refused(tmp_path, image_seed(), {"text-only": 1})
    assert gate == "answer"
    assert "'A'" in text


def test_a_seed_without_an_answer():
    with pytest.raises(Refused, match="no accepted answer"):
        check_answer(shop().profile, replace(image_seed().sample, gold=()), r"\boxed{B}", "")


def test_inputs_are_kept_as_they_came_and_once(tmp_path):
    file = tmp_path / "film.MP4"
    file.write_bytes(b"as it came")
    media = [Media("video", "film", file, 1.5, 4.0, frames=8), Media("image", "../../x.png", png(seed=3))]
    entries = keep_inputs(tmp_path / "run", media)
    assert entries == keep_inputs(tmp_path / "run", media)
    assert (tmp_path / "run" / entries[0]["file"]).read_bytes() == b"as it came"
    assert entries[0]["file"].endswith(".mp4")
    assert entries[0]["start"] == 1.5
    assert entries[0]["frames"] == 8
    assert (tmp_path / "run" / entries[1]["file"]).read_bytes() == png(seed=3)
    assert len(list((tmp_path / "run").rglob("*.*"))) == 2


def test_what_is_at_hand_is_compared_and_what_is_not_is_named(tmp_path):
    for path in (cache_dir() / "known").glob("*.json"):
        path.unlink(missing_ok=True)
    seen = []
    known = asyncio.run(know(["vstar-mini", "vstar"], lambda *words: seen.append(words)))
    assert [(one["task"], one["split"], one["samples"]) for one in known.compared] == [("vstar-mini", "test", 191)]
    assert known.compared[0]["digests"] == 2 * 191
    assert [(one["task"], one["split"]) for one in known.absent] == [("vstar", "test")]
    assert seen
    seen.clear()
    assert asyncio.run(know(["vstar-mini"], lambda *words: seen.append(words))).where == known.where
    assert not seen  # the digests were kept
    with pytest.raises(UsageError, match="unknown task"):
        asyncio.run(know(["vstar-tiny"], lambda *words: None))
