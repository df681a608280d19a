"""The ranks that ``accelerate launch`` or ``torchrun`` started, talking through gloo."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from ..harness.errors import Prerequisite, UsageError
from ..harness.sharing import LostRank
from ..harness.types import Json

R = TypeVar("R")
# Ranks wait for the slowest of them, and it may be slow; one that ends is noticed at once.
PATIENCE = timedelta(days=30)
# They are all started at about one time; longer than this nobody comes any more.
MEETING = timedelta(minutes=30)


class Ranks:
    """This process among its launcher's.

    Attributes:
        rank: from 0.
    """

    def __init__(self) -> None:
        try:
            import torch.distributed as dist
        except ImportError:
            raise Prerequisite(
                "several ranks talk through torch, which is not installed: pip install 'prh[hf]'"
            ) from None
        if not dist.is_initialized():
            _meet()
            atexit.register(_leave)
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def broadcast(self, value: Json) -> Json:
        """The value that rank 0 gives, in every rank. Raises LostRank."""
        import torch.distributed as dist

        found: list[Json] = [value]
        _noticed(lambda: dist.broadcast_object_list(found, src=0))
        return found[0]

    def gather(self, value: Json) -> list[Json]:
        """The values of all ranks, once all have come here. Raises LostRank."""
        import torch.distributed as dist

        found: list[Json] = [None] * self.size
        _noticed(lambda: dist.all_gather_object(found, value))
        return found


def _meet() -> None:
    """Join the group that the launcher's variables announce. Raises UsageError, LostRank."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=MEETING)))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        advice = "check MASTER_ADDR and MASTER_PORT, start all ranks with `accelerate launch` or `torchrun`"
        raise UsageError(
            f"the ranks that RANK and WORLD_SIZE announce cannot meet: {reason}; {advice}, or unset RANK and "
            "WORLD_SIZE to run alone"
        ) from None
    store.set_timeout(PATIENCE)
    _noticed(lambda: dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE))


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _noticed(call: Callable[[], R]) -> R:
    """What a call to the group gives; gloo raises RuntimeError where another rank is gone."""
    try:
        return call()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        message = f"a rank of this run ended before its work was done ({reason}); every finished episode is kept"
        raise LostRank(f"{message}, and the same command runs what is missing") from None
