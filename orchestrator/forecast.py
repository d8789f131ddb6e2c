"""Hours of each stage of a sweep, from what a probe has timed and how many of everything there will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.cluster.allocation import Allocation
from orchestrator.fates import Estimate
from orchestrator.outlook import CellOutlook, Outlook
from orchestrator.probe import Case, CellProbe

# Of what an evaluation could attack (every image at every eps, in every restart) how much it does attack: what is
# misclassified or was fooled before is not. 0.59 for `standard` and 0.83 for `pgd_at` in sweeps/quickstart.yaml.
ATTACKED = Estimate(0.7, 0.35, 1.0)


@dataclass(frozen=True)
class Stage:
    """`work` in hours of one worker after the other, `wall` on the slots of this machine, null where nothing fits."""

    name: str
    trials: float
    work: Estimate
    wall: Estimate | None


def forecast(found: Outlook, probes: Sequence[CellProbe], here: Allocation | None, is_on_gpu: bool) -> list[Stage]:
    """Training and rungs of the search, its final evaluations, training of the finalists, their test, and all.

    The low end has the smallest networks, few survivors of attacks and early stops, the high end the opposite, and on
    a GPU that workers share no gain from sharing. What Ray needs to start, some 10 to 30 seconds, is not in it.
    """
    pairs = list(zip(found.cells, probes, strict=True))
    finalists = found.finalist_trials
    top = sum(cell.fates.top.mean for cell in found.cells)
    search = _added([_search(found, cell, timed) for cell, timed in pairs])
    final = _added([_evaluated(found, timed, "final").by(cell.fates.top) for cell, timed in pairs])
    again = _added([_finalist(found, cell, timed).by(_exactly(cell.finalists * cell.seeds)) for cell, timed in pairs])
    test = _added([_evaluated(found, timed, "test").by(_exactly(cell.finalists * cell.seeds)) for cell, timed in pairs])
    beside = _added([_beside(found, cell, timed) for cell, timed in pairs])
    slots = None if here is None else min(here.slots, max(1, found.search_trials))
    evaluators = None if here is None else here.evaluators
    trial_share, evaluator_share = _shares(here) if is_on_gpu else (1.0, 1.0)
    stages = [
        _stage("search: training and rungs", found.search_trials, search, slots, trial_share),
        _stage("search: final evaluations", top, final, evaluators, evaluator_share),
        _stage("finalists: training", finalists, again, slots and min(slots, max(1, finalists)), trial_share),
        _stage("finalists: test", finalists, test, evaluators, evaluator_share),
    ]
    named = found.spec.evaluation.named
    if named:
        count = sum(finalists if block.of == "finalists" else top for block in named.values())
        stages.append(_stage(f"beside: {', '.join(named)}", count, beside, evaluators, evaluator_share))
    return [*stages, _together(stages)]


@dataclass(frozen=True)
class _Seconds:
    """Low, middle and high."""

    low: float
    mean: float
    high: float

    def by(self, count: Estimate) -> _Seconds:
        return _Seconds(self.low * count.low, self.mean * count.mean, self.high * count.high)


def _exactly(count: float) -> Estimate:
    return Estimate(count, count, count)


def _added(parts: Sequence[_Seconds]) -> _Seconds:
    return _Seconds(*(sum(getattr(part, end) for part in parts) for end in ("low", "mean", "high")))


def _over(timed: CellProbe, cost: Callable[[Case], float]) -> _Seconds:
    """Of one unit of work: the cheapest case, the mean by share, the dearest."""
    costs = [cost(case) for case in timed.cases]
    mean = sum(case.share * found for case, found in zip(timed.cases, costs, strict=True))
    return _Seconds(min(costs), mean, max(costs))


def _search(found: Outlook, cell: CellOutlook, timed: CellProbe) -> _Seconds:
    training = _over(timed, lambda case: case.epoch).by(cell.fates.epochs)
    rung = _evaluated(found, timed, "rung")
    return _added([training, *(rung.by(reached) for reached in cell.fates.reach.values())])


def _finalist(found: Outlook, cell: CellOutlook, timed: CellProbe) -> _Seconds:
    """One of them, from the first epoch to the last."""
    rungs = sum(map(len, cell.schedules)) / len(cell.schedules)
    training = _over(timed, lambda case: case.epoch).by(_exactly(cell.finalist_epochs))
    return _added([training, _evaluated(found, timed, "rung").by(_exactly(rungs))])


def _beside(found: Outlook, cell: CellOutlook, timed: CellProbe) -> _Seconds:
    """All further evaluations of a cell."""
    finalists = _exactly(cell.finalists * cell.seeds)
    return _added([
        _evaluated(found, timed, name).by(finalists if block.of == "finalists" else cell.fates.top)
        for name, block in found.spec.evaluation.named.items()
    ])  # fmt: skip


def _evaluated(found: Outlook, timed: CellProbe, name: str) -> _Seconds:
    """One evaluation."""
    if name not in timed.examples:
        return _Seconds(0.0, 0.0, 0.0)
    n, levels = timed.examples[name], len(found.evaluation(name).levels)
    attacking = _over(timed, lambda case: n * levels * sum(case.attacks[name])).by(ATTACKED)
    scoring = _over(timed, lambda case: n * levels * len(case.attacks[name]) * case.scoring)
    return _added([attacking, scoring])


def _shares(here: Allocation | None) -> tuple[float, float]:
    """How many workers of either kind have a GPU in common."""
    if here is None:
        return 1.0, 1.0
    return tuple(max(1.0, 1 / bundle.gpus) if bundle.gpus else 1.0 for bundle in (here.trial, here.evaluator))  # type: ignore[return-value]


def _stage(name: str, trials: float, seconds: _Seconds, workers: int | None, sharing: float) -> Stage:
    work = Estimate(seconds.mean / 3600, seconds.low / 3600, seconds.high / 3600)
    if workers is None:
        return Stage(name, trials, work, None)
    wall = Estimate(work.mean / workers, work.low / workers, work.high * min(sharing, workers) / workers)
    return Stage(name, trials, work, wall)


def _together(stages: Sequence[Stage]) -> Stage:
    """Final evaluations go on beside the search's training, tests beside that of the finalists: the longer counts.

    Evaluations beside these are the same evaluators' work, after the tests.
    """
    work = _total([stage.work for stage in stages])
    walls = [stage.wall for stage in stages]
    if any(wall is None for wall in walls):
        return Stage("all", stages[0].trials + stages[2].trials, work, None)
    known = [wall for wall in walls if wall is not None]
    longer = [_longer(*known[:2]), _longer(known[2], _total(known[3:]))]
    return Stage("all", stages[0].trials + stages[2].trials, work, _total(longer))


def _longer(one: Estimate, other: Estimate) -> Estimate:
    return Estimate(max(one.mean, other.mean), max(one.low, other.low), max(one.high, other.high))


def _total(parts: Sequence[Estimate]) -> Estimate:
    return Estimate(*(sum(getattr(part, end) for part in parts) for end in ("mean", "low", "high")))


def as_rows(stages: Sequence[Stage]) -> list[Mapping[str, str]]:
    """In words: hours, or minutes where they are few."""
    return [
        {
            "stage": stage.name,
            "trials": f"{stage.trials:,.3g}",
            "work": _span(stage.work),
            "here": _span(stage.wall) if stage.wall else "does not fit",
        }
        for stage in stages
    ]


def _span(hours: Estimate) -> str:
    unit, factor = ("h", 1.0) if hours.mean >= 1 else ("min", 60.0) if hours.mean >= 1 / 60 else ("s", 3600.0)
    mean, low, high = (f"{value * factor:.2g}" if value * factor < 100 else f"{value * factor:,.0f}"
                       for value in (hours.mean, hours.low, hours.high))  # fmt: skip
    return f"{mean} {unit} ({low} to {high})"
