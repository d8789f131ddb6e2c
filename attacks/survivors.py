"""The examples of a run that are still attacked: who is fooled leaves with the point that fooled it."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.queries import Queries
from attacks.sources import is_stochastic
from attacks.worst import Worst

LEAST_ROWS = 16
_LOOKS_BETWEEN = 5  # on a GPU, whose queue every count of the fooled empties


def filled(rows: Tensor) -> Tensor:
    """Positions, on the CPU repeated until they are 16 where there are any: what an attack hands to a model.

    From 16 rows on, convolutions and matrix products on the CPU round a row alike in every batch (measured, in
    float32); below, other kernels are chosen, and an example's path would hang on how many are attacked beside it.
    """
    if rows.is_cuda or not 0 < len(rows) < LEAST_ROWS:
        return rows
    return rows[torch.arange(LEAST_ROWS) % len(rows)]


class Survivors:
    """The rows `x`, `y`, `draws` of a batch that are left; fewer after a `see` that gives positions.

    Nobody leaves a stochastic model, which may err by chance, nor on a margin that rounding could take back. What an
    example's last point is does not depend on when its row is dropped, nor on the rest of the batch. A run that begins
    with 16 rows or more keeps as many (`filled`), while anybody is left.
    """

    def __init__(self, queries: Queries, x: Tensor, y: Tensor, draws: Draws) -> None:
        self.x, self.y, self.draws = x, y, draws
        self._worst = Worst(x, y)  # of the whole batch; of those who are left, when they leave
        self._here = Worst(x, y)
        self._rows = torch.arange(len(x), device=x.device)
        self.may_leave = queries.looks == 1 and not is_stochastic(queries.model)
        self._fills = len(x) >= LEAST_ROWS
        self._looks = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def adversarial(self) -> Tensor:
        """The worst point of each row that is left."""
        return self._here.adversarial

    def see(self, point: Tensor, logits: Tensor, is_allowed: Tensor | None = None) -> Tensor | None:
        """Take note of the points of all who are left; where some leave, gives the positions of those who stay.

        Points that are not allowed do not count.
        """
        is_open = ~self._here.is_clear if self.may_leave else None
        if is_allowed is not None:
            is_open = is_allowed if is_open is None else is_open & is_allowed
        self._here.see(point, logits, is_open)
        self._looks += 1
        if not self.may_leave or self._is_waiting(point):
            return None
        return self._part()

    def see_some(self, rows: Tensor, point: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same for points of those at the positions `rows`; first, the positions whose worst point this is now."""
        taken = self._here.see_some(rows, point, logits)
        return taken, self._part() if len(taken) else None

    def dismiss(self, is_done: Tensor) -> Tensor | None:
        """Let these rows go, with the worst point they have, fooled or not; gives the positions of those who stay.

        On a GPU it may be a few looks until they do: `is_done` must then still say so.
        """
        return None if self._is_waiting(is_done) else self._part(is_done)

    def _is_waiting(self, like: Tensor) -> bool:
        return like.is_cuda and self._looks % _LOOKS_BETWEEN > 0

    def _part(self, is_done: Tensor | None = None) -> Tensor | None:
        staying = (~self._here.is_clear if is_done is None else ~is_done).nonzero().flatten()
        if len(staying) == len(self):
            return None
        staying = filled(staying) if self._fills else staying
        self._worst.put(self._rows, self._here)
        self._here, self._rows = self._here.select(staying), self._rows[staying]
        self.x, self.y, self.draws = self.x[staying], self.y[staying], self.draws.select(staying)
        return staying

    def worst(self) -> Worst:
        """What was found, of the whole batch."""
        self._worst.put(self._rows, self._here)
        return self._worst
