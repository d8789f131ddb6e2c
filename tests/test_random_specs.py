"""Claims about every spec: hundreds drawn from the grammar, and hundreds damaged. `make parity` draws 2,000."""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_specs import WHOLE, load
from small_tables import TABLES
from spec_author import SAMPLERS, Author, RealAuthor

from orchestrator.build import make
from orchestrator.drawing import drawing
from orchestrator.errors import SpecError
from orchestrator.holes import Choice, Hole, Numeric, Scalar
from orchestrator.space import Configuration
from orchestrator.spec import Cell, Spec, difference, load_spec
from orchestrator.tables import Tables, all_tables

NUMBER = {"int": int, "float": float, "bool": bool, "string": str}
PARITY = pytest.mark.parity


def assert_asked_where_conditions_hold(network: Any, params: Mapping[str, Any], path: str = "network") -> None:
    """Walk the spec itself: below a choice of blocks just what the chosen option has is asked for."""
    if not (isinstance(network, Mapping) and "choice" in network):
        return
    chosen = params[path]
    labels = option_labels(network["choice"])
    for label, option in zip(labels, network["choice"], strict=True):
        below = {key for key in params if key.startswith(f"{path}.{label}.") or key == f"{path}.{label}"}
        longer = [other for other in labels if other != label and other.startswith(f"{label}.")]
        below = {key for key in below if not any(key.startswith(f"{path}.{other}") for other in longer)}
        if label != chosen:
            assert not below
        elif isinstance(option, Mapping) and "choice" in option:
            assert_asked_where_conditions_hold(option, params, f"{path}.{label}")
        else:
            assert {key.removeprefix(f"{path}.{label}.").split(".")[0] for key in below} == keys_with_holes(option)


def option_labels(options: Sequence[Any]) -> list[str]:
    names = [option if isinstance(option, str) else option.get("name", "choice") for option in options]
    return [
        name if names[:at].count(name) == 0 else f"{name}.{names[:at].count(name) + 1}" for at, name in enumerate(names)
    ]


def keys_with_holes(block: Any) -> set[str]:
    def holds(value: Any) -> bool:
        return any(map(holds, value)) if isinstance(value, list) else isinstance(value, Mapping)

    return {key for key, value in block.items() if holds(value)} if isinstance(block, Mapping) else set()


def loaded(written: dict[str, Any], tables: Tables) -> Spec:
    """The spec; a sampler that cannot search it is refused, and rightly so, and `random` takes its place."""
    try:
        spec = load_spec(written, (), tables)
    except SpecError as error:
        lines = str(error).splitlines()
        assert all(" search.sampler: " in line for line in lines), lines
        spec = load_spec({**written, "search": {**written["search"], "sampler": "random"}}, (), tables)
        assert not can_search(written["search"]["sampler"], spec)
    else:
        assert can_search(spec.search.sampler, spec)
    return spec


def can_search(sampler: str, spec: Spec) -> bool:
    """Grid wants lists; cmaes one objective, no conditions, and two numbers that vary."""
    spaces = [list(cell.space.holes().values()) for cell in spec.cells()]
    if sampler == "grid":
        return all(hole.size() is not None for holes in spaces for hole in holes)
    if sampler != "cmaes":
        return True
    has_two = all(sum(isinstance(hole, Numeric) for hole in holes) >= 2 for holes in spaces)
    return len(spec.search.objectives) == 1 and has_two and not any(h.conditions for holes in spaces for h in holes)


def check(seed: int, written: dict[str, Any], tables: Tables) -> Spec:
    """The claims about one spec."""
    spec = loaded(written, tables)
    again = load_spec(spec.to_yaml(), (), tables)
    assert again == spec
    assert difference(spec.search_space_key(), again.search_space_key()) == []
    networks = written.get("matrix", {}).get("network") or [written["network"]]
    for place, (cell, twin) in enumerate(zip(spec.cells(), again.cells(), strict=True)):
        assert_ends_belong_to_their_holes(cell)
        for turn in range(3):
            made = cell.space.configure(drawing(random.Random(f"{seed} {turn}")))
            assert_builds(made, tables)
            assert_columns_are_null_where_conditions_do_not_hold(cell, made.params)
            assert_asked_where_conditions_hold(
                networks[place % len(networks)], made.params
            )  # the last axis turns fastest
            assert twin.space.configure(lambda path, hole, made=made: made.params[path]) == made
    return spec


