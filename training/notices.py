"""What a user is told on the way that ends nothing: one line each, whoever finds it, wherever it is found."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..harness.terminal import safe


class Notice(UserWarning):
    """Something was left out; a command says it in a line, a library warns."""


@contextmanager
def notices() -> Iterator[None]:
    """Say each ``Notice`` in one line on standard error; other warnings are shown as Python shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                click.echo(f"warning   {safe(' '.join(str(message).split()))}", err=True)
            else:
                other(message, category, *place, **more)

        warnings.showwarning = show
        yield
