"""How a turn is asked for on the wire: chat completions, whichever way calls are carried, or the Responses API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from ..harness.engine import Turn, TurnSpec
from ..harness.ledger import Conversation
from ..harness.protocol import TOOLS, Tool, function_schema, schemas
from ..harness.types import Json
from .openai_errors import Mask
from .openai_messages import Images, write_messages
from .openai_replies import read_reply
from .openai_responses import read_response, write_items
from .openai_server import Server, Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# What vLLM and SGLang would do otherwise: fill in what a request leaves out from the checkpoint's generation_config,
# such as Qwen's repetition penalty of 1.05, and drop special tokens from the text, so that a vision token in it,
# which makes a turn malformed, is not seen. A turn is drawn as its spec says, and told as it was drawn.
PLAIN: Mapping[str, Json] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
DOCUMENTED = ("vllm", "sglang")
OLD_LIMIT, NEW_LIMIT, RESPONSES_LIMIT = "max_tokens", "max_completion_tokens", "max_output_tokens"


class Raw(Protocol):
    """A response before it is read."""

    content: bytes


Create = Callable[..., Awaitable[Raw]]


class Wire(Protocol):
    """One API of a server.

    Attributes:
        limit: the field that limits a turn's tokens.
        seeds: whether it knows seeds.
    """

    limit: str
    seeds: bool

    def fields(self, conversation: Conversation, spec: TurnSpec, images: Images) -> dict[str, Json]:
        """The request, but for its limit of tokens. Raises ModelError."""
        ...

    def create(self, client: AsyncOpenAI) -> Create:
        """What sends it."""
        ...

    def read(self, body: bytes, stop: Sequence[str], number: int, mask: Mask) -> Turn:
        """The turn, the ``number``-th, that a body holds. Raises ServerError."""
        ...


class ChatWire:
    """Chat completions."""

    limit = OLD_LIMIT

    def __init__(self, server: Server, settings: Settings) -> None:
        self.server = server
        self.settings = settings
        self.seeds = "seed" not in settings.omitted

    def fields(self, conversation: Conversation, spec: TurnSpec, images: Images) -> dict[str, Json]:
        mode = self.settings.mode
        messages = write_messages(conversation, images, tool_images=mode == "tool")
        fields: dict[str, Json] = {
            "model": self.server.address.model,
            "messages": [],
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "seed": spec.seed,
        }
        if spec.tools and mode == "text":
            messages = _told(messages, spec.tools)
        elif spec.tools:
            fields["tools"] = [function_schema(tool) for tool in spec.tools]
        if spec.banned_ids:
            fields["logit_bias"] = {str(number): -100 for number in spec.banned_ids}
        if spec.stop:
            fields["stop"] = list(spec.stop)
        # The client walks through what it is given in any other way, part by part, against its types.
        fields["extra_body"] = {"messages": messages, **(PLAIN if self.server.software in DOCUMENTED else {})}
        return _without(fields, self.settings.omitted)

    def create(self, client: AsyncOpenAI) -> Create:
        return cast(Create, client.chat.completions.with_raw_response.create)

    def read(self, body: bytes, stop: Sequence[str], number: int, mask: Mask) -> Turn:
        return read_reply(body, stop, number, mask)


class ResponsesWire:
    """The Responses API, without anything stored at the server."""

    limit = RESPONSES_LIMIT
    seeds = False

    def __init__(self, server: Server, settings: Settings) -> None:
        self.server = server
        self.settings = settings

    def fields(self, conversation: Conversation, spec: TurnSpec, images: Images) -> dict[str, Json]:
        fields: dict[str, Json] = {
            "model": self.server.address.model,
            "input": [],
            "extra_body": {"input": write_items(conversation, images)},
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "store": False,
        }
        if spec.tools:
            fields["tools"] = [_function(tool) for tool in spec.tools]
        return _without(fields, self.settings.omitted)

    def create(self, client: AsyncOpenAI) -> Create:
        return cast(Create, client.responses.with_raw_response.create)

    def read(self, body: bytes, stop: Sequence[str], number: int, mask: Mask) -> Turn:
        return read_response(body, stop, number, mask)


def make_wire(server: Server, settings: Settings) -> Wire:
    """The API that the settings' mode means."""
    kind = ResponsesWire if settings.mode == "responses" else ChatWire
    return kind(server, settings)


def _function(tool: Tool) -> Json:
    """A tool as the Responses API declares it; not strict, since a schema need not close its objects."""
    words: dict[str, Json] = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "strict": False, **words}


def _told(messages: Sequence[Json], tools: Sequence[Tool]) -> list[Json]:
    """The messages with the tools written into the system message, in the words of Qwen's chat template."""
    text = TOOLS.format(tools=schemas(tools))
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") == "system":
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _without(fields: dict[str, Json], omitted: Sequence[str]) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if name not in omitted}
