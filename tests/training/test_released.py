"""The released trajectories and questions, on small files in exactly their schemas."""

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prh.harness import registry
from prh.harness.engine import smart_resize
from prh.harness.errors import DataError, PrhError
from prh.harness.ledger import Conversation, MediaRef, Text
from prh.harness.media import inside
from prh.harness.protocols import GUIDELINES, PixelReasoner
from prh.harness.settings import resolve
from prh.harness.types import Box, PixelBudget, Sample, Size, Span
from prh.harness.video import read_frames
from prh.training.released import (
    ReleasedConversation,
    read_message_list,
    read_queries,
    released_lessons,
    to_conversation,
    trained_turns,
)
from prh.training.seeds import SourceOptions
from prh.training.trajectories import perform
from pyarrow import parquet

Values = dict[str, Any]
FIXTURE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
BUDGET = PixelBudget(
    input=Span.tokens(4, 64), crop=Span.tokens(4, 16), video_frame=Span.tokens(1, 4), selected_frame=Span.tokens(1, 8)
)
SYSTEM = "You are a helpful assistant.\n\n# Tools\n\n<tools>\n{..}\n</tools>"
QUESTION = f"What colour is the kite?\nchoices:\nA: red\nB: green\nC: blue\nD: white\n\n\n\n{GUIDELINES}"
ERROR = "\nExecution error:\nCropped image is too small: 3x3\n"


