"""The teacher ``endpoint``: a model that sees the whole input and the cue, and writes what is said of them.

The model is anything that the harness's engines open, such as an OpenAI-compatible server. It is given the input,
the very crop or frames that the right call shows, the question and worked examples, and never the answer: it has to
find that itself, and where it finds another one its reply is refused. Its reply must be JSON of a fixed shape; what
it says before the cue is shown may not give the answer away, and nothing it says may look like a call, a box or a
tag. A reply that is not so is asked for again, a few times.
"""

from __future__ import annotations

import asyncio
import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from ...harness.digests import json_digest
from ...harness.engine import TurnSpec
from ...harness.episode import turn_seed
from ...harness.errors import DataError
from ...harness.ledger import Conversation, Draft, MediaRef, Part, Segment, Text
from ...harness.task import Profile, Task
from ...harness.types import LETTERS, Box, Json, PixelBudget, Sample, Size, Span
from ...harness.untrusted import loads
from ..gates import FORBIDDEN, answers, stated
from ..recipe import EndpointPart
from ..templates import Analyses
from . import prompts
from .asking import Asker, Cost, about, conversation_key, cost_of, served_name
from .base import Case

T = TypeVar("T")
LONGEST = 600
LONGEST_TARGET = 80
OPTIONS = 4


