"""The teacher ``annotation``: writes from what the data say of themselves. No model is asked."""

from __future__ import annotations

from collections.abc import Mapping

from ...harness.errors import DataError
from ...harness.types import Json, Sample
from ..templates import Analyses
from .asking import Cost
from .base import Case


class Annotation:
    """Fills the sentences of ``training.wording`` with the names and values of the annotations.

    Attributes:
        overview: whether it says something of the whole input first.
    """

    name = "annotation"

    def __init__(self, overview: bool) -> None:
        self.overview = overview

    def describe(self) -> Mapping[str, Json]:
        return {"name": self.name, "model": None, "how": "sentences filled in from annotations, without a model"}

    async def propose(self, case: Case) -> Sample:
        """Annotations ask nothing. Raises DataError."""
        raise DataError("there is no question, and annotations propose none; take the teacher endpoint")

    async def cost(self, case: Case) -> Cost:
        """Nothing."""
        return Cost()

    async def write(self, case: Case) -> Analyses:
        """The sentences of the question's form. Raises DataError where the annotations lack what they name."""
        try:
            overview = case.voice.say("overview") if self.overview else ""
            return Analyses(overview, case.voice.say("finding"))
        except KeyError as error:
            raise DataError(f"the annotations do not say {error}") from None

    async def close(self) -> None:
        """Nothing is held."""
