"""The embedded checkpoint: the same bytes every time, ordinary files, the protocols' texts in few tokens."""

import json
import threading

import pytest
from prh.harness.operations import CropImage, SelectFrames
from prh.harness.protocols import Direct, PixelReasoner
from prh.harness.types import Sample
from prh.models import tiny
from prh.models.processor import quiet
from prh.models.vocabulary import fixed_texts
from prh.tests.models.support import conversation, noise, say, tokenizer_of

TOOLED = PixelReasoner((CropImage(), SelectFrames()))


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_built_to_the_byte_twice(qwen25, tmp_path):
    tiny.build(tmp_path)
    cached = files(qwen25)
    del cached["files.json"]
    assert files(tmp_path) == cached
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "prh.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
    } == set(cached)


def test_its_classes_are_the_real_ones_and_its_settings_those_that_learn(qwen25):
    from transformers import AutoModelForImageTextToText

    with quiet():
        model, report = AutoModelForImageTextToText.from_pretrained(qwen25, output_loading_info=True)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 3e6
    text, vision = model.config.text_config, model.config.vision_config
    assert text.rope_parameters["rope_theta"] == 200
    assert text.rope_parameters["mrope_section"] == [0, *[1] * 16, 0]
    assert text.hidden_size // text.num_attention_heads == 32
    assert (text.hidden_size, text.num_hidden_layers, text.intermediate_size) == (128, 4, 384)
    assert (vision.depth, vision.hidden_size, vision.fullatt_block_indexes) == (3, 128, [0, 1, 2])
    assert text.initializer_range == vision.initializer_range == 0.08
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert float(weight.detach().std()) == pytest.approx(0.08, rel=0.02)
    assert model.generation_config.eos_token_id == [text.eos_token_id, text.pad_token_id]


@pytest.mark.parametrize("protocol", [TOOLED, PixelReasoner((CropImage(),)), Direct()])
def test_a_prompt_costs_few_tokens_besides_its_image_and_its_text_is_the_protocols(qwen25, opened, protocol):
    engine = opened(qwen25)
    question = protocol.question(Sample("", "What color is the square?", (), (), "option", ("red", "blue")))
    talk = conversation()
    say(talk, "system", protocol.system_prompt())
    say(talk, "user", noise((140, 140), 1), question)
    view = engine.encode(talk)
    assert view.spans[0][1] - view.spans[0][0] == 25
    assert len(view.ids) - 25 <= 50
    text = engine.processor.decode(view.ids)
    assert f"system\n{protocol.system_prompt()}<|im_end|>" in text
    assert f"<|vision_end|>{question}<|im_end|>" in text


def test_fixed_texts_are_single_ordinary_tokens(qwen25):
    tokenizer = tokenizer_of(qwen25)
    numbers = tokenizer.get_vocab()
    call = '<tool_call>\n{"name": "crop_image_normalized", "arguments": {"bbox_2d": ['
    pieces = [
        *fixed_texts(),
        call,
        TOOLED.system_prompt(),
        "0.0",
        "1.0",
        "\nHere is the cropped image (Image Size: ",
    ]
    for piece in [*pieces, "<tool_call>", "</tool_call>"]:
        assert tokenizer(piece, add_special_tokens=False)["input_ids"] == [numbers[piece]]
        assert not tokenizer.added_tokens_decoder[numbers[piece]].special
    text = call + '0.2, 0.4, 0.5, 0.7], "target_image": 1}}\n</tool_call>'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) == 1 + 7 + 1 + 1 + 1
    assert json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))["arguments"]["target_image"] == 1


def test_every_text_survives_its_tokenizer(qwen25):
    tokenizer = tokenizer_of(qwen25)
    for text in ("héllo ✓ 日本語 \U0001f600", "reduce 10.25 redder", "\t a\r\n\n  b ", "\\boxed{A}", "\x00\x7f"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_its_settings_and_its_card(qwen25):
    settings = json.loads((qwen25 / "prh.json").read_text())
    assert settings["protocol"] == "pixel-reasoner"
    assert settings["padding"] == 0.0
    assert settings["budget"]["input"] == [784, 19600]
    assert settings["limits"]["new_tokens"] == 64
    card = (qwen25 / "README.md").read_text()
    assert "untrained" in card
    assert "synthetic" in card


def test_processes_that_build_it_at_once_get_one_whole_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PRH_CACHE", str(tmp_path))
    both = threading.Barrier(2, timeout=20)
    built, numbers = [], []

    def build(folder):
        (folder / "config.json").write_text("half")
        both.wait()
        (folder / "config.json").write_text("whole")
        built.append(folder)
        numbers.append(folder.stat().st_ino)

    monkeypatch.setattr(tiny, "build", build)
    found = []
    threads = [threading.Thread(target=lambda: found.append(tiny.tiny_folder())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(built)) == 2
    assert found[0] == found[1]
    assert (found[0] / "config.json").read_text() == "whole"
    assert found[0].stat().st_ino in numbers, "a folder that is filled in place can be seen half full"
    assert list((tmp_path / "models").iterdir()) == [found[0]]
    assert tiny.tiny_folder() == found[0]
    assert len(built) == 2


@pytest.mark.parametrize("damage", ["lost", "cut", "changed", "unlisted", "empty"])
def test_a_folder_that_was_damaged_is_built_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("PRH_CACHE", str(tmp_path))
    built = []

    def build(folder):
        built.append(folder)
        (folder / "config.json").write_text("whole")
        (folder / "model.safetensors").write_text("weights")

    monkeypatch.setattr(tiny, "build", build)
    folder = tiny.tiny_folder()
    (folder / "note").write_text("mine")
    assert tiny.tiny_folder() == folder
    assert len(built) == 1
    if damage == "lost":
        (folder / "model.safetensors").unlink()
    elif damage == "unlisted":
        (folder / "files.json").write_text("[")
    elif damage == "empty":
        for path in folder.iterdir():
            path.unlink()
    else:
        (folder / "model.safetensors").write_text("weight" if damage == "cut" else "wEights")
    assert tiny.tiny_folder() == folder
    assert len(built) == 2
    assert (folder / "model.safetensors").read_text() == "weights"
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PRH_CACHE", str(tmp_path))

    def build(folder):
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "build", build)
    with pytest.raises(KeyboardInterrupt):
        tiny.tiny_folder()
    assert not list((tmp_path / "models").iterdir())


def test_a_cache_that_cannot_be_written_is_an_error_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "models").write_text("a file where the folder should be")
    monkeypatch.setenv("PRH_CACHE", str(tmp_path))
    with pytest.raises(Exception, match=r"cannot build the embedded checkpoint in .*; set PRH_CACHE"):
        tiny.tiny_folder()
