"""Our loop as a model of lmms-eval: ``python -m lmms_eval --model prh --model_args model=CKPT,protocol=NAME``.

lmms-eval asks for all of its requests at once. They are run as one evaluation each task, durable and resumable like any
other, in run folders below ``out``; ``prh show`` reads the traces. What lmms-eval scores is the answer that the profile
``strict`` reads, or the whole reply with ``reply=whole``. A task's ``max_new_tokens``, ``until`` and temperature are
made for single replies and are left alone: the limits are those of the protocol and of ``model_args``.

Imports lmms-eval, which imports this.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image

from ..harness.digests import cache_dir
from ..harness.engine import Engine
from ..harness.errors import DataError, ModelError, UsageError
from ..harness.evaluate import DEFAULT_PROFILE, Plan, check_calls, find_engine, load_profile, numerics, run
from ..harness.manifest import check_samples, dataset_fingerprint
from ..harness.media import Media
from ..harness.record import Record, final_text, key_of
from ..harness.request import Request, data_options, engine_options, error_share
from ..harness.scoring import check_reads
from ..harness.settings import check_keys, put, resolve
from ..harness.store import read_records
from ..harness.task import DataOptions, Dataset, Row, Task
from ..harness.types import ERROR_STATES, AnswerKind, Chance, Json, Metric, Sample

LOG = logging.getLogger("prh")
REPLIES = ("answer", "whole")
# Settings of what lmms-eval does itself.
THEIRS = ("split", "options_seed", "executor")


class Scored:
    """A task of lmms-eval whose answers are scored elsewhere; see ``harness.task.Task``."""

    summary = "scored by lmms-eval"
    answer_kind: AnswerKind = "text"
    primary = "rapr"
    chance = Chance()
    settings: Mapping[str, Json] = {}
    illegible_at: int | None = None
    splits = ("test",)

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, options: DataOptions) -> Dataset:
        """Its rows come from lmms-eval."""
        raise DataError(f"{self.name} is run by lmms-eval; run it there again")

    def score(self, sample: Sample, answer: str | None) -> dict[str, float]:
        """Nothing: lmms-eval scores."""
        return {}

    def aggregate(self, rows: Sequence[Row]) -> dict[str, Metric]:
        """Nothing: lmms-eval scores."""
        return {}


class Kept:
    """An engine that stays open from one task to the next."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    async def close(self) -> None:
        """It is closed with the process."""