def png(width: int, height: int, colour: tuple[int, int, int] = (9, 200, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def crop(*box: float, target: int = 1) -> str:
    return f"Now I will zoom in. {call('crop_image_normalized', bbox_2d=list(box), target_image=target)}"


def select(*frames: int) -> str:
    return f"Now I will select some frames. {call('select_frames', target_frames=list(frames))}"


def says(role: str, *content: object) -> Values:
    return {"role": role, "content": [{"text": part} if isinstance(part, str) else part for part in content]}


def shown(image: str = "images/2-1.jpg") -> Values:
    return says("user", "\nHere is the cropped image (Image Size: 84x56):", {"image": image})


def trajectory(*turns: Values, question: Sequence[object] = (QUESTION, {"image": "images/2-0.jpg"})) -> list[Values]:
    return [says("system", SYSTEM), says("user", *question), *turns]


ANSWER = says("assistant", "It is green: \\boxed{B}")
SINGLE = trajectory(says("assistant", crop(0.25, 0.25, 0.5, 0.5)), shown(), ANSWER)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The release's archives, unpacked."""
    for name, size in {"images/2-0.jpg": (400, 300), "images/2-1.jpg": (180, 135), "images/2-2.jpg": (80, 60)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(*size))
    for number in range(16):
        path = tmp_path / "videos" / "7" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(64, 48, (number, 0, 0)))
    return tmp_path


FRAMES = [f"videos/7/{number:02}.jpg" for number in range(16)]


def release(root: Path, *conversations: object, qid: str = "sa1b-2") -> Path:
    path = root / "release.json"
    rows = [{"qid": qid, "message_list": item} if isinstance(item, list) else item for item in conversations]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(root: Path, *conversations: object) -> list[ReleasedConversation]:
    return list(read_message_list(release(root, *conversations), root))


def ledger(released: ReleasedConversation, rule: Any = "derived") -> Conversation:
    return to_conversation(released, lambda size, span: smart_resize(size, span, 28), BUDGET, rule)


def check(error: PrhError, *said: str) -> None:
    message = str(error)
    assert message.isprintable(), message
    for part in said:
        assert part in message, message


# -- trajectories as they stand ----------------------------------------------------------------------------------


def test_a_trajectory_keeps_its_messages_and_their_parts_as_they_stand(root: Path) -> None:
    (released,) = read(root, SINGLE)
    conversation = ledger(released)
    assert conversation.key == "sa1b-2#0"
    assert [segment.role for segment in conversation.segments] == ["system", "user", "assistant", "user", "assistant"]
    asked, turn, seen = conversation.segments[1:4]
    assert asked.parts == (Text(QUESTION), MediaRef(1))
    assert seen.parts == (Text("\nHere is the cropped image (Image Size: 84x56):"), MediaRef(2))
    assert turn.text == SINGLE[2]["content"][0]["text"]
    assert [one.name for one in turn.calls] == ["crop_image_normalized"]  # type: ignore[union-attr]
    assert [segment.trained for segment in conversation.segments] == [False, False, True, False, True]
    photo, cut = conversation.items
    assert (photo.kind, photo.parent, photo.original) == ("image", 0, Size(400, 300))
    assert (cut.kind, cut.parent, cut.root, cut.original) == ("crop", 1, 1, Size(180, 135))
    assert cut.root_box == Box(60, 45, 240, 180)  # padded by a tenth of the image, as the release cuts
    assert photo.seen == smart_resize(Size(400, 300), BUDGET.input, 28)
    assert cut.seen == smart_resize(Size(180, 135), BUDGET.crop, 28)
    assert [image.size for image in conversation.images()] == [tuple(photo.seen), tuple(cut.seen)]


def test_a_crop_of_a_crop_is_placed_in_the_root(root: Path) -> None:
    turns = [says("assistant", crop(0.1, 0.1, 0.9, 0.9, target=2)), shown("images/2-2.jpg"), ANSWER]
    conversation = ledger(read(root, [*SINGLE[:-1], *turns])[0])
    deep = conversation.items[2]
    assert (deep.parent, deep.root, deep.root_box) == (2, 1, Box(60, 45, 240, 180))


def test_a_video_is_one_item_of_its_frames_and_selected_frames_are_numbered(root: Path) -> None:
    frames = [{"image": FRAMES[4]}, {"image": FRAMES[5]}]
    seen = says("user", "\nHere are the selected frames (Frame Size: 64x48, Numbered 1 to 2):", *frames)
    turns = [says("assistant", select(5, 6)), seen, ANSWER]
    (released,) = read(root, trajectory(*turns, question=[QUESTION, {"video": FRAMES}]))
    conversation = ledger(released)
    video, five, six = conversation.items
    assert (video.kind, len(video.frames), video.original) == ("video", 16, Size(64, 48))
    assert [(item.kind, item.parent, item.frame) for item in (five, six)] == [("frame", 1, 5), ("frame", 1, 6)]
    assert five.root_box == Box(0, 0, 64, 48)
    assert five.seen == smart_resize(Size(64, 48), BUDGET.selected_frame, 28)
    assert conversation.segments[1].parts == (Text(QUESTION), MediaRef(1))


@pytest.mark.parametrize(
    "said", ["I look.", crop(0.1, 0.1, 0.2), "<tool_call>{</tool_call>", crop(0, 0, 1, 1, target=9)]
)
def test_an_image_after_a_call_that_cannot_be_placed_lies_somewhere_in_the_first(root: Path, said: str) -> None:
    (released,) = read(root, trajectory(says("assistant", said), shown(), ANSWER))
    cut = ledger(released).items[1]
    assert (cut.parent, cut.root_box, cut.original) == (1, Box(0, 0, 400, 300), Size(180, 135))


def test_null_keys_types_and_plain_texts_are_read_as_readers_of_the_hub_write_them(root: Path) -> None:
    rows = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION, "image": None, "video": None}]},
        {"role": "user", "content": [{"text": None, "image": ["images/2-0.jpg", "2-1.jpg"], "video": None}]},
        {"role": "assistant", "content": "\\boxed{B}"},
    ]
    (released,) = read(root, {"message_list": rows})
    assert released.id == "1"
    assert [medium.name for medium in released.messages[1].media] == ["images/2-0.jpg", "2-1.jpg"]
    conversation = ledger(released)
    assert len(conversation.items) == 2
    assert conversation.segments[2].text == "\\boxed{B}"


