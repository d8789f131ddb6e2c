"""Writes random specs that are right: every key and every hole of the grammar."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.build import Kinds, Setting, examine, refusals, settings
from orchestrator.tables import Tables

SAMPLERS = ("tpe", "random", "qmc", "grid", "nsga2", "nsga3", "gp", "cmaes")
METRICS = {
    "clean_accuracy": "max",
    "robust_accuracy": "max",
    "robust_area": "max",
    "seconds": "min",
    "parameters": "min",
}


class Author:
    """Over the small tables, of which it knows every setting."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def spec(self) -> dict[str, Any]:
        blocks = {"network": self.network, "defense": self.defense, "dataset": self.dataset, "threat": self.threat}
        written: dict[str, Any] = {"name": "random", "seed": self.random.randrange(9), "training": self.training()}
        for axis, write in blocks.items():
            if self.often(0.3):
                written.setdefault("matrix", {})[axis] = [write() for _ in range(self.random.randint(1, 2))]
            else:
                written[axis] = write()
        sections = {"scheduler": self.scheduler, "evaluation": self.evaluation, "resources": self.resources}
        written |= {name: write() for name, write in sections.items() if self.often(0.4)}
        return {**written, "search": self.search()}

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, *options: Any) -> Any:
        return self.random.choice(options)

    def some(self, given: dict[str, Any]) -> dict[str, Any]:
        return {key: given[key] for key in self.random.sample(sorted(given), self.random.randint(0, len(given)))}

    def search(self) -> dict[str, Any]:
        objectives = dict(self.random.sample(sorted(METRICS.items()), self.random.randint(1, 3)))
        constraints = {"clean_accuracy": ">= 9/10", "seconds": "<= 60"}
        more = {"objectives": objectives, "constraints": self.some(constraints)}
        return {"sampler": self.one(*SAMPLERS), "trials": self.random.randint(1, 99), **self.some(more)}

    def scheduler(self) -> Any:
        return self.one({"name": "none"}, {"name": "asha", "grace_epochs": 1, "reduction_factor": self.one(2, 3, 1.5)})

    def evaluation(self) -> Any:
        attacks = [{"name": "pgd", "steps": self.random.randint(1, 9)}, "strong_pgd"]
        return self.some({
            "rung": {"examples": 20, "attacks": attacks[:1]},
            "final": {"examples": 20, "attacks": attacks},
            "test": {"finalists": self.random.randint(0, 3), "seeds": 2, "attacks": attacks[1:]},
        })  # fmt: skip

    def resources(self) -> Any:
        trial = {"cpus": self.one(1, 0.5, "auto"), "gpus": self.one(0, "1/4", 2, "auto"), "time_limit": 60}
        return self.some({"trial": self.some(trial), "evaluator": {"count": 2}, "max_concurrent": self.one(1, "auto")})

    def dataset(self) -> Any:
        return self.one("toy", {"name": "toy", "classes": 3, "validation": 60}, {"name": "files", "pattern": "a"})

    def threat(self) -> Any:
        return {"norm": self.one("linf", "l2", "l1"), "eps": self.one(0.01, 0.1, "8/255", 1)}

    def network(self, depth: int = 0) -> Any:
        kind = self.one("lenet", "resnet", "mlp", *(["choice"] * 4 if depth < 2 else []))
        if kind == "choice":
            return {"choice": [self.network(depth + 1) for _ in range(self.random.randint(1, 3))]}
        if kind == "resnet":
            steps: list[Any] = [{"int": [8, 20], "step": 6}, {"uniform": [8, 20], "step": 6}, {"choice": [8, 14]}]
            return {"name": "resnet", "depth": self.one(*steps, {"grid": [8, 20]}, 8), "width": self.whole(1, 64)}
        if kind == "mlp":
            hidden = [self.whole(1, 64) for _ in range(self.random.randint(1, 3))]
            lists = {"choice": [[8], [16, 16]]}
            return {"name": "mlp", "hidden": self.one(hidden, hidden, lists), "dropout": self.real(0, 1)}
        return self.one("lenet", {"name": "lenet"})

    def defense(self, depth: int = 0) -> Any:
        kind = self.one("plain", "noisy", "noisy", *(["choice"] * 2 if depth < 1 else []))
        if kind == "choice":
            return {"choice": [self.defense(1) for _ in range(self.random.randint(1, 3))]}
        if kind == "plain":
            return "plain"
        layers = {layer: self.real(0, 1) for layer in self.random.sample(["stem", "block1", "head"], 2)}
        steps = {"name": "pgd", "steps": self.whole(1, 9)}
        written = {
            "scale": self.one(self.real(0.1, 1), {"ref": "threat.eps", "times": 1.25}),
            "per_layer": self.one({"each": layers}, layers),
            "start": {"ref": "defense.scale", "times": "1/2"},
            "is_shared": {"choice": [True, False]},
            "form": self.one({"choice": ["gaussian", "laplace"]}, "laplace"),
            "sites": self.one(["stem"], ["stem", {"choice": ["head", "neck"]}]),
            "attack": self.one(None, steps, {"choice": [None, "pgd", steps, steps]}),
        }
        return {"name": "noisy", **self.some(written), **self.composing(0.1)}

    def training(self) -> Any:
        more = {"optimizer": self.one("sgd", {"choice": ["sgd", "adam"]}), "nesterov": {"choice": [False, True]}}
        return {"epochs": self.whole(1, 40), "lr": self.real(0.01, 1), **self.some(more), **self.composing(0.15)}

    def composing(self, share: float) -> dict[str, Any]:
        """Some of the keys that stand beside any defense, or under training."""
        attack = {"name": "pgd", "steps": self.whole(1, 9), "share": self.one("1/2", {"uniform": [0.5, 1]})}
        fog = {"name": "fog", "density": self.real(0, 1)}
        written = {
            "adversarial": self.one(attack, "pgd", "none", None, {"choice": ["none", attack, attack]}),
            "input": self.one([fog], [], ["fog", {"choice": ["fog", fog]}], {"choice": [None, [fog]]}),
            "base": {"defense": self.one("plain", {"choice": ["plain", {"name": "noisy"}]}), "training": {}},
        }
        return {key: value for key, value in written.items() if self.often(share)}

    def whole(self, low: int, high: int) -> Any:
        return self.one(
            high, {"int": [low, high]}, {"log_int": [low, high]}, {"int": [low, high + (low - high) % 2], "step": 2},
            {"log_int": [low, high + (low - high) % 2], "step": 2}, {"normal": [low, high, low, high], "step": 1},
            {"log_normal": [1, 1, low, high], "step": 1}, {"choice": [low, high]}, {"grid": [low, float(high)]},
            {"choice": [low, {"int": [low, high]}]},
        )  # fmt: skip

    def real(self, low: float, high: float) -> Any:
        above, quarter = max(low, 1e-3), (high - low) / 4
        return self.one(
            high, {"uniform": [low, high]}, {"uniform": [low, high], "step": quarter}, {"int": [1, 2]},
            {"log_uniform": [above, high]}, {"log_uniform": [above, high], "step": (high - above) / 3},
            {"normal": [low, 1, low, high]}, {"normal": [high, 0.2, low, high], "step": quarter},
            {"log_normal": [-1, 1, above, high]}, {"choice": ["1/2", high / 4]}, {"grid": [low, high]},
            {"choice": [high, {"uniform": [low, high]}]},
            {"choice": [low, {"choice": [high, {"uniform": [low, high]}]}]},
        )  # fmt: skip