class PrhModel(lmms):  # type: ignore[misc]
    """The model ``prh`` of lmms-eval.

    Args of ``--model_args``: ``model`` as for ``prh eval``; ``protocol``, ``engine``, ``device``, ``dtype``,
    ``concurrency``, ``seed``, ``out`` and ``reply``; and any setting of ``prh.toml``, such as ``limits.turns=3`` or
    ``budget.input=[401408,4014080]``, but for those of the data and of who runs the episodes, which lmms-eval decides.
    """

    is_simple = False

    def __init__(
        self,
        model: str,
        protocol: str | None = None,
        engine: str | None = None,
        out: str = "runs/lmms-eval",
        reply: str = "answer",
        concurrency: int = 24,
        seed: int = 0,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if reply not in REPLIES:
            raise UsageError(f"reply={reply} must be one of {', '.join(REPLIES)}")
        chosen = nested({**settings, **({"protocol": protocol} if protocol else {})})
        check_keys(chosen, "--model_args")
        for key in THEIRS:
            if key in chosen:
                raise UsageError(f"--model_args: `{key}` is decided by lmms-eval; leave it out")
        if str(batch_size).isdigit() and int(str(batch_size)) > 1:
            chosen.setdefault("batch", int(str(batch_size)))
        self.request = Request(
            model, "lmms", Path(out), engine, seed=int(seed), concurrency=int(concurrency), device=device or "auto",
            dtype=dtype, overrides=chosen,
        )  # fmt: skip
        self.error_share = error_share(self.request)
        self.profile = load_profile(str(self.request.option("profile", DEFAULT_PROFILE)))
        task = cast(Task, Scored("lmms"))
        check_reads(self.profile, task)
        factory = find_engine(model, engine)
        layers = [("prh.json", factory.defaults(model)), ("--model_args", chosen)]
        self.setting = resolve(layers, self.request.seed)
        wanted = engine_options(self.request, self.setting, task, Dataset((), {}), data_options(self.request, task))
        self.engine = factory.open(model, replace(wanted, train=tuple))
        check_calls(self.setting, self.engine)
        self.whole = reply == "whole"

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """The answers, in order. Raises ModelError where too many episodes ended in an error."""
        found: dict[tuple[str, str], list[int]] = {}
        for number, request in enumerate(requests):
            *_, task, split = request.args
            found.setdefault((task, split), []).append(number)
        results: list[GenerationResult] = [GenerationResult("")] * len(requests)
        for (task, split), numbers in found.items():
            made = self._evaluate(task, split, [requests[number] for number in numbers])
            for number, result in zip(numbers, made, strict=True):
                results[number] = result
        return results

    def _evaluate(self, task: str, split: str, requests: Sequence[Instance]) -> list[GenerationResult]:
        asked: Counter[str] = Counter()
        keys: list[tuple[str, int]] = []
        samples: dict[str, Sample] = {}
        for request in requests:
            _, messages, _, number, *_ = request.args
            name = str(number)
            if name not in samples:
                samples[name] = read_sample(name, messages(self.task_dict[task][split][number]))
            keys.append((name, asked[name]))
            asked[name] += 1
        plan = self._plan(task, split, list(samples.values()), max(asked.values()))
        result = run(plan)
        if result.signal:
            raise KeyboardInterrupt
        if result.failed:
            message = f"{result.error_share:.1%} of the episodes of {task} ended in an error, which is no answer"
            raise ModelError(f"{message}; run the same command again to try them again")
        records = {key_of(record): record for record in read_records(result.folder)}
        LOG.info("traces of %s: prh show %s", task, result.folder)
        return [self._result(records[key]) for key in keys]

    def _plan(self, task: str, split: str, samples: Sequence[Sample], repeats: int) -> Plan:
        check_samples(samples, task)
        own = Scored(f"lmms:{task}")
        dataset = Dataset(tuple(samples), {"layout": "lmms-eval", "split": split, "counts": {"all": len(samples)}})
        command = ("lmms_eval", "--model", "prh", "--tasks", task)
        out = self.request.out / task
        request = replace(self.request, task=own.name, out=out, repeats=repeats, command=command)
        identity: dict[str, Json] = {
            "task": own.name,
            "split": split,
            "dataset": dataset_fingerprint(samples),
            "model": self.engine.fingerprint,
            "numerics": numerics(self.engine.describe(), dataset, self.setting),
            **self.setting.identity(),
        }
        engine = cast(Engine, Kept(self.engine))
        return Plan(
            request,
            cast(Task, own),
            self.profile,
            dataset,
            samples,
            engine,
            self.setting,
            identity,
            self.error_share,
            (),
        )

    def _result(self, record: Record) -> GenerationResult:
        usage = cast("dict[str, int]", record["usage"])
        counts = TokenCounts(input_tokens=usage["prompt_tokens"], output_tokens=usage["new_tokens"])
        text = final_text(record) if record["end"] not in ERROR_STATES else None
        if text is None:
            return GenerationResult("", counts)
        if self.whole:
            return GenerationResult(text, counts)
        sample = Sample(str(record["id"]), "", (), (), "text")
        answer, _ = self.profile.extract(cast(Task, Scored("")), sample, text, self.setting.protocol.answer_tag)
        return GenerationResult(text if answer is None else answer, counts)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not what a conversation gives."""
        raise NotImplementedError("the model prh answers generate_until tasks alone; choose others")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Rounds are the protocol's here, not the task's."""
        raise NotImplementedError("the model prh answers generate_until tasks alone; choose others")


def nested(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Settings with dotted names as tables, and texts that are lists or tables read as TOML. Raises UsageError."""
    values: dict[str, Json] = {}
    for key, value in settings.items():
        put(values, key, _value(key, value), f"--model_args: {key}={value}")
    return values


def _value(key: str, value: Json) -> Json:
    """lmms-eval reads numbers and truths; a list reaches us as its text."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return cast(Json, tomllib.loads(f"value = {value}")["value"])
    except (ValueError, RecursionError):
        raise UsageError(
            f"--model_args: {key}={value[:200]} is neither a list nor a table as TOML writes them"
        ) from None


def read_sample(name: str, messages: Sequence[Mapping[str, Any]]) -> Sample:
    """One row as lmms-eval writes it: texts as one question, images and videos in order.

    Raises:
        DataError: it holds something else, such as examples with their answers, or sound.
    """
    texts: list[str] = []
    media: list[Media] = []
    for message in messages:
        if message["role"] not in ("user", "system"):
            raise DataError(f"row {name} holds a message of the role {message['role']!r}; run it without examples")
        for part in message["content"]:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            else:
                media.append(_medium(part, f"{name}-{len(media) + 1}"))
    return Sample(name, "\n".join(texts), tuple(media), (), "text", cluster=name)


def _medium(part: Mapping[str, Any], name: str) -> Media:
    held = part.get("url")
    if part["type"] == "image" and isinstance(held, Image.Image):
        return Media("image", name, _stored(held))
    if part["type"] in ("image", "video") and isinstance(held, (str, Path)):
        return Media("video" if part["type"] == "video" else "image", name, Path(held))
    raise DataError(
        f"row {name.partition('-')[0]} holds {part['type']} as {type(held).__name__}, which cannot be shown"
    )


def _stored(image: Image.Image) -> Path:
    """An image as a file of the cache, so that a long list of rows does not stay in memory."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    path = cache_dir() / "lmms" / "images" / f"{hashlib.sha256(data).hexdigest()}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(path)
    return path