def test_a_qid_may_come_again_and_lines_are_read_as_lists_are(root: Path) -> None:
    path = root / "textual.jsonl"
    rows = [{"qid": 7, "message_list": trajectory(ANSWER)}, {"qid": 7, "message_list": SINGLE}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = list(read_message_list(path, root))
    assert [(released.id, released.repeat) for released in found] == [("7", 0), ("7", 1)]
    assert len({ledger(released).key for released in found}) == 2


# -- which turns are trained -------------------------------------------------------------------------------------


def flags(root: Path, *turns: Values, rule: Any = "derived", question: Sequence[object] | None = None) -> list[bool]:
    messages = trajectory(*turns, ANSWER, **({} if question is None else {"question": question}))
    (released,) = read(root, messages)
    marks = trained_turns(released, rule)
    assert [segment.trained for segment in ledger(released, rule).segments] == list(marks)
    assert not any(mark for mark, message in zip(marks, messages, strict=True) if message["role"] != "assistant")
    return [mark for mark, message in zip(marks, messages, strict=True) if message["role"] == "assistant"]


def looks(*boxes: tuple[float, float, float, float], target: int = 1) -> list[Values]:
    return [turn for box in boxes for turn in (says("assistant", crop(*box, target=target)), shown())]


RIGHT = (0.6, 0.6, 0.8, 0.8)


def test_the_releases_rule_trains_the_last_and_the_third_message_from_the_end(root: Path) -> None:
    assert flags(root, rule="positional") == [True]
    assert flags(root, *looks(RIGHT), rule="positional") == [True, True]
    assert flags(root, *looks((0, 0, 1, 1), RIGHT), rule="positional") == [False, True, True]
    assert flags(root, *looks((0, 0, 1, 1), (0.5, 0.5, 1, 1), RIGHT), rule="positional") == [False, False, True, True]


def test_our_rule_trains_what_was_not_in_error(root: Path) -> None:
    assert flags(root) == [True]
    assert flags(root, *looks(RIGHT)) == [True, True]
    assert flags(root, *looks((0.0, 0.0, 0.2, 0.2), RIGHT)) == [False, True, True]  # re-crop once
    assert flags(root, *looks((0.0, 0.0, 0.2, 0.2), (0.3, 0.0, 0.5, 0.2), RIGHT)) == [False, False, True, True]
    assert flags(root, *looks((0.5, 0.5, 1, 1), RIGHT)) == [True, True, True]  # further zoom-in
    assert flags(root, *looks((0.1, 0.1, 0.2, 0.2)), *looks(RIGHT, target=2)) == [True, True, True]


def test_a_failed_or_unreadable_call_is_not_trained(root: Path) -> None:
    failed = [says("assistant", crop(*RIGHT)), says("user", ERROR)]
    assert flags(root, *failed, *looks(RIGHT)) == [False, True, True]
    worded = [says("assistant", crop(*RIGHT)), says("user", "Execution Error: Incorrect `target_image` argument")]
    assert flags(root, *worded, *looks((0, 0, 0.5, 0.5))) == [False, True, True]
    torn = [says("assistant", "<tool_call>{'name': 1}</tool_call>"), shown()]
    assert flags(root, *torn, *looks(RIGHT)) == [False, True, True]
    # what failed later supersedes nothing
    assert flags(root, *looks(RIGHT), says("assistant", crop(0, 0, 0.1, 0.1)), says("user", ERROR)) == [
        True,
        False,
        True,
    ]


def test_frames_that_miss_all_of_the_last_choice_are_superseded(root: Path) -> None:
    def turn(*numbers: int) -> list[Values]:
        return [says("assistant", select(*numbers)), says("user", *({"image": FRAMES[n - 1]} for n in numbers))]

    question = [QUESTION, {"video": FRAMES}]
    assert flags(root, *turn(1, 2), *turn(9, 10), question=question) == [False, True, True]
    assert flags(root, *turn(8, 9), *turn(9, 10), question=question) == [True, True, True]


# -- as lessons --------------------------------------------------------------------------------------------------


def test_lessons_are_performed_again_by_the_harness_at_the_checkpoints_budgets(root: Path) -> None:
    path = release(root, trajectory(*looks((0.0, 0.0, 0.2, 0.2), RIGHT), ANSWER))
    (lesson,) = released_lessons(path, root)
    sample = lesson.sample
    assert (sample.question, sample.choices) == ("What colour is the kite?", ("red", "green", "blue", "white"))
    assert (sample.gold, sample.answer_kind, sample.category) == (("B",), "option", "sa1b")
    assert lesson.name == "sa1b-2#0"
    assert lesson.provenance == {"file": "release.json", "row": "1", "trained": "derived"}
    setting = resolve([("test", {"protocol": "pixel-reasoner"})], 0)
    done = asyncio.run(perform(sample, lesson.script, setting, lambda size, span: smart_resize(size, span, 28)))
    turns = [segment for segment in done.conversation.segments if segment.role == "assistant"]
    assert [turn.trained for turn in turns] == [False, True, True]
    assert [item.kind for item in done.conversation.items] == ["image", "crop", "crop"]
    assert done.conversation.segments[1].text.endswith(QUESTION)  # the protocol bakes what was unpicked


def test_lessons_of_videos_and_of_plain_text(root: Path) -> None:
    frames = says("user", "\nHere are the selected frames", {"image": FRAMES[2]})
    video = trajectory(says("assistant", select(3)), frames, ANSWER, question=[QUESTION, {"video": FRAMES}])
    open_answer = trajectory(says("assistant", "So \\boxed{42}"), question=["<image>\nHow many?", {"image": "2-0.jpg"}])
    one, two = released_lessons(release(root, video, open_answer), root, "positional")
    assert one.sample.media[0].frames == 16
    assert (two.sample.question, two.sample.gold, two.sample.answer_kind) == ("How many?", ("42",), "integer")
    assert [said.trained for said in one.script] == [True, True]
    setting = resolve([("test", {"protocol": "pixel-reasoner"})], 0)
    done = asyncio.run(perform(one.sample, one.script, setting, lambda size, span: smart_resize(size, span, 28)))
    assert [item.frame for item in done.conversation.items] == [0, 3]


# -- hostile files -----------------------------------------------------------------------------------------------


def user(**item: object) -> list[Values]:
    return trajectory(ANSWER, question=[QUESTION, item])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("row", "expected a JSON object"),
        ({"qid": "x"}, "no `message_list`"),
        ({"message_list": "none"}, "list of objects"),
        ({"message_list": []}, "must hold a user's message"),
        ({"qid": [], "message_list": SINGLE}, "`qid` must be"),
        ([says("user", "?")], "must hold a user's message"),
        ([says("system", SYSTEM), ANSWER], "must hold a user's message"),
        ([*SINGLE, says("user", "more")], "must hold a user's message"),
        (trajectory(ANSWER, ANSWER), "between two of the assistant's"),
        (trajectory(ANSWER, says("system", "x"), ANSWER), "its system message first"),
        (trajectory(says("critic", "x"), ANSWER), "`role` must be one of"),
        (trajectory({"role": "assistant"}), "no `content`"),
        (trajectory(says("assistant", {"image": "images/2-0.jpg"})), "text of the assistant"),
        (trajectory(says("assistant", " ")), "text of the assistant"),
        (trajectory(says("user"), ANSWER), "text or media of the user"),
        (user(), "one of text, image, video; found none"),
        (user(text="x", image="images/2-0.jpg"), "found text, image"),
        (user(audio="x.wav"), "found none of them"),
        (user(text=3), "`text` must be text"),
        (user(text="\ud800"), "`text` must be text"),
        (user(image="../outside.png"), "leaves the dataset folder"),
        (user(image="/etc/hostname"), "leaves the dataset folder"),
        (user(image="images/\n.jpg"), "control characters"),
        (user(image="images/gone.jpg"), "no file 'images/gone.jpg'"),
        (user(image="images"), "no file 'images'"),
        (user(image=7), "`image` must be texts"),
        (user(image=[]), "`image` must be texts"),
        (user(video=[FRAMES[0], "videos/7/99.jpg"]), "no file 'videos/7/99.jpg'"),
        (user(video=[FRAMES[0], None]), "`video` must be texts"),
    ],
)
def test_a_hostile_trajectory_is_refused_in_one_line(root: Path, row: object, said: str) -> None:
    path = release(root, SINGLE, row)
    with pytest.raises(DataError) as caught:
        list(read_message_list(path, root))
    check(caught.value, "release.json row 2", said)