class RealAuthor(Author):
    """Over the tables of this installation: every setting of every network, defense and dataset, and of training.

    Holes are made of what a class takes near its defaults; of settings that only go together some will be refused.
    """

    def __init__(self, seed: int, tables: Tables) -> None:
        super().__init__(seed)
        self.tables = tables

    def dataset(self) -> Any:
        common = {"validation": 90, "train": 500, "test": 100, "root": "~/data"}
        return {"name": self.one(*self.tables.datasets), **self.some(common)}

    def threat(self) -> Any:
        return {"norm": "linf", "eps": self.one(0.1, "8/255")}

    def network(self, depth: int = 0) -> Any:
        return self._block(self.tables.networks, depth, self.network)

    def defense(self, depth: int = 0) -> Any:
        trained = {name: kind for name, kind in self.tables.defenses.items() if name != "pretrained"}
        return self._block(trained, depth, self.defense)

    def training(self) -> Any:
        return self._filled(self.tables.training, {})

    def _block(self, kinds: Mapping[str, type], depth: int, again: Callable[[int], Any]) -> Any:
        if depth < 1 and self.often(0.3):
            return {"choice": [again(depth + 1) for _ in range(self.random.randint(1, 3))]}
        return self._filled(kinds, {"name": self.one(*kinds)})

    def _filled(self, kinds: Kinds, block: dict[str, Any]) -> dict[str, Any]:
        """Some settings away from their defaults, or with holes for what is taken there."""
        known = settings(kinds if isinstance(kinds, type) else kinds[block["name"]])
        written = dict(block)
        for key in self.random.sample(sorted(known), min(4, len(known))):
            near = self._near(kinds, block, known[key])
            values = [value for value in near if not refused(kinds, {**block, key: value})]
            values = [value for place, value in enumerate(values) if value not in values[:place]]
            if values:
                hole = self._range(kinds, block, key, values) if self.often(0.3) else None
                holes = [{"choice": values}, values[-1], *([] if isinstance(values[0], list) else [{"grid": values}])]
                written[key] = hole or self.one(*holes)
        return written

    def _range(self, kinds: Kinds, block: dict[str, Any], key: str, values: list[Any]) -> Any:
        """A hole of numbers, where all that is between the least and the greatest is taken."""
        if len(values) < 2 or isinstance(values[0], (bool, str)):
            return None
        low, high = min(values), max(values)
        if isinstance(low, int):
            between = range(low, high + 1)
            return {"int": [low, high]} if not any(refused(kinds, {**block, key: value}) for value in between) else None
        return self.one({"uniform": [low, high]}, {"normal": [low, high, low, high]})

    def _near(self, kinds: Kinds, block: dict[str, Any], setting: Setting) -> list[Any]:
        default = setting.default
        if setting.kinds is not None or default is None:
            return []
        if isinstance(default, bool):
            return [default, not default]
        if isinstance(default, int):
            return [default, default + 1, default + 6]
        if isinstance(default, float):
            return [default, default / 2, default * 0.9 + 0.01]
        if isinstance(default, str):  # the class itself says which others there are
            said = re.search(r"one of ([\w, ]+)", refused(kinds, {**block, setting.name: "?"}))
            return [*dict.fromkeys([default, *(said[1].removesuffix(", got").split(", ")[:3] if said else [])])]
        return [default]


def refused(kinds: Kinds, block: dict[str, Any]) -> str:
    """What the class says against a block; nothing where it takes it."""
    values, problems = examine(kinds, block)
    return "; ".join(problem.text for problem in problems or refusals(kinds, values))
