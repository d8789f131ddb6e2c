"""Random search with square windows (Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import a_share, at_least
from attacks.draws import Draws
from attacks.queries import Queries
from attacks.rejected import Rejected
from attacks.sampling import attack_a_share
from attacks.square_moves import move_budget, set_window, stripes, tiles
from attacks.survivors import Survivors, filled
from attacks.threat import Threat
from attacks.windows import side_at


@dataclass(frozen=True)
class Square:
    """Changes one square window of the image at each of `queries`, and keeps what raises the margin.

    Asks for no gradient: a model that it beats other attacks on hides its own. A window covers the part `window` of the
    pixels at first, half of it after 10, 50, 200, ... queries. Each example has windows of its own, so that its answer
    does not depend on the batch; a query whose answer is known, as nothing is changed or the same was turned down
    before, costs no pass. In l1 it is the form of Croce, Hein 2021 (arXiv 2103.01208). `share` below 1 attacks only so
    large a part of the examples, chosen by their ids, and gives the others back as they are.
    """

    name: ClassVar[str] = "square"
    queries: int = 5000
    window: float = 0.8
    share: float = 1.0

    def __post_init__(self) -> None:
        at_least("queries", self.queries, 1)
        a_share("window", self.window)
        a_share("share", self.share)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device)

        def attack(queries: Queries, rows: Tensor, known: Draws) -> Tensor:
            return self._run(queries, x[rows], y[rows], threat, known.fork(self.name))

        return attack_a_share(model, x, self.share, draws, attack)

    def _run(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        survivors = Survivors(queries, x, y, draws)
        first = (stripes if threat.norm == "linf" else tiles)(x, threat, draws.fork("start"))
        survivors.see(first, queries.logits(first, survivors.draws.fork("query", 0)))
        remembers = threat.norm == "linf" and survivors.may_leave and Rejected.fits(x)
        rejected = Rejected(survivors.x) if remembers else None
        for query in range(1, self.queries):
            if not len(survivors):
                break
            side = side_at(query, self.window, *x.shape[2:])
            if rejected is None:
                self._ask_all(queries, survivors, threat, query, side)
            else:
                self._ask_new(queries, survivors, threat, query, side, rejected)
        return survivors.worst().adversarial

    def _ask_all(self, queries: Queries, survivors: Survivors, threat: Threat, query: int, side: int) -> None:
        source = survivors.draws.fork("query", query)
        numbers = source.fork("window").uniform(5 + survivors.x.shape[1])
        if threat.norm == "linf":
            _, proposal = set_window(survivors.x, survivors.adversarial, numbers, side, threat)
        else:
            proposal = move_budget(survivors.x, survivors.adversarial, numbers, side, threat)
        survivors.see(proposal, queries.logits(proposal, source))

    def _ask_new(
        self, queries: Queries, survivors: Survivors, threat: Threat, query: int, side: int, rejected: Rejected
    ) -> None:
        """The same, in linf, for those whose question is a new one."""
        source = survivors.draws.fork("query", query)
        numbers = source.fork("window").uniform(5 + survivors.x.shape[1])
        rows = rejected.unasked(numbers, side)
        x, point = survivors.x[rows], survivors.adversarial[rows]
        changing, proposal = set_window(x, point, numbers[rows], side, threat, ask_all=False)
        if not len(changing):
            return
        rows = rows[changing]
        asked = filled(torch.arange(len(rows)))
        logits = queries.logits(proposal[asked], source.select(rows[asked]))[: len(rows)]
        taken, staying = survivors.see_some(rows, proposal, logits)
        rejected.forget(taken)
        if staying is not None:
            rejected.select(staying)
