"""The configurations of a search: each has a trial for every seed, and the numbers under which it was suggested."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.outcomes import Headline, measured
from orchestrator.plan import Plan
from orchestrator.records import Record


@dataclass
class Configured:
    """One configuration. `trials` are in the order of their seeds; the first decides whether there will be others."""

    trials: list[Record]
    numbers: list[int] = field(default_factory=list)
    is_told: bool = False  # to its study, by this process

    @property
    def first(self) -> Record:
        return self.trials[0]

    @property
    def is_pruned(self) -> bool:
        return bool(self.first.ended and self.first.ended["status"] == "pruned")

    def measured(self, headline: Headline) -> list[Record]:
        """The trials that have the figures which are due at the top."""
        return measured(self.trials, headline)

    def may_win(self, headline: Headline) -> bool:
        """Whether it has figures, and no model that is degenerate."""
        return bool(self.measured(headline)) and not any(record.is_degenerate for record in self.trials)


class Configurations:
    """All of them, by the id that the trials of a configuration share. `seeds` are those that each is trained with.

    The other seeds of a configuration are begun when the training of the first has ended without being stopped early.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = list(seeds)
        self._by_id: dict[str, Configured] = {}
        self._counts: Counter[str] = Counter()
        self._due: deque[tuple[Plan, Record]] = deque()
        self._planned: set[str] = set()

    def __contains__(self, config_id: str) -> bool:
        return config_id in self._by_id

    def __getitem__(self, config_id: str) -> Configured:
        return self._by_id[config_id]

    def in_cell(self, cell: str) -> list[Configured]:
        return [found for found in self._by_id.values() if found.first.plan.cell == cell]

    def count(self, cell: str) -> int:
        """How many configurations of a cell there are."""
        return self._counts[cell]

    def add(self, record: Record) -> None:
        """Note a trial."""
        found = self._by_id.get(record.plan.config_id)
        if found is None:
            self._by_id[record.plan.config_id] = Configured([record])
            self._counts[record.plan.cell] += 1
        else:
            found.trials.append(record)
            found.trials.sort(key=lambda trial: trial.plan.seed)

    def is_compared(self, plan: Plan) -> bool:
        """Whether a trial is one that the rungs compare: the first of its configuration."""
        return plan.seed == self._seeds[0]

    def is_whole(self, found: Configured) -> bool:
        """Whether no other seed is to be trained."""
        return found.is_pruned or len(found.trials) >= len(self._seeds)

    def begin_others(self, found: Configured) -> None:
        """Have the seeds that a configuration lacks trained next, if its first has shown that it is worth it."""
        first = found.first
        if first.ended is None or self.is_whole(found):
            return
        there = {record.plan.seed for record in found.trials}
        for seed in self._seeds:
            plan = first.plan.with_seed(seed) if seed not in there else first.plan
            if seed not in there and plan.trial_id not in self._planned:
                self._planned.add(plan.trial_id)
                self._due.append((plan, first))

    def next_due(self) -> tuple[Plan, Record] | None:
        """Another seed that is to be trained now, and the trial of the first."""
        return self._due.popleft() if self._due else None

    @property
    def due(self) -> int:
        """How many trials of other seeds wait to be begun."""
        return len(self._due)

    @property
    def have_several_seeds(self) -> bool:
        return len(self._seeds) > 1
