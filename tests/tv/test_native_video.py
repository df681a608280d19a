"""Videos shown whole: what the engine gives is what transformers' own processor and model give for the same video.

Needs the environment of ``make test-tv``, and says so by failing elsewhere.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
import torchvision
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.episode import run_episode
from prh.harness.errors import ModelError, Prerequisite
from prh.harness.ledger import MediaItem, MediaRef, Segment, Shown, Text
from prh.harness.media import Media
from prh.harness.settings import resolve
from prh.harness.store import read_manifest, read_records
from prh.harness.types import Box, Sample, Size
from prh.models.processor import torchvision_state
from prh.models.transformers_engine import TransformersFactory
from prh.tests.harness.test_cli import prh
from prh.tests.models import support
from prh.tests.models.support import conversation, endless, full_logits, model_of, noise, prompt_ids, reply, say, turns

HALVES = tuple(number / 2 for number in range(16))


def clip(engine, count, seed=0, *, wide=2, high=1):
    """Frames of noise, so many cells wide and high."""
    cell = engine.processor.factor
    return tuple(noise((wide * cell, high * cell), seed + number) for number in range(count))


def show(talk, frames, text, seconds=()):
    """Commit a user's message of one video and a text."""
    index, size = len(talk.items) + 1, Size(*frames[0].size)
    item = MediaItem(index, "video", "", "", size, size, 0, index, Box(0, 0, *size), 0, ("",) * len(frames))
    parts = (MediaRef(index), Text(text))
    talk.commit(Segment("user", parts), [item], [Shown(frames, frames, seconds=tuple(seconds))])


def asked(frames, text="What moves?", seconds=(), key="v#0"):
    talk = conversation(key)
    say(talk, "system", "Be brief.")
    show(talk, frames, text, seconds)
    return talk


def library(folder, frames, seconds, text="What moves?"):
    """The same messages as transformers' own processor prepares them, from the files of the checkpoint alone."""
    from transformers import AutoProcessor

    step = seconds[1] - seconds[0] if len(seconds) > 1 else 1.0
    moments = [round(1000 * second) for second in seconds]
    told = {"total_num_frames": round(1000 * step * len(frames)), "fps": 1000.0, "frames_indices": moments}
    content = [{"type": "video", "video": list(frames)}, {"type": "text", "text": text}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": content},
    ]
    options = {"do_sample_frames": False, "do_resize": False, "cap_pixels_per_frame": False, "video_metadata": [told]}
    return AutoProcessor.from_pretrained(folder).apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"videos_kwargs": options},
    )


def scratch(folder, view, ids):
    """Logits at every id from one forward over everything, with the positions that the model itself counts."""
    model = model_of(folder)
    tokens = torch.tensor([list(ids)])
    kinds = (tokens == model.config.image_token_id).int() + 2 * (tokens == model.config.video_token_id).int()
    with torch.inference_mode():
        return model(input_ids=tokens, mm_token_type_ids=kinds, **view.inputs, use_cache=False).logits[0]


def is_qwen3(folder):
    return model_of(folder).config.model_type.startswith("qwen3")


def test_this_environment_has_torchvision_that_works():
    assert torchvision_state() == "works"
    assert torchvision.__version__


def test_the_engine_says_that_it_shows_videos_whole(family):
    _, engine = family
    assert engine.caps.native_video
    assert engine.describe()["path"] == "fast"
    assert engine.describe()["video"] == "native"
    assert "video_reason" not in engine.describe()


