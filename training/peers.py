"""The processes of a training, and how what fails on one of them fails on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from accelerate import Accelerator

from ..harness.errors import ModelError, PrhError, StoreError

# Of what one process tells the others, in bytes.
LONGEST = 600
R = TypeVar("R")


class Peers:
    """The processes of a training. Whatever is asked here, every process must ask."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.device: int | None = accelerator.device.index if accelerator.device.type == "cuda" else None

    def told(self, text: str) -> list[str]:
        """What each process says, in their order, cut to ``LONGEST`` bytes."""
        if self.world == 1:
            return [text]
        data = text.encode()[:LONGEST].ljust(LONGEST, b"\0")
        mine = torch.tensor([list(data)], dtype=torch.uint8, device=self._accelerator.device)
        every = cast(torch.Tensor, self._accelerator.gather(mine)).cpu()
        return [bytes(row.tolist()).rstrip(b"\0").decode(errors="ignore") for row in every]

    def agree(self, work: Callable[[], R]) -> R:
        """What ``work`` gives, where it fails on no process; if it waits for others, it must fail on all by itself.

        Raises:
            PrhError: it failed here, and there is no other process.
            ModelError: it failed on one of several, on all of them with the words of the first that it failed on.
        """
        made: R | None = None
        fault: PrhError | None = None
        try:
            made = work()
        except PrhError as error:
            fault = error
        said = self.told(_words(fault))
        if fault is not None and self.world == 1:
            raise fault
        for rank, words in enumerate(said):
            if words:
                raise ModelError(f"process {rank}: {words}")
        return cast(R, made)

    def lead(self, work: Callable[[], object]) -> None:
        """Let the first process do something, and wait until it is done.

        Raises:
            PrhError: it failed, with its words on every process: as it was raised on the first, a StoreError on others.
        """
        fault: PrhError | None = None
        try:
            if self.rank == 0:
                work()
        except PrhError as error:
            fault = error
        words = self.told(_words(fault))[0]
        if fault is not None:
            raise fault
        if words:
            raise StoreError(words)


def _words(fault: PrhError | None) -> str:
    return "" if fault is None else str(fault) or type(fault).__name__
