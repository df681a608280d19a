"""Videos where no video processor works: shown as frames, said so, and refused in one line where asked for whole.

What a working one gives is tried in ``tests/tv``; here a stand-in for it shows how videos are laid out and counted.
"""

from pathlib import Path

import pytest
import torch
from prh.harness.engine import EngineOptions
from prh.harness.errors import ModelError, Prerequisite, UsageError
from prh.harness.store import read_manifest, read_records
from prh.models import native_video
from prh.models.encode import Encoder
from prh.models.render import Renderer
from prh.models.transformers_engine import TransformersFactory
from prh.models.visual import Video
from prh.tests.harness.test_cli import prh
from prh.tests.models.support import conversation, noise, prompt_ids, run, say

CELL = 28


@pytest.fixture(params=["absent", "broken: RuntimeError: operator torchvision::nms does not exist"])
def without(request, monkeypatch):
    monkeypatch.setattr(native_video, "torchvision_state", lambda: request.param)
    return request.param


def open_tiny(**extra):
    return TransformersFactory().open("tiny", EngineOptions(extra=extra))


@pytest.mark.parametrize("extra", [{}, {"video": "auto"}, {"video": "frames"}])
def test_a_video_is_shown_as_its_frames_and_the_engine_says_so(qwen25, without, extra):
    engine = open_tiny(**extra)
    said = engine.describe()
    assert not engine.caps.native_video
    assert said["video"] == "frames"
    if extra.get("video") == "frames":
        assert "video_reason" not in said
    else:
        assert f"needs torchvision, which is {without}; install the one built for torch {torch.__version__}" in str(
            said["video_reason"]
        )
    talk = conversation()
    say(talk, "user", [noise((CELL, CELL), 1), noise((CELL, CELL), 2)], "What moves?")
    say(talk, "user", "and?")
    written = engine.processor.decode(engine.encode(talk).ids)
    assert written.count("<|vision_start|><|image_pad|><|vision_end|>") == 2
    assert "<|video_pad|>" not in written
    run(engine.close())


def test_asking_for_videos_whole_is_refused_in_one_line_that_says_what_to_install(cache, without):
    with pytest.raises(Prerequisite) as caught:
        open_tiny(video="native")
    said = str(caught.value)
    assert said.startswith("engine.video=native: the video processor of tiny-")
    assert f"needs torchvision, which is {without}; install the one built for torch {torch.__version__}" in said
    assert said.endswith("; or use engine.video=frames")
    assert "\n" not in said


def test_another_family_shows_frames_and_refuses_to_show_videos_whole(built):
    folder = str(built("llava"))
    with pytest.raises(Prerequisite, match="videos of the family llava are shown as images"):
        TransformersFactory().open(folder, EngineOptions(extra={"video": "native"}))
    engine = TransformersFactory().open(folder, EngineOptions())
    assert engine.describe()["video"] == "frames"
    run(engine.close())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"video": "whole"}, "engine.video 'whole' is not known: use one of auto, native, frames"),
        ({"factor": "28"}, "the engine transformers has no option 'factor'; it has video"),
    ],
)
def test_options_that_do_not_exist_are_refused(extra, message):
    with pytest.raises(UsageError, match=message):
        open_tiny(**extra)


def test_an_evaluation_without_torchvision_records_frames_and_is_another_than_one_with(cache, tmp_path: Path):
    """A torchvision that does not import stands in for none, wherever this runs."""
    (tmp_path / "path" / "torchvision").mkdir(parents=True)
    (tmp_path / "path" / "torchvision" / "__init__.py").write_text("raise ImportError('no such torch')\n")
    shared = {"PYTHONPATH": str(tmp_path / "path")}
    words = ["eval", "--model", "tiny", "--task", "mvbench-mini", "--limit", "1", "--out", str(tmp_path / "run")]
    refused = prh(*words, "--set", "engine.video=native", code=2, **shared)
    said = [line for line in refused.stderr.splitlines() if "engine.video=native" in line]
    assert len(said) == 1
    assert "which is broken: ImportError: no such torch; install the one built for torch" in said[0]
    assert not (tmp_path / "run").exists()
    prh(*words, **shared)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["engine"]["video"] == "frames"
    assert "no such torch" in manifest["engine"]["video_reason"]
    assert manifest["identity"]["numerics"]["video"] == "frames"
    assert [record["error"] for record in read_records(tmp_path / "run")] == [None]