class Endpoint:
    """Asks a model for analyses.

    Attributes:
        profile: how its answer is read.
        seed: of its sampling.
    """

    name = "endpoint"

    def __init__(self, part: EndpointPart, profile: Profile, seed: int) -> None:
        self.part, self.profile, self.seed = part, profile, seed
        self.asker = Asker(part.model, part.engine, self.name)

    def describe(self) -> Mapping[str, Json]:
        texts = [value for name, value in sorted(vars(prompts).items()) if name.isupper()]
        return {
            "name": self.name,
            "model": served_name(self.part.model),
            "how": "a model that sees the input and the cue, and is not told the answer",
            "prompt": json_digest(cast(Json, texts))[:12],
            "temperature": self.part.temperature,
        }

    async def propose(self, case: Case) -> Sample:
        """A question about a detail of the cue. Raises DataError where the model finds none, ModelError."""
        if not case.plan.steps:
            raise DataError("a question is proposed about a cue, and there is none")

        def read(text: str) -> Sample:
            return read_proposal(text, case.sample, random.Random(f"{self.seed}\0{case.sample.id}"))  # noqa: S311

        return await self._asked(case, prompts.PROPOSE, read)

    async def write(self, case: Case) -> Analyses:
        """The analyses. Raises DataError after as many replies as may be asked for, ModelError."""
        form = prompts.FORMS[case.sample.answer_kind]
        asked = (prompts.ANALYSE if case.plan.steps else prompts.REASON).format(form=form)
        text = f"{prompts.QUESTION} {_question(case.sample)}\n\n{prompts.EXAMPLES}\n\n{asked}"
        return await self._asked(case, text, lambda reply: read_analyses(reply, case.sample, self.profile))

    async def cost(self, case: Case) -> Cost:
        """What one trajectory costs where the first reply will do."""
        conversation = await self._conversation(case, prompts.ANALYSE + prompts.EXAMPLES, about)
        one = cost_of(conversation, self.part.new_tokens)
        return one.plus(one) if case.seed.notes.get("propose") else one

    async def close(self) -> None:
        """Close its engine."""
        await self.asker.close()

    async def _asked(self, case: Case, text: str, read: Callable[[str], T]) -> T:
        engine = await self.asker.engine()
        conversation = await self._conversation(case, text, engine.fit)
        fault = DataError("no reply was asked for")
        for attempt in range(self.part.tries):
            seed = turn_seed(self.seed, case.sample.id, case.repeat, attempt)
            spec = TurnSpec(self.part.new_tokens, self.part.temperature if attempt else 0.0, 1.0, seed)
            key = conversation_key(
                conversation, served_name(self.part.model), spec.max_new_tokens, spec.temperature, seed
            )
            reply = self.asker.kept(key)
            if reply is None:
                reply = await self.asker.say(conversation, spec)
                await asyncio.to_thread(self.asker.keep, key, reply)
            try:
                return read(reply)
            except DataError as error:
                fault = error
        raise DataError(f"{fault} (after {self.part.tries} replies)")

    async def _conversation(self, case: Case, text: str, fit: Callable[[Size, Span], Size]) -> Conversation:
        span = Span(4 * 28**2, self.part.pixels)
        frame = Span(4 * 28**2, max(4 * 28**2, self.part.pixels // 4))
        key = f"{case.sample.id}#{case.repeat}#teacher"
        conversation = Conversation(key, case.sample.id, fit, PixelBudget(span, span, frame, frame))
        await asyncio.to_thread(_shown, conversation, case, text)
        return conversation


def _shown(conversation: Conversation, case: Case, text: str) -> None:
    """Put the whole input, the cue and what is asked into a conversation."""
    conversation.open(case.sample.media)
    drafts = _cue(conversation, case)
    items, pixels, _ = conversation.prepare(drafts)
    parts: list[Part] = [Text(prompts.WHOLE), *(MediaRef(item.index) for item in conversation.items)]
    if items:
        parts += [Text(prompts.CLOSER), *(MediaRef(item.index) for item in items)]
    conversation.commit(Segment("system", (Text(prompts.SYSTEM),)))
    conversation.commit(Segment("user", (*parts, Text(text))), items, pixels)


def _cue(conversation: Conversation, case: Case) -> list[Draft]:
    """What the right call shows, as it will show it."""
    steps, target = case.plan.steps, case.scene.target
    if not steps:
        return []
    frames = steps[-1].arguments.get("target_frames")
    if isinstance(frames, list):
        images = conversation.pixels(target).working
        chosen = [int(cast(int, frame)) for frame in frames]
        return [Draft(images[n - 1], target, Box(0, 0, *images[n - 1].size), "frame", n) for n in chosen]
    image, size = conversation.pixels(target).working[0], case.scene.sizes[target - 1]
    cut = case.scene.protocol.read_box(steps[-1].arguments, size)[1]
    scaled = cut.scaled(image.width / size.width, image.height / size.height)
    corners = (round(scaled.left), round(scaled.top), round(scaled.right), round(scaled.bottom))
    return [Draft(image.crop(corners), target, Box(*corners))]


def _question(sample: Sample) -> str:
    options = [f"({LETTERS[place]}) {choice}" for place, choice in enumerate(sample.choices)]
    return " ".join([sample.question, *options])


def read_object(text: str, keys: Mapping[str, type]) -> dict[str, Json]:
    """A JSON object with exactly these keys, alone or in one fence. Raises DataError."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    try:
        value = loads(fenced[1] if fenced else text)
    except ValueError as error:
        raise DataError(f"the reply is not JSON: {error}") from None
    if not isinstance(value, dict) or set(value) != set(keys):
        raise DataError(f"the reply must be an object with the keys {', '.join(keys)}")
    for name, kind in keys.items():
        if not isinstance(value[name], kind):
            raise DataError(f"`{name}` of the reply must be {kind.__name__}")
    return value


def plain(value: Json, name: str, longest: int) -> str:
    """Text that may be said: short, one paragraph, no tag, box or call in it. Raises DataError."""
    text = " ".join(str(value).split())
    if not text or len(text) > longest:
        raise DataError(f"`{name}` of the reply has {len(text)} characters; it may have 1 to {longest}")
    if FORBIDDEN.search(text) or "\\boxed" in text or "```" in text or "bbox_2d" in text or "target_frames" in text:
        raise DataError(f"`{name}` of the reply holds a tag, a call or a box")
    if any(unicodedata.category(character).startswith("C") for character in text):
        raise DataError(f"`{name}` of the reply holds characters that cannot be seen")
    return text


def read_analyses(text: str, sample: Sample, profile: Profile) -> Analyses:
    """The analyses in a reply. Raises DataError where it is malformed, says the answer early, or another answer."""
    value = read_object(text, {"overview": str, "target": str, "finding": str, "answer": str})
    overview, finding = (plain(value[name], name, LONGEST) for name in ("overview", "finding"))
    target = plain(value["target"], "target", LONGEST_TARGET)
    for name, said in (("overview", overview), ("target", target)):
        if found := stated(said, sample):
            raise DataError(f"`{name}` of the reply says {found!r} before the evidence is shown")
    answer = plain(value["answer"], "answer", LONGEST)
    read, _ = profile.extract(cast(Task, None), sample, f"\\boxed{{{answer}}}", "")
    if read is None or read.casefold() not in {gold.casefold() for gold in sample.gold}:
        raise DataError(f"the reply answers {answer[:40]!r}, which is not accepted")
    if not says(finding, sample):
        raise DataError("`finding` of the reply does not say the answer in words")
    return Analyses(overview, finding, target=re.sub(r"^(?:the|a|an) ", "", target, flags=re.IGNORECASE))


def says(finding: str, sample: Sample) -> bool:
    """Whether a finding says an accepted answer: word for word, or of a longer one most of its words."""
    said = set(re.findall(r"\w+", finding.casefold()))
    for answer in answers(sample):
        words = re.findall(r"\w+", answer.casefold())
        found = sum(word in said for word in words)
        if words and found >= (len(words) if len(words) < 4 else 0.6 * len(words)):
            return True
    return False


def read_proposal(text: str, sample: Sample, rng: random.Random) -> Sample:
    """The sample with the question that a reply proposes, its options shuffled. Raises DataError."""
    keys = {"valid": bool, "target": str, "question": str, "choices": list, "answer": str}
    value = read_object(text, keys)
    if not value["valid"]:
        raise DataError("the model finds no detail to ask about")
    question = plain(value["question"], "question", LONGEST)
    choices = [plain(choice, "choices", LONGEST_TARGET) for choice in cast("list[Json]", value["choices"])]
    answer = plain(value["answer"], "answer", LONGEST_TARGET)
    if len(choices) != OPTIONS or len({choice.casefold() for choice in choices}) != OPTIONS or answer not in choices:
        raise DataError(f"a proposal needs {OPTIONS} different options, the answer among them")
    if answer.casefold() in question.casefold():
        raise DataError("the question that is proposed holds its answer")
    rng.shuffle(choices)
    gold = (LETTERS[choices.index(answer)],)
    return replace(sample, question=question, choices=tuple(choices), gold=gold, answer_kind="option")