@pytest.mark.parametrize("place", ["images/2-0.jpg", "images/2-1.jpg"])
def test_a_broken_image_is_named_with_its_row(root: Path, place: str) -> None:
    (root / place).write_bytes(png(50, 50)[:60])
    (released,) = read(root, SINGLE)
    with pytest.raises(DataError) as caught:
        ledger(released)
    check(caught.value, "release.json row 1", place, "cannot be decoded")


def test_a_broken_frame_and_an_empty_question_are_named(root: Path) -> None:
    (root / FRAMES[3]).write_bytes(b"")
    (released,) = read(root, trajectory(ANSWER, question=[QUESTION, {"video": FRAMES}]))
    with pytest.raises(DataError, match=r"release\.json row 1: videos/7/00\.jpg: 03\.jpg: the image is empty"):
        ledger(released)
    with pytest.raises(DataError, match=r"release\.json row 1: .* a question is expected"):
        list(released_lessons(release(root, trajectory(ANSWER, question=[{"image": "2-0.jpg"}])), root))


pieces = st.sampled_from([SINGLE[0], SINGLE[1], SINGLE[2], SINGLE[3], ANSWER, says("user", ERROR)])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
wild = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "image"]), inner)
)
messages = st.lists(pieces | st.fixed_dictionaries({"role": scalars | st.just("user"), "content": wild}), max_size=6)


