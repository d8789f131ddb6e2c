"""What the workers of a sweep do: made in the driver, sent to the workers, opened there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.measurement import Assignment, Found
from orchestrator.plan import Plan
from orchestrator.plugins.luggage import Luggage
from orchestrator.rungs import Reached, RungRule
from orchestrator.storage.store import Store
from orchestrator.told import Told

if TYPE_CHECKING:
    from orchestrator.splits import Split
    from orchestrator.training import TrainingData


class Trains(Protocol):
    """One trial, from rung to rung."""

    def advance(self) -> Reached: ...

    def facts(self) -> dict[str, Any]: ...


class Evaluates(Protocol):
    """Measures finished models, one at a time."""

    def evaluate(self, assignment: Assignment, split: Split) -> Found: ...


class Work(Protocol):
    """Makes the workers' insides, in their own processes. `has_gpu` says whether the worker was given one.

    `load_modules` is called once, before a worker's time counts.
    """

    def load_modules(self) -> None: ...

    def trainer(self, plan: Plan, told: Told, load: Callable[[], TrainingData], has_gpu: bool) -> Trains: ...

    def evaluator(self, has_gpu: bool) -> Evaluates: ...


@dataclass(frozen=True)
class TorchWork:
    """Training and attacking for real. `rules` are by cell; `threads` each worker may use; `luggage` holds plugins.

    Imports torch only in the worker, so that this module costs nothing where other work is done.
    """

    store: Store
    rules: Mapping[str, RungRule]
    trainer_threads: int
    evaluator_threads: int
    luggage: Luggage = field(default_factory=Luggage)

    def load_modules(self) -> None:
        self.luggage.unpack()
        import orchestrator.judging
        import orchestrator.loading  # noqa: F401

    def trainer(self, plan: Plan, told: Told, load: Callable[[], TrainingData], has_gpu: bool) -> Trains:
        from orchestrator.loading import trainer

        device = _device(has_gpu, self.trainer_threads)
        return trainer(plan, self.rules[plan.cell], load(), self.store.files, device, told)

    def evaluator(self, has_gpu: bool) -> Evaluates:
        from orchestrator.judging import Evaluator

        return Evaluator(self.store, _device(has_gpu, self.evaluator_threads))


def _device(has_gpu: bool, threads: int) -> str:
    import torch

    torch.set_num_threads(threads)
    if not (has_gpu and torch.cuda.is_available()):
        return "cpu"
    torch.cuda.empty_cache()
    return "cuda"