def assert_builds(made: Configuration, tables: Tables) -> None:
    assert make(tables.networks, made.network)
    assert make(tables.blocks()["defense"], made.defense)
    assert make(tables.blocks()["training"], made.training)


def assert_columns_are_null_where_conditions_do_not_hold(cell: Cell, params: Mapping[str, Scalar]) -> None:
    """And where they do there is a value of the column's type that the hole allows."""
    for path, hole in cell.space.holes().items():
        holds = all(params.get(key) == label for key, label in hole.conditions)
        assert holds == (path in params)
        if holds:
            value = params[path]
            assert hole.checked(value) == value
            assert value is None or type(value) is NUMBER[cell.space.columns()[path]], (path, value)
    assert set(params) <= set(cell.space.holes())


def assert_ends_belong_to_their_holes(cell: Cell) -> None:
    """The bounds are inclusive, every step is one of the values, and coordinates lead back."""
    for hole in cell.space.holes().values():
        if isinstance(hole, Choice):
            assert [hole.value(hole.internal(label)) for label in hole.labels] == list(hole.labels)
            continue
        assert isinstance(hole, Numeric)
        ends: Any = hole.distribution()
        assert math.isclose(hole.value(ends.low), hole.low, rel_tol=1e-6, abs_tol=1e-6)
        assert math.isclose(hole.value(ends.high), hole.high, rel_tol=1e-6, abs_tol=1e-6)
        for value in (hole.low, hole.high, *on_the_steps(hole)):
            assert hole.checked(value) == value
            assert math.isclose(hole.value(hole.internal(value)), value, rel_tol=1e-6, abs_tol=1e-9)


def on_the_steps(hole: Numeric) -> list[Scalar]:
    step = hole.step or (1 if hole.column == "int" else None)
    assert hole.size() == (None if step is None else round((hole.high - hole.low) / step) + 1)
    return [] if hole.size() is None or hole.size() > 100 else hole.values()


def check_initial(spec: Spec, written: dict[str, Any], tables: Tables) -> None:
    """What was drawn once, given as the setting to begin with, is that of the cell, value for value."""
    made = spec.cells()[0].space.configure(drawing(random.Random(0)))
    if (
        not made.params or len(spec.cells()) > 1
    ):  # an entry goes to all cells that have its holes, whatever their ranges
        return
    entry = {path: value for path, value in made.params.items() if value is not None}
    search = {**written["search"], "sampler": spec.search.sampler, "initial": [entry]}
    first = load_spec({**written, "search": search}, (), tables).cells()[0]
    (fixed,) = first.fixed
    assert {path: first.space.holes()[path].value(fixed[path]) for path in entry} == entry


def check_overrides(spec: Spec, written: dict[str, Any], tables: Tables) -> None:
    """What `--set` puts in is as if it had been written there."""
    overrides = ["search.trials=7", "training.epochs={int: [2, 5]}", f"search.sampler={spec.search.sampler}"]
    given = copy.deepcopy(written)
    given["search"] |= {"trials": 7, "sampler": spec.search.sampler}
    given["training"]["epochs"] = {"int": [2, 5]}
    assert load_spec(written, overrides, tables) == load_spec(given, (), tables)


def check_many(seeds: Sequence[int]) -> None:
    for seed in seeds:
        try:
            written = Author(seed).spec()
            spec = check(seed, written, TABLES)
            if seed % 4 == 0:
                check_initial(spec, written, TABLES)
                check_overrides(spec, written, TABLES)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize(
    "start", [*range(0, 200, 50), *(pytest.param(at, marks=PARITY) for at in range(200, 2000, 100))]
)
def test_random_specs_load_build_and_come_back(start: int) -> None:
    check_many(range(start, start + (50 if start < 200 else 100)))