@FIXTURE
@given(messages)
def test_no_conversation_does_more_than_be_refused(root: Path, conversation: list[Values]) -> None:
    try:
        for released in read(root, conversation):
            for rule in ("derived", "positional"):
                made = ledger(released, rule)
                assert [segment.role for segment in made.segments] == [message.role for message in released.messages]
                assert made.segments[-1].trained
                assert sum(message.media != () for message in released.messages) <= len(made.items)
    except DataError as error:
        check(error, "release.json row 1")


arguments = st.fixed_dictionaries({"bbox_2d": st.lists(st.floats() | st.just("x"), max_size=5)}) | wild


@FIXTURE
@given(arguments, arguments)
def test_no_call_breaks_the_marks_or_the_ledger(root: Path, one: object, two: object) -> None:
    turns = []
    for said in (one, two):
        body = json.dumps({"name": "crop_image_normalized", "arguments": said})
        turns += [says("assistant", f"<tool_call>{body}</tool_call>"), shown()]
    (released,) = read(root, trajectory(*turns, ANSWER))
    assert trained_turns(released)[-1]
    conversation = ledger(released)
    assert all(inside(root, item.name).is_file() for item in conversation.items if item.name)
    for item in conversation.items:
        assert Box(0, 0, 400, 300).intersection(item.root_box) == item.root_box


# -- questions ---------------------------------------------------------------------------------------------------

BAKED = "What colour is the kite?\nchoices:\nA: red\nB: green"


def row(number: int = 1, **values: object) -> Values:
    base = {"qid": f"sa1b-{number}", "question": BAKED, "answer": ["\\boxed{B}"], "image": ["images/2-0.jpg"]}
    return {**base, "is_video": False, **values}


def table(root: Path, *rows: Values) -> Path:
    path = root / "release.parquet"
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def queries(root: Path, *rows: Values) -> list[Sample]:
    return list(read_queries(table(root, *rows), root))


