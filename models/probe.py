"""What a server does with images, found out by asking: pictures of two colours, drawn for the occasion.

The colours are drawn by lot, so that a model that does not see them is right once in thirty times.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from PIL import Image

from ..harness.engine import EngineOptions, Turn, TurnSpec
from ..harness.errors import ModelError
from ..harness.ledger import Conversation, MediaRef, Segment, Text
from ..harness.media import Media
from ..harness.protocol import Tool
from ..harness.types import Call, PixelBudget, Span
from .findings import Finding
from .openai_engine import OpenAIEngine, OpenAIFactory
from .openai_errors import Mask
from .openai_wire import DOCUMENTED

COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 20),
    "blue": (20, 40, 220),
    "yellow": (240, 220, 20),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
QUESTION = "The picture has two colours. Which colour is its left half, and which its right half? Answer in two words."
LOOK = Tool("look", "Shows the picture.", {"type": "object", "properties": {}})
# Cells a side of the pictures whose tokens are counted; the largest is about Pixel Reasoner's budget for an image.
SIDES = (8, 24, 64)
# Of a size that is kept, the tokens may differ by those that mark where an image begins and ends.
SLACK = 8
# Enough for a model that thinks first; others stop long before.
SPEC = TurnSpec(1024)


def probe_server(model: str, cell: int, extra: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """What is found of a server's model, one line each.

    Args:
        cell: pixels a side of a visual token, such as 28.
        extra: options of the engine ``openai``, as an evaluation would be given them.

    Raises:
        ModelError: the server cannot be reached or has no such model.
        UsageError: it is no URL, or an option is wrong.
    """
    chosen = {"retries": "1", "timeout": "120", **(extra or {}), "factor": str(cell)}
    found = asyncio.run(_probe(model, chosen, cell))
    yield from found


async def _probe(model: str, extra: dict[str, str], cell: int) -> list[Finding]:
    own = extra.get("mode", "user")
    modes = (own, "tool" if own == "user" else own)
    engines = [OpenAIFactory().open(model, EngineOptions(extra={**extra, "mode": mode})) for mode in modes]
    try:
        plain, tool = engines
        found = [_server(plain), await _sees(plain, cell)]
        found.append(await _sizes(plain, cell))
        found.append(await _calls(plain))
        return [*found, await _sees_answers(tool, cell)]
    finally:
        for engine in engines:
            await engine.close()


def _server(engine: OpenAIEngine) -> Finding:
    server = engine.server
    context = server.card.get("max_model_len")
    length = f"context of {context:,} tokens" if isinstance(context, int) else "context unknown: it does not say"
    return Finding(
        "ok", "server", f"{server.address.url}, {server.address.model} by {server.software or '?'}, {length}"
    )


def _picture(width: int, height: int, left: str, right: str) -> Media:
    image = Image.new("RGB", (width, height), COLOURS[left])
    image.paste(COLOURS[right], (width // 2, 0, width, height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Media("image", "probe", buffer.getvalue())


def _talk(*pictures: Media) -> Conversation:
    talk = Conversation("probe#0", "probe", lambda size, _: size, PixelBudget(*[Span(1, 1 << 40)] * 4))
    talk.open(pictures)
    return talk


async def _ask(engine: OpenAIEngine, talk: Conversation, spec: TurnSpec = SPEC) -> Turn | str:
    try:
        return await engine.turn(talk, spec)
    except ModelError as error:
        return str(error)


def _two() -> tuple[str, str]:
    left, right = random.sample(sorted(COLOURS), 2)
    return left, right


def _seen(turn: Turn | str, left: str, right: str, what: str, hint: str) -> Finding:
    if isinstance(turn, str):
        return Finding("absent", what, f"a picture of {left} and {right} got no reply: {turn}; {hint}")
    said = turn.text
    places = [said.lower().find(colour) for colour in (left, right)]
    if 0 <= places[0] < places[1]:
        return Finding("ok", what, f"a picture of {left} and {right} was seen")
    return Finding("absent", what, f"shown {left} and {right} it said {Mask('').quote(said)!r}; {hint}")


async def _sees(engine: OpenAIEngine, cell: int) -> Finding:
    left, right = _two()
    talk = _talk(_picture(16 * cell, 8 * cell, left, right))
    talk.commit(Segment("user", (MediaRef(1), Text(QUESTION))))
    found = _seen(await _ask(engine, talk), left, right, "images", "it cannot be evaluated on images")
    return replace_state(found, "broken")


def replace_state(finding: Finding, state: str) -> Finding:
    """The same finding; where it is not ok, in this state."""
    return finding if finding.state == "ok" else finding._replace(state=state)


async def _sees_answers(engine: OpenAIEngine, cell: int) -> Finding:
    """Whether an image in a tool message, where it answers a call, is seen."""
    left, right = _two()
    talk = _talk(_picture(16 * cell, 8 * cell, left, right))
    talk.commit(Segment("user", (Text(f"Call `look` to see the picture. {QUESTION}"),)))
    talk.commit(Segment("assistant", (Text(""),), (Call("look", {}, "call-1-1"),)))
    talk.commit(Segment("user", (Text("Here it is."), MediaRef(1)), answers=(("call-1-1", 2),)))
    turn = await _ask(engine, talk, replace(SPEC, tools=(LOOK,)))
    return _seen(turn, left, right, "tool images", "leave engine.mode at its default, user")


async def _calls(engine: OpenAIEngine) -> Finding:
    talk = _talk()
    talk.commit(Segment("user", (Text("Call the function `look` now; do nothing else."),)))
    turn = await _ask(engine, talk, replace(SPEC, tools=(LOOK,)))
    if not isinstance(turn, str) and any(call.name == "look" for call in turn.native_calls):
        return Finding("ok", "functions", "a function was called")
    said = turn if isinstance(turn, str) else repr(Mask("").quote(turn.text))
    flags = "vllm serve needs --enable-auto-tool-choice --tool-call-parser hermes, SGLang --tool-call-parser qwen"
    hint = f"{flags}; or use engine.mode=text, as for Qwen2.5-VL, whose chat template writes no functions"
    return Finding("absent", "functions", f"none was called ({said}); {hint}")


async def _sizes(engine: OpenAIEngine, cell: int) -> Finding:
    """Whether an image costs a token for each cell of it, up to the largest.

    vLLM and SGLang count what the model sees; what another count means, only its vendor can say.
    """
    counts: list[int] = []
    for side in SIDES:
        talk = _talk(_picture(side * cell, side * cell, "red", "blue"))
        talk.commit(Segment("user", (MediaRef(1), Text(QUESTION))))
        turn = await _ask(engine, talk, TurnSpec(16))
        if isinstance(turn, str):
            return Finding("broken", "sizes", f"an image of {side * cell}x{side * cell} is refused: {turn}")
        counts.append(turn.usage.prompt_tokens)
    if not all(counts):
        return Finding("absent", "sizes", "the server counts no tokens, so that nothing tells whether it resizes")
    for before, after, small, large in zip(counts, counts[1:], SIDES, SIDES[1:], strict=False):
        wanted = large**2 - small**2
        if abs(after - before - wanted) > SLACK:
            size = f"{large * cell}x{large * cell}"
            if engine.server.software not in DOCUMENTED:
                said = (
                    f"an image of {size} costs {after - before} tokens more than one of {small * cell}x{small * cell}"
                )
                return Finding("absent", "sizes", f"{said}, not {wanted}: it counts or resizes in a way of its own")
            return Finding(
                "broken",
                "sizes",
                f"an image of {size} costs {after - before} tokens more than one of {small * cell}x{small * cell}, not "
                f"{wanted}: it is resized; raise the server's max_pixels, lower the budget, or give the right --cell",
            )
    largest = SIDES[-1] * cell
    return Finding(
        "ok", "sizes", f"a token for each {cell}x{cell} pixels up to {largest}x{largest}: images are not resized"
    )