@pytest.mark.parametrize("start", [0, *(pytest.param(at, marks=PARITY) for at in range(60, 360, 60))])
def test_random_specs_over_the_real_tables_load_build_and_come_back(start: int) -> None:
    """But for settings that only go together, which are refused in words."""
    refused: list[str] = []
    for seed in range(start, start + 60):
        written = RealAuthor(seed, all_tables()).spec()
        try:
            spec = load_spec({**written, "search": {"sampler": "random"}})
        except SpecError as error:
            refused += [str(error)]
            continue
        for cell in spec.cells()[:2]:
            made = cell.space.configure(drawing(random.Random(seed)))
            assert_columns_are_null_where_conditions_do_not_hold(cell, made.params)
            try:
                assert_builds(made, all_tables())
            except SpecError as error:  # two holes of which not every pair goes together
                refused += [f"spec drawn: {error}"]
    lines = [line for said in refused for line in said.splitlines()]
    assert all(re.match(r"spec [\w.[\]]+: \S", line) for line in lines), lines
    assert len(refused) <= 12, lines


def test_the_grammar_has_every_kind_of_hole_sampler_and_column() -> None:
    """So the claims above are about all of them."""
    holes: list[Hole] = []
    written = [Author(seed).spec() for seed in range(60)]
    for one in written:
        for cell in loaded(one, TABLES).cells():
            holes += cell.space.holes().values()
    numbers = {"uniform", "log_uniform", "int", "log_int", "normal", "log_normal"}
    assert {hole.kind for hole in holes} == numbers | {"choice", "grid"}
    assert {hole.kind for hole in holes if isinstance(hole, Numeric) and hole.step} == numbers
    assert {hole.column for hole in holes} == set(NUMBER)
    assert max(len(hole.conditions) for hole in holes) >= 3
    assert all(f"'{word}'" in str(written) for word in ("each", "ref", "times", *SAMPLERS))


JUNK: list[Any] = [
    None, True, 0, -1, 1e400, float("nan"), 10**30, "", "x", "8/0", "~", [], [[]], {}, {"name": []}, {"name": {}},
    {"choice": [{"choice": []}]}, {"uniform": ["a", {}]}, {"ref": "a.b.c"}, {"each": {"each": {}}}, {"normal": [0] * 4},
    {"log_normal": [900, 1, 1e-300, 1e300]}, {"int": [0, 10**20]}, {"uniform": [0, 1], "step": 1e-300}, b"x", object(),
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(found for key, item in items for found in places(item, (*at, key)))]


def mutated(tree: Any, generator: random.Random) -> Any:
    """The tree with something else at a random place, or another key for it, or nothing there."""
    at = generator.choice([place for place in places(tree) if place])
    holder = tree
    for key in at[:-1]:
        holder = holder[key]
    value = holder[at[-1]]
    how = generator.randrange(4)
    if how == 0:
        del holder[at[-1]]
    elif how == 1 and isinstance(holder, dict):
        holder[generator.choice([f"{at[-1]}x", "name", "choice", "each", "ref", "step"])] = holder.pop(at[-1])
    else:
        junk = [*JUNK, [value], {"choice": [value, value]}, {str(at[-1]): value}]
        holder[at[-1]] = copy.deepcopy(generator.choice(junk))
    return tree


def outcome(source: Any) -> list[str]:
    """The lines of the refusal; none where the spec runs. Any other error is a failure of the test."""
    try:
        spec = load(source)
    except SpecError as error:
        return str(error).splitlines()
    assert load(spec.to_yaml()) == spec
    return []


@pytest.mark.parametrize("start", range(0, 600, 200))
def test_a_damaged_spec_is_refused_in_words_or_runs(start: int) -> None:
    whole = YAML(typ="safe").load(WHOLE)
    refused = 0
    for seed in range(start, start + 200):
        damaged = mutated(copy.deepcopy(whole), random.Random(seed))
        said = outcome(damaged)
        refused += bool(said)
        assert all(line.startswith("spec ") and ": " in line for line in said), seed
    assert refused > 100


def test_damaged_text_is_refused_in_words_or_runs() -> None:
    for seed in range(300):
        generator = random.Random(seed)
        at = generator.randrange(len(WHOLE))
        text = (
            WHOLE[:at]
            + generator.choice(["", "{", "]", ":", "\n", " ", "- ", "&a ", "*a ", "!", "\t", "'", "9"])
            + WHOLE[at + 1 :]
        )
        assert all(line.startswith("spec") for line in outcome(text)), seed