@pytest.mark.parametrize(
    ("count", "seconds"),
    [
        (16, HALVES),
        (16, [1.6 * number for number in range(16)]),
        (16, [7 + 0.04 * number for number in range(16)]),
        (5, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (1, [0.0]),
    ],
)
def test_ids_positions_and_logits_are_those_of_the_library(family, monkeypatch, count, seconds):
    folder, engine = family
    frames = clip(engine, count)
    talk = asked(frames, seconds=seconds)
    own, view = library(folder, frames, seconds), engine.encode(talk)
    assert list(view.ids) == own["input_ids"][0].tolist()
    model = model_of(folder)
    grids = {name: own[name] for name in ("video_grid_thw", "second_per_grid_ts") if name in own}
    grids = {name: torch.as_tensor(value) for name, value in grids.items()}
    placed = model.model.get_rope_index(own["input_ids"], mm_token_type_ids=own["mm_token_type_ids"], **grids)[0]
    assert torch.equal(view.positions, placed[:, 0])
    assert torch.equal(view.inputs["video_grid_thw"], own["video_grid_thw"])
    assert torch.equal(view.inputs["pixel_values_videos"], own["pixel_values_videos"])
    with torch.inference_mode():
        wanted = model(**own, use_cache=False).logits[0, -1]
    with support.recorded_logits(monkeypatch) as seen:
        turns(engine, [(talk, TurnSpec(1, seed=1, banned_ids=endless(engine)))])
    assert (seen[1][0] - wanted).abs().max() < 1e-4


def test_the_video_changes_what_is_said(family, monkeypatch):
    _, engine = family
    frames = clip(engine, 8)
    with support.recorded_logits(monkeypatch) as seen:
        for seed, shown in enumerate((frames, frames[::-1], (*frames[:-1], frames[0]))):
            turns(engine, [(asked(shown), TurnSpec(1, seed=seed, banned_ids=endless(engine)))])
    assert (seen[0][0] - seen[1][0]).abs().max() > 1e-3
    assert (seen[0][0] - seen[2][0]).abs().max() > 1e-4


def test_frames_go_in_pairs_and_an_odd_last_one_is_shown_twice(family):
    _, engine = family
    frames = clip(engine, 5, wide=2, high=3)
    odd = engine.encode(asked(frames)).inputs
    even = engine.encode(asked((*frames, frames[-1]))).inputs
    assert odd["video_grid_thw"].tolist() == even["video_grid_thw"].tolist() == [[3, 6, 4]]
    assert torch.equal(odd["pixel_values_videos"], even["pixel_values_videos"])
    images = engine.processor.images
    singles = [support.patches(frame, images.patch_size, images.image_mean, images.image_std) for frame in frames]
    singles = [single.reshape(len(single), 3, 2, -1) for single in (*singles, singles[-1])]
    pairs = zip(singles[::2], singles[1::2], strict=True)
    by_hand = [np.stack([first[:, :, 0], second[:, :, 1]], axis=2) for first, second in pairs]
    by_hand = np.concatenate([pair.reshape(len(pair), -1) for pair in by_hand])
    assert np.abs(odd["pixel_values_videos"].numpy() - by_hand).max() < 1e-5


def test_the_ids_hold_one_token_a_visual_feature_and_the_time_where_the_family_writes_it(family):
    folder, engine = family
    frames, seconds = clip(engine, 5, wide=3, high=2), [0.0, 0.5, 1.3, 3.0, 3.9]
    view = engine.encode(asked(frames, seconds=seconds))
    token = engine.module.config.video_token_id
    inside = {place for start, end in view.spans for place in range(start, end)}
    assert {place for place, number in enumerate(view.ids) if number == token} == inside
    assert view.grids == ((3, 4, 6),)
    text = engine.processor.decode(view.ids).replace("<|video_pad|>" * 6, "#")
    if is_qwen3(folder):
        assert [end - start for start, end in view.spans] == [6, 6, 6]
        times = [f"<{time} seconds><|vision_start|>#<|vision_end|>" for time in ("0.2", "2.1", "3.9")]
        assert "".join(times) in text
    else:
        assert [end - start for start, end in view.spans] == [18]
        assert "<|vision_start|>###<|vision_end|>What moves?" in text


def test_steps_of_time_count_seconds_in_qwen25(built, opened):
    folder = built("qwen25")
    engine = opened(folder)
    rate = engine.module.config.vision_config.tokens_per_second
    for seconds, step in (
        ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 1.0),
        ([0.0, 2, 4, 6, 8, 10], 4.0),
        ((), 1.0),
        ([3] * 6, 0.0),
    ):
        view = engine.encode(asked(clip(engine, 6), seconds=seconds))
        (start, end) = view.spans[0]
        assert view.positions[0, start:end].tolist() == [start + int(rate * step * k) for k in range(3) for _ in "ab"]


def test_every_token_of_later_turns_is_that_of_a_forward_from_scratch(family, monkeypatch):
    """Selected frames and crops come as images after the video; the clip is so long that its steps pass the text."""
    folder, engine = family
    frames = clip(engine, 16)
    talk = asked(frames, "?", seconds=[9.0 * number for number in range(16)])
    with support.recorded_logits(monkeypatch) as seen:
        for seed, more in enumerate(((), (frames[0], frames[15]), (noise((3 * engine.processor.factor,) * 2, 5),))):
            if more:
                say(talk, "user", *more, "\nHere are the selected frames:")
            spec = TurnSpec(5, 0.9, seed=seed, banned_ids=endless(engine))
            view = engine.encode(talk)
            turn = turns(engine, [(talk, spec)])[0]
            whole = scratch(folder, view, (*view.ids, *turn.ids))[len(view.ids) - 1 : -1]
            assert (torch.stack(seen[seed]) - whole).abs().max() < 1e-4
            reply(talk, turn)
    assert view.inputs["image_grid_thw"].tolist() == [[1, 2, 4], [1, 2, 4], [1, 6, 6]]
    assert view.inputs["video_grid_thw"].tolist() == [[8, 2, 4]]
    assert view.grids == ((8, 2, 4), (1, 2, 4), (1, 2, 4), (1, 6, 6))
    assert view.exact
    if engine.module.config.model_type == "qwen2_5_vl":
        first = engine.encode(asked(frames, "?", seconds=[9.0 * number for number in range(16)]))
        assert first.positions.max() > first.positions[0, -1], "the clip must be long for this to try anything"


