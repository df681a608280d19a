"""Rollouts in a line each: an engine that says what it is told, in ids of a real tokenizer."""

import math
from dataclasses import dataclass, replace

import numpy as np
from prh.harness.engine import Caps, Turn, Usage
from prh.harness.evaluate import load_profile, load_task
from prh.tests.training.lessons import crop, lesson, setting
from prh.training.compose import Composer, Library
from prh.training.config import build
from prh.training.grpo_config import GrpoConfig
from prh.training.questions import Questions
from prh.training.replay import Store
from prh.training.rewards import compose
from prh.training.rollouts import Rollouts, Round
from prh.training.rounds import Jury, entries, plan

TASK = "vstar-mini"
LOOK, FAR, WRONG = crop(0.1, 0.1, 0.6, 0.6), crop(0.3, 0.2, 0.9, 0.8), crop(0.9, 0.9, 0.2, 0.2)
RIGHT_ANSWER, WRONG_ANSWER = "It is \\boxed{A}.", "It is surely \\boxed{B}."
# What the eight rollouts of a question say, in turn: with and without a look, right and wrong, short and long.
PARTS = (
    (LOOK, RIGHT_ANSWER),
    (RIGHT_ANSWER,),
    (WRONG_ANSWER,),
    (LOOK, FAR, RIGHT_ANSWER),
    (WRONG, RIGHT_ANSWER),
    (LOOK, WRONG_ANSWER),
    (WRONG, LOOK, "I see nothing there."),
    (LOOK, RIGHT_ANSWER),
)


def logprob(number: int, place: int) -> float:
    """A log-probability to record, which no model gave."""
    return -0.2 - 3.0 * ((37 * number + 11 * place) % 17) / 17


class Actor:
    """An engine that says ``script(sample id, repeat, turn)``, a text or ids, with made-up log-probabilities."""

    caps = Caps(token_ids=True, logprobs=True)
    fingerprint = "actor"

    def __init__(self, engine, script=None):
        self.engine = engine
        self.script = script or (lambda name, repeat, turn: PARTS[repeat % len(PARTS)][turn])
        self.vision_ids = engine.vision_ids
        self.module, self.processor, self.context, self.pad = (
            engine.module,
            engine.processor,
            engine.context,
            engine.pad,
        )
        self.end = engine._encoder.ends[0]
        self.specs = []

    def fit(self, size, budget):
        return self.engine.fit(size, budget)

    def encode(self, conversation, *, pixels=True):
        return self.engine.encode(conversation, pixels=pixels)

    async def turn(self, conversation, spec):
        self.specs.append(spec)
        name, _, repeat = conversation.key.rpartition("#")
        said = self.script(name, int(repeat), conversation.turns)
        if isinstance(said, Exception):
            raise said
        ids = [*self.processor.encode(said, opening=False), self.end] if isinstance(said, str) else list(said)
        ids = ids[: spec.max_new_tokens]
        finish = "stop" if ids[-1] == self.end else "length"
        text = self.processor.decode(ids[:-1] if ids[-1] == self.end else ids)
        if self.vision_ids & set(ids):
            finish = "malformed"
        logprobs = tuple(round(logprob(int(repeat), place), 6) for place in range(len(ids)))
        before = len(self.engine.encode(conversation).ids)
        return Turn(text, tuple(ids), logprobs, finish, usage=Usage(before, len(ids)))

    async def release(self, conversation):
        pass

    def forget(self):
        pass

    def describe(self):
        return {"name": "actor", "factor": self.processor.factor}

    async def close(self):
        pass


def config(**parts) -> GrpoConfig:
    """A configuration with two questions of eight rollouts, some of it changed: ``loss={"kind": "grpo"}``."""
    values = {
        "model": {"base": "tiny-init"},
        "data": [{"task": TASK}],
        "reward": {"correct": {}, "curiosity-paper": {}},
        "rollout": {"queries": 2, "group": 8},
        "train": {"batch": 16, "micro": 1 << 30},
    }
    for name, value in parts.items():
        own = values.get(name)
        merge = isinstance(own, dict) and isinstance(value, dict) and name != "reward"
        values[name] = {**own, **value} if merge else value
    return build(GrpoConfig, values)


