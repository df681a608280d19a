"""Conversations as messages, and images as data URLs: everything as it was shown, nothing encoded twice."""

import base64
import io
import json
import threading

import pytest
from PIL import Image, ImageCms
from prh.harness.errors import ModelError
from prh.harness.ledger import MediaRef, Segment, Text
from prh.harness.types import BadCall, Call
from prh.models import openai_messages
from prh.models.openai_messages import ANSWERED, PngCache, encode, write_messages
from prh.tests.models.fake_server import check_messages
from prh.tests.models.support import conversation, noise, say


def written(talk, cache=None):
    messages = write_messages(talk, cache or PngCache(1 << 24))
    check_messages(messages)
    return messages


def decoded(url):
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


def images(message):
    return [decoded(part["image_url"]["url"]) for part in message["content"] if part["type"] == "image_url"]


def assistant(talk, text, *calls):
    talk.commit(Segment("assistant", (Text(text),), calls))


def test_a_conversation_keeps_its_roles_texts_and_images_in_order():
    talk, first, crop = conversation(), noise((56, 84), 1), noise((28, 28), 2)
    say(talk, "system", "Be brief.")
    say(talk, "user", first, "What is ", "it?\n\n", "A: x")
    assistant(talk, "  Look.\n<tool_call>\n{}\n</tool_call>", BadCall("no"))
    say(talk, "user", "\nHere:", crop)
    system, user, said, shown = written(talk)
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][1]["text"] == "What is it?\n\nA: x"
    assert said == {"role": "assistant", "content": "  Look.\n<tool_call>\n{}\n</tool_call>"}
    assert [part["type"] for part in shown["content"]] == ["text", "image_url"]
    for message, image in ((user, first), (shown, crop)):
        (got,) = images(message)
        assert (got.size, got.tobytes()) == (image.size, image.tobytes())


def test_texts_without_images_are_plain():
    talk = conversation()
    say(talk, "user", "one ", "two")
    assistant(talk, "")
    say(talk, "user", "\nExecution error:\nno\n")
    assert [message["content"] for message in written(talk)] == ["one two", "", "\nExecution error:\nno\n"]


def test_a_video_is_its_frames_in_order():
    talk, frames = conversation(), [noise((28, 56), seed) for seed in range(5)]
    say(talk, "user", frames, "Which?")
    (message,) = written(talk)
    assert [image.tobytes() for image in images(message)] == [frame.tobytes() for frame in frames]
    assert message["content"][-1] == {"type": "text", "text": "Which?"}


def test_an_image_alone_and_empty_texts():
    talk = conversation()
    say(talk, "user", "", noise((28, 28), 1), "", "")
    (message,) = written(talk)
    assert [part["type"] for part in message["content"]] == ["image_url"]


def test_native_calls_are_sent_back_and_answered_before_the_observation():
    talk = conversation()
    say(talk, "user", noise((28, 28), 1), "Look")
    calls = [Call("crop_image", {"bbox_2d": [0, 0.5, 1, 1], "name": "\u00e9"}, "c1"), Call("crop_image", "{no", "c2")]
    assistant(talk, "", *calls)
    say(talk, "user", "Here:", noise((28, 28), 2))
    assistant(talk, "I see", Call("other", None, "c3"))
    say(talk, "tool", "no such operation")
    messages = written(talk)
    assert [message["role"] for message in messages] == [
        *("user", "assistant", "tool", "tool", "user"),
        *("assistant", "tool", "user"),
    ]
    assert messages[1]["content"] is None
    sent = [json.loads(call["function"]["arguments"]) for call in messages[1]["tool_calls"]]
    assert sent == [call.arguments for call in calls]
    assert [(m["tool_call_id"], m["content"]) for m in messages if m["role"] == "tool"] == [
        ("c1", ANSWERED),
        ("c2", ANSWERED),
        ("c3", ANSWERED),
    ]
    assert messages[5]["content"] == "I see"
    assert messages[7]["content"] == "no such operation"


def test_calls_found_in_the_text_are_not_sent_beside_it():
    talk = conversation()
    say(talk, "user", "Look")
    assistant(talk, "<tool_call>...", Call("crop_image", {}))
    say(talk, "user", "Here")
    assert "tool_calls" not in written(talk)[1]


def test_a_tool_observation_without_a_native_call_is_refused():
    talk = conversation()
    say(talk, "user", "Look")
    assistant(talk, "<tool_call>...", Call("crop_image", {}))
    say(talk, "tool", "Here")
    with pytest.raises(ModelError, match="observations come from the user") as caught:
        write_messages(talk, PngCache(1))
    assert "\n" not in str(caught.value)


def test_an_image_is_sent_without_profile_or_notes():
    image = noise((28, 28), 3)
    image.info.update(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), dpi=(72, 72))
    image.info.update(transparency=(0, 0, 0), Comment="made by somebody")
    got = decoded(encode(image))
    got.load()
    assert got.info == {}
    assert got.tobytes() == image.tobytes()