def test_a_batch_of_images_videos_and_text_is_what_each_is_alone(family, monkeypatch):
    _, engine = family
    rng = random.Random(4)
    plan = []
    for number in range(8):
        talk = conversation(f"c{number}#0")
        say(talk, "system", "s" * rng.randrange(9))
        for kind in rng.sample(("video", "image", "text", "video"), rng.randrange(1, 4)):
            shapes = {"wide": rng.randrange(1, 4), "high": rng.randrange(1, 3)}
            if kind == "video":
                show(talk, clip(engine, rng.randrange(1, 9), number, **shapes), "Look.")
            elif kind == "image":
                say(talk, "user", *clip(engine, rng.randrange(1, 3), number, **shapes), "And this?")
            else:
                say(talk, "user", "What?" * rng.randrange(1, 5))
        plan.append((talk, TurnSpec(6, 0.7, seed=number, banned_ids=endless(engine))))
    kinds = [{item.kind for item in talk.items} for talk, _ in plan]
    assert {"video"} in kinds
    assert {"video", "image"} in kinds
    with support.recorded_logits(monkeypatch) as seen:
        alone = [turns(engine, [one])[0].ids for one in plan]
        before = {seed: torch.stack(rows) for seed, rows in seen.items()}
        seen.clear()
        together = [turn.ids for turn in turns(engine, plan)]
        after = {seed: torch.stack(rows) for seed, rows in seen.items()}
    assert together == alone
    assert len(before) == len(after) == len(plan)
    for seed, rows in before.items():
        assert (rows - after[seed]).abs().max() < 1e-4


def test_videos_as_frames_are_what_they_are_without_torchvision(family, opened, monkeypatch):
    folder, native = family
    engine = opened(folder, "frames")
    assert not engine.caps.native_video
    assert engine.describe()["video"] == "frames"
    talk = asked(clip(engine, 5), seconds=HALVES[:5])
    ids = prompt_ids(folder, talk, engine.processor.factor)
    view = engine.encode(talk)
    assert list(view.ids) == ids
    assert set(view.inputs) == {"pixel_values", "image_grid_thw"}
    with support.recorded_logits(monkeypatch) as seen:
        turns(engine, [(talk, TurnSpec(1, seed=1, banned_ids=endless(engine)))])
    assert (seen[1][0] - full_logits(folder, talk, ids)[-1]).abs().max() < 1e-4
    assert view.ids != native.encode(talk).ids


def test_a_conversation_without_a_video_is_the_same_in_both(family, opened):
    folder, native = family
    talk = conversation()
    say(talk, "user", *clip(native, 2), "What?")
    say(talk, "assistant", "b")
    say(talk, "user", *clip(native, 1, 7), "And <|video_pad|> <|image_pad|>?")
    one, other = native.encode(talk), opened(folder, "frames").encode(talk)
    assert one.ids == other.ids
    assert torch.equal(one.positions, other.positions)
    assert set(one.inputs) == set(other.inputs)
    assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])


def test_a_video_token_in_a_text_or_a_reply_is_no_video(family):
    _, engine = family
    token = engine.module.config.video_token_id
    talk = asked(clip(engine, 2), "Say <|video_pad|>!")
    view = engine.encode(talk)
    assert sum(number == token for number in view.ids) == 2
    assert token in engine.vision_ids
    say(talk, "assistant", "x")
    talk.segments[-1] = dataclasses.replace(talk.segments[-1], ids=(token, engine._encoder.ends[0]))
    with pytest.raises(ModelError, match="3 image tokens stand for 2 visual tokens: a reply holds a stray one"):
        engine.encode(talk)


def test_a_video_at_another_size_than_it_is_seen_at_is_refused(family):
    _, engine = family
    cell = engine.processor.factor
    with pytest.raises(ModelError, match=rf"an image of {cell}x{cell + 1} is not a multiple of {cell}"):
        engine.encode(asked((noise((cell, cell + 1), 1),) * 2))


