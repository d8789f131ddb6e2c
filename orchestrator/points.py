"""What gives a search its suggestions where no Optuna sampler does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

Worth = tuple[float, ...]  # how good a suggestion was, as it is compared: the smaller the better


class Points(ABC):
    """Suggestions by their place, beginning at 0. A series that learns hears how they ended, and tells its record."""

    @abstractmethod
    def point(self, place: int) -> dict[str, Any]:
        """The internal coordinates of a suggestion, by path."""

    def attrs(self, place: int) -> dict[str, Any]:
        """JSON values that `restore` must be given in another process."""
        return {}

    def restore(self, place: int, attrs: Mapping[str, Any]) -> None:  # noqa: B027 - most need nothing
        """Put back a suggestion that was made before, in order of place."""

    def ended(self, place: int, worth: Worth) -> None:  # noqa: B027
        """A suggestion has ended."""
