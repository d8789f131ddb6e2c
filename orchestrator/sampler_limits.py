"""The samplers by name: what each can search, what it cannot, and what it leaves to chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.gridpoints import endless
from orchestrator.holes import Choice, Hole
from orchestrator.space import Space
from orchestrator.spec_models import SearchSpec

POPULATION = 20  # of NSGA-II and III; Optuna's 50 would leave most sweeps in their first, random generation


@dataclass(frozen=True)
class Kind:
    """What a sampler can search, and how much of the past it must see."""

    objectives: int | None = None  # at most; None: any number
    conditions: bool = True  # whether holes may hold only sometimes
    leaves_to_chance: str = ""  # which holes it draws at random
    is_windowed: bool = True  # whether the best and newest trials are enough for it
    learns_from_others: bool = True  # whether trials of other runs say anything to it


KINDS: dict[str, Kind] = {
    "tpe": Kind(),
    "random": Kind(learns_from_others=False),
    "qmc": Kind(learns_from_others=False),
    "grid": Kind(learns_from_others=False),
    "nsga2": Kind(leaves_to_chance="that hold only sometimes", is_windowed=False),
    "nsga3": Kind(leaves_to_chance="that hold only sometimes", is_windowed=False),
    "gp": Kind(leaves_to_chance="that hold only sometimes"),
    "cmaes": Kind(objectives=1, conditions=False, leaves_to_chance="that are choices"),
}


def sampler_problems(name: str, objectives: int, spaces: Mapping[str, Space]) -> list[str]:
    """Why a sampler cannot search these spaces, which are given by the name of their cell."""
    kind, found = KINDS[name], []
    if kind.objectives is not None and objectives > kind.objectives:
        found.append(f"{name} searches for one objective, got {objectives}: use tpe, nsga2, nsga3 or gp, or name one")
    for cell, space in spaces.items():
        holes = space.holes()
        depending = [path for path, hole in holes.items() if hole.conditions]
        if depending and not kind.conditions:
            found.append(
                f"{name} cannot search holes that hold only sometimes ({cell}: {', '.join(depending)}): use tpe"
            )
        if name == "grid" and (without_step := endless(space)):
            found.append(f"grid needs a `step`, or lists of values, in {', '.join(without_step)} ({cell})")
        if name == "cmaes" and sum(map(_is_number, holes.values())) < 2:
            found.append(f"cmaes needs at least two holes that are numbers ({cell})")
    return found


def sampler_remarks(name: str, trials: int, spaces: Mapping[str, Space]) -> list[str]:
    """What is allowed and seldom meant."""
    kind, found = KINDS[name], []
    for cell, space in spaces.items():
        holes = space.holes()
        sometimes = [path for path, hole in holes.items() if hole.conditions]
        choices = [path for path, hole in holes.items() if isinstance(hole, Choice)]
        left = choices if name == "cmaes" else sometimes
        if kind.leaves_to_chance and left:
            found.append(f"{name} draws holes {kind.leaves_to_chance} at random ({cell}: {', '.join(left)})")
        size = space.size()
        if name == "grid" and size is not None and size > trials:
            found.append(
                f"grid would try {size:,} configurations of {cell}, trials are {trials}: the last are left out"
            )
    if name in ("nsga2", "nsga3") and trials <= 2 * POPULATION:
        found.append(f"{name} draws the first {POPULATION} of {trials} trials at random")
    return found


def search_remarks(search: SearchSpec, spaces: Mapping[str, Space]) -> list[str]:
    """What is allowed and seldom meant, and what several seeds and other runs do to the trials of a search."""
    found = sampler_remarks(search.sampler, search.trials, spaces)
    if search.seeds > 1:
        found.append(f"each configuration is trained with {search.seeds} seeds, one that is stopped early with one")
    elif search.risk:
        found.append("search.risk is without effect: it takes search.seeds of at least 2 to have a spread")
    if search.warm_start and not KINDS[search.sampler].learns_from_others:
        found.append(f"search.warm_start is without effect: {search.sampler} learns from no trial")
    elif search.warm_start:
        how = "starts at the best trial" if search.sampler == "cmaes" else "learns from the trials"
        found.append(f"{search.sampler} {how} of {', '.join(search.warm_start)} that fit, before its first suggestion")
    return found


def _is_number(hole: Hole) -> bool:
    return not isinstance(hole, Choice) and hole.size() != 1