def test_images_of_other_modes_are_told_apart_by_what_they_show():
    cache = PngCache(1 << 20)
    one, other = (Image.new("P", (28, 28)) for _ in range(2))
    one.putpalette([255, 0, 0])
    other.putpalette([0, 255, 0])
    assert decoded(cache.url(one)).getpixel((0, 0)) == (255, 0, 0)
    assert decoded(cache.url(other)).getpixel((0, 0)) == (0, 255, 0)
    assert decoded(cache.url(Image.new("L", (28, 28), 7))).getpixel((0, 0)) == (7, 7, 7)


def test_an_image_is_encoded_once_however_often_it_is_shown():
    cache, talk = PngCache(1 << 24), conversation()
    say(talk, "user", noise((56, 56), 1), noise((56, 56), 2), "Look")
    first = written(talk, cache)
    for _ in range(3):
        assert written(talk, cache) == first
    assert (cache.encoded, cache.reused) == (2, 6)


def test_sizes_and_single_pixels_make_another_image():
    cache = PngCache(1 << 24)
    wide, high = Image.new("RGB", (56, 28)), Image.new("RGB", (28, 56))
    dotted = wide.copy()
    dotted.putpixel((55, 27), (0, 0, 1))
    urls = {cache.url(image) for image in (wide, high, dotted)}
    assert len(urls) == cache.encoded == 3


def test_the_cache_stays_within_its_bytes_and_drops_what_was_used_longest_ago():
    pictures = [noise((56, 56), seed) for seed in range(6)]
    size = max(len(encode(image)) for image in pictures)
    cache = PngCache(3 * size)
    for image in pictures[:3]:
        cache.url(image)
    cache.url(pictures[0])
    cache.url(pictures[3])
    assert (cache.encoded, cache.reused) == (4, 1)
    cache.url(pictures[0])
    assert cache.reused == 2, "it was used since"
    cache.url(pictures[1])
    assert cache.encoded == 5, "it had to go"
    for image in pictures * 3:
        cache.url(image)
        assert sum(len(entry.data) for entry in cache._entries.values()) == cache._held <= 3 * size


def test_an_image_larger_than_the_cache_is_encoded_each_time():
    cache = PngCache(10)
    image = noise((28, 28), 1)
    assert cache.url(image) == cache.url(image)
    assert cache.encoded == 2
    assert (cache._held, len(cache._entries)) == (0, 0)


def test_threads_that_need_the_same_image_wait_for_one_encoding(monkeypatch):
    started, go = threading.Event(), threading.Event()

    def slow(image):
        started.set()
        assert go.wait(10)
        return encode(image)

    monkeypatch.setattr(openai_messages, "encode", slow)
    cache, image, urls = PngCache(1 << 24), noise((28, 28), 1), []
    threads = [threading.Thread(target=lambda: urls.append(cache.url(image))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert urls == [encode(image)] * 8
    assert (cache.encoded, cache.reused) == (1, 7)


def test_an_image_dropped_while_it_is_encoded_is_never_counted(monkeypatch):
    image, other = noise((28, 28), 1), noise((28, 28), 2)
    cache = PngCache(len(encode(other)) - 1)

    def crowded(picture):
        if picture.tobytes() == image.tobytes():
            cache.url(other)
        return encode(picture)

    monkeypatch.setattr(openai_messages, "encode", crowded)
    assert cache.url(image) == encode(image)
    assert (cache._held, len(cache._entries)) == (0, 0)
    assert cache.encoded == 2


def test_threads_and_a_small_cache_keep_the_count(monkeypatch):
    pictures = [noise((28, 28), seed) for seed in range(12)]
    cache = PngCache(4 * len(encode(pictures[0])))
    threads = [
        threading.Thread(target=lambda shift=shift: [cache.url(p) for p in (pictures[shift:] + pictures[:shift]) * 4])
        for shift in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(len(entry.data) for entry in cache._entries.values()) == cache._held <= cache._limit
    assert cache.encoded + cache.reused == 6 * 4 * 12


def test_an_encoding_that_fails_is_tried_again(monkeypatch):
    monkeypatch.setattr(openai_messages, "encode", lambda image: (_ for _ in ()).throw(MemoryError))
    cache, image = PngCache(1 << 24), noise((28, 28), 1)
    with pytest.raises(MemoryError):
        cache.url(image)
    monkeypatch.undo()
    assert cache.url(image) == encode(image)
    assert cache.encoded == 1


def test_references_are_read_from_the_registry():
    talk = conversation()
    say(talk, "user", noise((28, 28), 1), "Look")
    talk.commit(Segment("user", (MediaRef(1), Text("again"))))
    first, second = write_messages(talk, PngCache(1 << 20))
    assert first["content"][0] == second["content"][0]