def test_questions_are_unpicked_and_their_answers_unboxed(root: Path) -> None:
    samples = queries(
        root,
        row(1),
        row(2, question="<image>\nWhen was it built?", answer=["\\boxed{['1932', 'in 1932']}"], is_video=None),
        row(3, question="How many?", answer=["\\boxed{3}"], image=["2-1.jpg", "images/2-2.jpg"]),
        row(4, answer=["\\boxed{green}"], question=f"{BAKED}\n\n\n\n{GUIDELINES}"),
        row(5, answer=["\\boxed{purple}"]),
        row(6, image=FRAMES, is_video=True),
    )
    assert [sample.id for sample in samples] == [f"sa1b-{number}" for number in range(1, 7)]
    one, two, three, four, five, six = samples
    assert (one.question, one.choices, one.gold) == ("What colour is the kite?", ("red", "green"), ("B",))
    assert (one.answer_kind, one.category, one.cluster) == ("option", "sa1b", "images/2-0.jpg")
    assert (two.question, two.gold, two.answer_kind) == ("When was it built?", ("1932", "in 1932"), "text")
    assert [medium.kind for medium in three.media] == ["image", "image"]
    assert three.answer_kind == "integer"
    assert (four.question, four.gold) == ("What colour is the kite?", ("B",))
    assert (five.question, five.choices, five.gold, five.answer_kind) == (BAKED, (), ("purple",), "text")
    assert [medium.kind for medium in six.media] == ["video"]
    assert len(read_frames(six.media[0]).frames) == 16


def test_the_protocol_bakes_a_question_as_it_was(root: Path) -> None:
    (sample,) = queries(root, row())
    assert PixelReasoner().question(sample) == f"{BAKED}\n\n\n\n{GUIDELINES}"


def test_an_answer_may_be_a_text_and_a_list_of_json_rows_is_read_too(root: Path) -> None:
    assert queries(root, row(answer="\\boxed{(A)}"))[0].gold == ("A",)
    path = root / "rows.json"
    plain = {key: value for key, value in row().items() if key not in ("answer", "qid", "is_video")}
    path.write_text(json.dumps([{**plain, "gt_answer": "B", "image": "images/2-0.jpg"}]))
    (sample,) = read_queries(path, root)
    assert (sample.id, sample.gold) == ("1", ("B",))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"qid": "sa1b-1"}, "ids must be unique"),
        ({"question": None}, "`question` must be text"),
        ({"question": "<image>"}, "one of them is blank"),
        ({"question": f"\n\n{GUIDELINES}"}, "one of them is blank"),
        ({"answer": None}, "none of the keys answer, gt_answer"),
        ({"answer": []}, "`answer` must be texts"),
        ({"answer": ["\\boxed{}"]}, "one of them is blank"),
        ({"image": None}, "`image` must be texts"),
        ({"image": []}, "`image` must be texts"),
        ({"image": ["../2-0.jpg"]}, "leaves the dataset folder"),
        ({"image": ["images/gone.jpg"]}, "no file 'images/gone.jpg'"),
        ({"image": [""]}, "`image` must be texts"),
    ],
)
def test_a_hostile_question_is_refused_in_one_line(root: Path, values: Values, said: str) -> None:
    with pytest.raises(DataError) as caught:
        queries(root, row(1), row(2, **values))
    check(caught.value, "release.parquet row 2", said)


def test_a_question_of_the_wrong_types_is_refused(root: Path) -> None:
    for values, said in (({"is_video": "yes"}, "`is_video`"), ({"question": 3}, "`question`"), ({"qid": 1.5}, "`qid`")):
        with pytest.raises(DataError) as caught:
            queries(root, row(**values))
        check(caught.value, "release.parquet row 1", said)


def test_the_questions_are_a_source_without_evidence(root: Path) -> None:
    table(root, row(1), row(2, image=["images/gone.jpg"]), row(3))
    reader: Any = registry.make("sources", "pixelreasoner-rl")
    with pytest.warns(UserWarning, match="1 faulty rows passed over, the first: .*row 2"):
        found = list(reader.seeds(SourceOptions(root, settings={"faulty": "skip"})))
    assert [seed.sample.id for seed in found] == ["sa1b-1", "sa1b-3"]
    assert found[0].sample.evidence == ()
    assert found[0].origin == {"file": "release.parquet", "row": 1, "split": "train"}
    with pytest.raises(DataError, match=r"row 2: `image`: no file"):
        list(reader.seeds(SourceOptions(root / "release.parquet")))
