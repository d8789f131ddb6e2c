"""Claims about every spec: hundreds drawn from the grammar, and hundreds damaged."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_specs import WHOLE, draw, load
from small_tables import NETWORKS, TABLES

from orchestrator.build import make
from orchestrator.errors import SpecError
from orchestrator.spec import difference


class Author:
    """Writes random specs that are right: every key and hole of the grammar, over the small tables."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def spec(self) -> dict[str, Any]:
        blocks = {"network": self.network, "defense": self.defense, "dataset": self.dataset, "threat": self.threat}
        written: dict[str, Any] = {"name": "random", "seed": self.random.randrange(9), "training": self.training()}
        for axis, write in blocks.items():
            if self.random.random() < 0.3:
                written.setdefault("matrix", {})[axis] = [write() for _ in range(self.random.randint(1, 2))]
            else:
                written[axis] = write()
        sampler = self.random.choice(["tpe", "random", "qmc"])
        return {**written, "search": {"sampler": sampler, "trials": self.random.randint(1, 99)}}

    def dataset(self) -> Any:
        return self.random.choice(
            ["toy", {"name": "toy", "classes": 3, "validation": 60}, {"name": "files", "pattern": "a"}]
        )

    def threat(self) -> Any:
        return {"norm": self.random.choice(["linf", "l2", "l1"]), "eps": self.random.choice([0.01, 0.1, "8/255", 1])}

    def network(self, depth: int = 0) -> Any:
        kind = self.random.choice(["lenet", "resnet", "mlp", *(["choice"] * 4 if depth < 2 else [])])
        if kind == "choice":
            return {"choice": [self.network(depth + 1) for _ in range(self.random.randint(1, 3))]}
        if kind == "resnet":
            steps = [
                {"int": [8, 20], "step": 6},
                {"uniform": [8, 20], "step": 6},
                {"choice": [8, 14]},
                {"grid": [8, 20]},
                8,
            ]
            return {"name": "resnet", "depth": self.random.choice(steps), "width": self.whole(1, 64)}
        if kind == "mlp":
            hidden = [self.whole(1, 64) for _ in range(self.random.randint(1, 3))]
            lists = {"choice": [[8], [16, 16]]}
            return {"name": "mlp", "hidden": self.random.choice([hidden, hidden, lists]), "dropout": self.real(0, 1)}
        return self.random.choice(["lenet", {"name": "lenet"}])

    def defense(self, depth: int = 0) -> Any:
        kind = self.random.choice(["plain", "noisy", "noisy", *(["choice"] * 2 if depth < 1 else [])])
        if kind == "choice":
            return {"choice": [self.defense(1) for _ in range(self.random.randint(1, 3))]}
        if kind == "plain":
            return "plain"
        layers = {layer: self.real(0, 1) for layer in self.random.sample(["stem", "block1", "head"], 2)}
        steps = {"name": "pgd", "steps": self.whole(1, 9)}
        written = {
            "scale": self.random.choice([self.real(0.1, 1), {"ref": "threat.eps", "times": 1.25}]),
            "per_layer": self.random.choice([{"each": layers}, layers]),
            "start": {"ref": "defense.scale", "times": "1/2"},
            "is_shared": {"choice": [True, False]},
            "form": self.random.choice([{"choice": ["gaussian", "laplace"]}, "laplace"]),
            "sites": self.random.choice([["stem"], ["stem", {"choice": ["head", "neck"]}]]),
            "attack": self.random.choice([None, steps, {"choice": [None, "pgd", steps, steps]}]),
        }
        chosen = dict(self.random.sample(sorted(written.items()), self.random.randint(0, 7)))
        return {"name": "noisy", **chosen, **self.composing(0.1)}

    def training(self) -> Any:
        optimizer = self.random.choice(["sgd", "adam"])
        written = {"epochs": self.whole(1, 40), "lr": self.real(0.01, 1), "optimizer": optimizer}
        return {**written, **self.composing(0.15)}

    def composing(self, share: float) -> dict[str, Any]:
        """Some of the keys that stand beside any defense, or under training."""
        attack = {"name": "pgd", "steps": self.whole(1, 9), "share": self.random.choice(["1/2", {"uniform": [0.5, 1]}])}
        fog = {"name": "fog", "density": self.real(0, 1)}
        options = [attack, "pgd", "none", None, {"choice": ["none", attack, attack]}]
        written = {
            "adversarial": self.random.choice(options),
            "input": self.random.choice([[fog], [], ["fog", {"choice": ["fog", fog]}], {"choice": [None, [fog]]}]),
            "base": {
                "defense": self.random.choice(["plain", {"choice": ["plain", {"name": "noisy"}]}]),
                "training": {},
            },
        }
        return {key: value for key, value in written.items() if self.random.random() < share}

    def whole(self, low: int, high: int) -> Any:
        return self.random.choice([
            high, {"int": [low, high]}, {"log_int": [low, high]}, {"int": [low, high + (low - high) % 2], "step": 2},
            {"normal": [low, high, low, high], "step": 1}, {"choice": [low, high]}, {"grid": [low, float(high)]},
            {"choice": [low, {"int": [low, high]}]},
        ])  # fmt: skip

    def real(self, low: float, high: float) -> Any:
        return self.random.choice([
            high, {"uniform": [low, high]}, {"uniform": [low, high], "step": (high - low) / 4}, {"int": [1, 2]},
            {"log_uniform": [max(low, 1e-3), high]}, {"normal": [low, 1, low, high]}, {"choice": ["1/2", high / 4]},
            {"log_normal": [-1, 1, max(low, 1e-3), high]}, {"choice": [high, {"uniform": [low, high]}]},
            {"grid": [low, high]},
        ])  # fmt: skip


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


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_specs_load_build_and_come_back(start: int) -> None:
    for seed in range(start, start + 50):
        written = Author(seed).spec()
        spec = load(written)
        again = load(spec.to_yaml())
        assert again == spec, seed
        assert difference(spec.search_space_key(), again.search_space_key()) == []
        networks = written.get("matrix", {}).get("network") or [written["network"]]
        for place, (cell, twin) in enumerate(zip(spec.cells(), again.cells(), strict=True)):
            network = networks[place % len(networks)]  # the last axis turns fastest
            columns = cell.space.columns()
            for turn in range(3):
                made = cell.space.configure(draw(random.Random(f"{seed} {turn}")))
                assert make(NETWORKS, made.network)
                assert make(TABLES.blocks()["defense"], made.defense)
                assert make(TABLES.blocks()["training"], made.training)
                assert set(made.params) <= set(columns)
                assert_asked_where_conditions_hold(network, made.params)
                asked = {
                    path
                    for path, hole in cell.space.holes().items()
                    if all(made.params.get(key) == label for key, label in hole.conditions)
                }
                assert asked == set(made.params)
                assert twin.space.configure(lambda path, hole, made=made: made.params[path]) == made


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