@pytest.mark.parametrize("change", [{"do_resize": True}, {"do_sample_frames": True, "num_frames": 4}])
def test_a_processor_that_resizes_or_samples_after_all_is_refused(family, monkeypatch, change):
    _, engine = family
    talk = asked(clip(engine, 8, wide=9, high=9), seconds=HALVES[:8])
    assert engine.encode(talk).grids == ((4, 18, 18),)
    videos = engine.processor.videos
    monkeypatch.setattr(videos, "_unasked", {**videos._unasked, **change})
    monkeypatch.setattr(videos._pixels, "fps", None, raising=False)
    with pytest.raises(ModelError, match=r"the video processor made grids .* whose grids are"):
        engine.encode(talk)


@pytest.mark.parametrize("video", ["native", "frames"])
def test_a_frames_number_means_the_same_however_the_video_is_shown(built, opened, tmp_path, video):
    engine = opened(built("qwen25"), video)
    paths = []
    for number in range(16):
        paths.append(tmp_path / f"{number:02}.png")
        noise((56, 56), number).save(paths[-1])
    sample = Sample("s", "Which?", (Media("video", "v", tuple(paths)),), ("A",), "option", ("x", "y"))
    setting = resolve([("prh.json", TransformersFactory().defaults("tiny"))], 0)
    said = [
        '<tool_call>\n{"name": "select_frames", "arguments": {"target_frames": [1, 16]}}\n</tool_call>',
        "\\boxed{A}",
    ]

    class Told:
        """Says what it is told, after the model has read everything."""

        caps, fingerprint, fit, release = engine.caps, engine.fingerprint, engine.fit, engine.release

        async def turn(self, talk, spec):
            real = await engine.turn(talk, dataclasses.replace(spec, max_new_tokens=1, banned_ids=endless(engine)))
            ids = engine.processor.encode(said[talk.turns], opening=False)
            ids = (*ids, engine._encoder.ends[0])
            return dataclasses.replace(real, text=said[talk.turns], ids=ids, logprobs=(0.0,) * len(ids), finish="stop")

    done = support.run(run_episode(sample, Told(), setting))
    talk = done.conversation
    assert (done.end, done.error) == ("answered", "")
    assert [item.frame for item in talk.items] == [0, 1, 16]
    assert [talk.pixels(2).working[0].tobytes(), talk.pixels(3).working[0].tobytes()] == [
        noise((56, 56), number).tobytes() for number in (0, 15)
    ]
    view = engine.encode(talk)
    assert view.exact
    cells = len(view.inputs["image_grid_thw"]), len(view.inputs.get("video_grid_thw", ()))
    assert cells == ((2, 1) if video == "native" else (18, 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"merge_size": 1}, "cells of 14 pixels in videos and 28 in images"),
        ({"video_processor_type": "NoSuchProcessor"}, "its video processor cannot be used"),
    ],
)
def test_a_video_processor_that_does_not_fit_is_not_used(built, tmp_path, values, message):
    for path in built("qwen25").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "video_preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    engine = TransformersFactory().open(str(tmp_path), EngineOptions())
    assert not engine.caps.native_video
    assert engine.describe()["video"] == "frames"
    assert message in engine.describe()["video_reason"]
    support.run(engine.close())
    with pytest.raises(Prerequisite, match=message) as caught:
        TransformersFactory().open(str(tmp_path), EngineOptions(extra={"video": "native"}))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or use engine.video=frames")


def test_an_evaluation_shows_videos_whole_and_records_it(built, cache, tmp_path):
    model = str(built("qwen25"))
    words = ["eval", "--model", model, "--task", "mvbench-mini", "--limit", "3", "--out"]
    shared = {"PRH_CACHE": str(cache)}
    found = {}
    for video, extra in (("native", []), ("frames", ["--set", "engine.video=frames"])):
        out = tmp_path / video
        assert "pixel cap" not in prh(*words, str(out), *extra, **shared).stderr
        manifest = read_manifest(out)
        assert manifest["engine"]["video"] == video
        assert manifest["identity"]["numerics"]["video"] == video
        records = read_records(out)
        assert len(records) == 3
        assert not any(record["error"] for record in records)
        found[video] = {record["id"]: record["usage"]["prompt_tokens"] / record["usage"]["turns"] for record in records}
    assert found["native"].keys() == found["frames"].keys()
    assert all(count < found["frames"][key] for key, count in found["native"].items())
    refused = prh(*words, str(tmp_path / "native"), "--set", "engine.video=frames", code=2, **shared)
    assert "was begun with another numerics.video: native, now frames" in refused.stdout + refused.stderr
    images = ["eval", "--model", model, "--task", "vstar-mini", "--limit", "1", "--out", str(tmp_path / "images")]
    prh(*images, **shared)
    assert "video" not in read_manifest(tmp_path / "images")["identity"]["numerics"]