class StandIn:
    """Videos whole, as Qwen3-VL writes them: pairs of frames with the time before each, one id a cell."""

    token = "<|video_pad|>"  # noqa: S105 - a token of text

    def __init__(self, processor):
        self.token_id = processor.tokenizer.convert_tokens_to_ids(self.token)

    def written(self, video):
        cells = self.runs(video)[0]
        return "".join(f"<{time} s><|vision_start|>{self.token * cells}<|vision_end|>" for time in video.seconds[::2])

    def runs(self, video):
        width, height = video.frames[0].size
        return [width * height // CELL**2] * -(-len(video.frames) // 2)

    def tensors(self, videos):
        grids = [[len(self.runs(v)), v.frames[0].height // 14, v.frames[0].width // 14] for v in videos]
        return {"video_grid_thw": torch.tensor(grids)}


@pytest.fixture
def whole(qwen25, opened):
    """An encoder of the tiny checkpoint that shows videos whole, and what it gave to the rule for positions."""
    engine, given = opened(qwen25), []
    engine = TransformersFactory().open("tiny", EngineOptions(extra={"video": "frames"}))
    processor = engine.processor
    processor.show_whole(StandIn(processor))

    def places(ids, kinds, inputs):
        given.append((kinds, inputs))
        return torch.arange(ids.shape[1]).expand(3, 1, -1)

    renderer = Renderer(processor.render, processor.image_token, processor.special, processor.video_token)
    yield Encoder(processor, renderer, engine._encoder.ends, places), given
    run(engine.close())


def film(talk, count, text, *, wide=1, seconds=()):
    frames = [noise((wide * CELL, CELL), number) for number in range(count)]
    say(talk, "user", frames, text)
    index = len(talk.items)
    talk.shown[index - 1] = type(talk.shown[index - 1])(tuple(frames), tuple(frames), seconds=tuple(seconds))


def test_a_whole_video_is_one_part_with_its_own_runs_grid_and_kind(whole):
    encoder, given = whole
    talk = conversation()
    say(talk, "system", "s")
    film(talk, 4, "a <|video_pad|> b", wide=2, seconds=(0, 1, 2, 3))
    say(talk, "user", noise((CELL, 2 * CELL), 9), "c")
    film(talk, 2, "d", seconds=(7, 8))
    view = encoder.encode(talk)
    text = encoder.processor.decode(view.ids)
    pads = "<|video_pad|>"
    assert f"<|vision_start|><0 s><|vision_start|>{pads * 2}<|vision_end|><2 s><|vision_start|>{pads * 2}" in text
    assert f"<7 s><|vision_start|>{pads}<|vision_end|><|vision_end|>d" in text
    assert "a <|video_pad|> b" in text
    assert view.grids == ((2, 2, 4), (1, 4, 2), (1, 2, 2))
    assert [end - start for start, end in view.spans] == [2, 2, 2, 1]
    kinds, inputs = given[0]
    assert [kinds[0, start].item() for start, _ in view.spans] == [2, 2, 1, 2]
    assert int((kinds == 2).sum()) == 5
    assert set(inputs) == {"pixel_values", "image_grid_thw", "video_grid_thw"}
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 2]]
    assert isinstance(encoder.renderer.layout(talk).media[0], Video)


def test_a_template_that_shows_media_in_another_order_or_not_at_all_is_refused(whole, monkeypatch):
    encoder, _ = whole
    talk = conversation()
    film(talk, 2, "a", seconds=(0, 1))
    say(talk, "user", noise((CELL, CELL), 9), "c")
    real = encoder.processor.template
    monkeypatch.setattr(encoder.processor, "template", real.replace("<|video_pad|>", ""))
    with pytest.raises(ModelError, match="shows 1 of 2 images and videos: it cannot hold this message"):
        encoder.encode(talk)
    swapped = real.replace("<|video_pad|>", "?").replace("<|image_pad|>", "<|video_pad|>").replace("?", "<|image_pad|>")
    monkeypatch.setattr(encoder.processor, "template", swapped)
    with pytest.raises(ModelError, match="shows images and videos in another order"):
        encoder.encode(talk)


def test_images_are_as_before_where_videos_are_shown_whole(whole, qwen25):
    encoder, _ = whole
    talk = conversation()
    say(talk, "system", "s")
    say(talk, "user", noise((CELL, 2 * CELL), 9), "c")
    assert list(encoder.encode(talk).ids) == prompt_ids(qwen25, talk, CELL)