def questions(numbers=(0, 2), **over) -> dict[str, Questions]:
    """Questions about noise, two of which show one and two pictures; 3 and 7 show none."""
    samples = [replace(lesson(number).sample, gold=("A",), slices=("needs_operation",)) for number in numbers]
    own = setting(sampling={"temperature": 1.0}, **over)
    return {TASK: Questions(load_task(TASK), {one.id: one for one in samples}, own, load_profile("strict"), "noise")}


@dataclass
class Stage:
    """A round of rollouts on the disk, and what reads it."""

    config: GrpoConfig
    questions: dict[str, Questions]
    rollouts: Rollouts
    wanted: Round
    engine: object

    @property
    def records(self):
        return self.rollouts.read(self.wanted.number, TASK)

    def judged(self):
        jury = Jury(self.config, compose(self.config.reward), self.engine.vision_ids)
        return jury.judge(self.questions[TASK], self.records)

    def rows(self):
        return entries(self.judged(), self.wanted)

    def updates(self, store=None):
        return plan(self.judged(), self.wanted, store or Store(self.config.replay), self.config)

    def composer(self, changed=None, *, rank=0, world=1, empty=None, once=True):
        chosen = changed or self.config
        rollouts = Rollouts(chosen, self.questions, self.rollouts.out, rank, world)
        return Composer(chosen, Library(rollouts, 0), self.engine, empty, once=once)


def stage(out, engine, script=None, chosen=None, asked=None, number=0, version=0) -> Stage:
    """Sample a round by an actor."""
    made = on_disk(out, engine, chosen or config(), asked or questions(), number, version)
    actor = Actor(engine, script)
    made.rollouts.begin(made.wanted, actor, ["prh"])
    made.rollouts.sample(made.wanted, actor)
    return made


def on_disk(out, engine, chosen, asked, number=0, version=0) -> Stage:
    """A round that has been sampled."""
    wanted = Round(number, version, [(TASK, name) for name in asked[TASK].samples])
    return Stage(chosen, asked, Rollouts(chosen, asked, out), wanted, engine)


# -- from scratch ----------------------------------------------------------------------------------------------


def reference(part, rows, lengths):
    """A loss by its definition, a rollout after another.

    Args:
        rows: of each rollout: new, old and sampled log-probabilities (float64 arrays), its advantage, and reference
            log-probabilities or None.
        lengths: trained tokens of each.
    """
    total, count = sum(lengths), len(lengths)
    loss = 0.0
    for (new, old, sampled, advantage, base), length in zip(rows, lengths, strict=True):
        whole = math.exp(sum(n - o for n, o in zip(new, old, strict=True)) / max(1, length))
        product = math.exp(sum(o - s for o, s in zip(old, sampled, strict=True)))
        each = 0.0
        for place in range(length):
            ratio = whole if part.kind == "gspo" else math.exp(new[place] - old[place])
            clipped = min(max(ratio, 1 - part.low), 1 + part.high)
            gap = product if part.level == "sequence" else math.exp(old[place] - sampled[place])
            kept = {"truncate": min(gap, part.cap), "mask": gap if gap <= part.cap else 0.0}
            value = -min(ratio * advantage, clipped * advantage) * kept.get(part.correction, 1.0)
            if base is not None:
                away = base[place] - new[place]
                value += part.beta * (math.exp(away) - away - 1)
            each += value
        loss += {
            "grpo": each / max(1, length) / count,
            "gspo": each / max(1, length) / count,
            "dapo": each / total,
            "dr_grpo": each / (part.length * count),
        }[part.kind]
    return loss


def spoken(record, what="ids"):
    """What a record's turns hold, one after another."""
    return [value for turn in record["segments"] if turn["role"] == "assistant" for value in turn[what]]


def floats(values):
    return np.asarray(values, dtype=np.float32)
