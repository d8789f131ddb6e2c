"""The laws of the house, read off the syntax tree: who may import what, who draws from where, who grades whom."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("attacks", "defenses", "orchestrator")

MAY_IMPORT = {"attacks": {"attacks", "torch"}, "defenses": {"attacks", "defenses", "torch", "torchvision"}}
WORLDLY = {  # modules that touch files, clocks, the environment, the screen, other processes or global randomness
    *("argparse", "asyncio", "builtins", "concurrent", "csv", "ctypes", "datetime", "fileinput", "getpass", "glob"),
    *("gzip", "http", "importlib", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "pickle", "platform"),
    *("pprint", "random", "secrets", "shelve", "shutil", "signal", "site", "socket", "sqlite3", "ssl", "subprocess"),
    *("sys", "tarfile", "tempfile", "threading", "time", "timeit", "urllib", "uuid", "zipfile"),
    *("torch.distributed", "torch.distributions", "torch.hub", "torch.profiler", "torch.serialization"),
    *("torch.utils.tensorboard", "torchvision.datasets", "torchvision.io"),
}
WORLDLY_CALLS = {"print", "open", "input", "breakpoint", "exec", "eval", "__import__"}
WORLDLY_TORCH = {"save", "load", "from_file", "hub", "distributions"}

TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "bernoulli", "normal", "multinomial", "poisson"}
TORCH_DRAWS |= {"rand_like", "randn_like", "randint_like"}
TENSOR_DRAWS = {"bernoulli", "multinomial", "bernoulli_", "normal_", "uniform_", "random_", "exponential_"}
TENSOR_DRAWS |= {"geometric_", "cauchy_", "log_normal_", "trunc_normal_", "orthogonal_", "sparse_"}
TENSOR_DRAWS |= {f"{name}_{kind}_" for name in ("kaiming", "xavier") for kind in ("normal", "uniform")}

GRADES = ("accuracy", "evaluate", "evaluation", "robustness", "is_robust")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "base"}

Law = Callable[[str, str], Iterator[str]]


def modules(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that may be an imported module, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in modules(tree)}


def only_the_cluster_imports_ray(path: str, source: str) -> Iterator[str]:
    if not path.startswith(("orchestrator/cluster/", "tests/", "benchmarks/")) and "ray" in tops(ast.parse(source)):
        yield "imports ray"


def floors_import_only_what_lies_below(path: str, source: str) -> Iterator[str]:
    allowed = MAY_IMPORT.get(path.partition("/")[0])
    if allowed is not None:
        yield from (f"imports {name}" for name in tops(ast.parse(source)) - allowed - set(sys.stdlib_module_names))


def methods_touch_only_tensors(path: str, source: str) -> Iterator[str]:
    """attacks and defenses do no input or output, and ask no clock and no environment."""
    if path.partition("/")[0] not in MAY_IMPORT:
        return
    tree = ast.parse(source)
    for name in modules(tree):
        if not WORLDLY.isdisjoint(".".join(name.split(".")[: end + 1]) for end in range(name.count(".") + 1)):
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in WORLDLY_CALLS:
            yield f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.Attribute) and node.attr in WORLDLY_TORCH and owner(node) in torch_names(tree):
            yield f"line {node.lineno}: torch.{node.attr}"


def methods_draw_from_no_global_generator(path: str, source: str) -> Iterator[str]:
    """Networks may use torch's initialisers: these run, as the layers' own do, inside `seeded`."""
    if path.partition("/")[0] not in MAY_IMPORT:
        return
    tree = ast.parse(source)
    bare = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch"
        for alias in node.names
        if alias.name in TORCH_DRAWS | TENSOR_DRAWS
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(keyword.arg == "generator" for keyword in node.keywords):
            continue
        called = node.func
        is_bare = isinstance(called, ast.Name) and called.id in bare
        is_attribute = isinstance(called, ast.Attribute)
        is_torch = is_attribute and called.attr in TORCH_DRAWS and owner(called) in torch_names(tree)
        is_tensor = is_attribute and called.attr in TENSOR_DRAWS and not initialises(path, called)
        if is_bare or is_torch or is_tensor:
            yield f"line {node.lineno}: {ast.unparse(called)} without generator="


def nobody_grades_itself(path: str, source: str) -> Iterator[str]:
    """attacks and defenses define nothing that measures; `evaluate_robustness` is defined in one place."""
    is_method = path.partition("/")[0] in MAY_IMPORT
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []
        else:
            names = [node.name]
        for name in names:
            if is_method and any(word in name.lower() for word in GRADES):
                yield f"line {node.lineno}: {name} grades"
            if name == "evaluate_robustness" and path != "orchestrator/evaluation.py":
                yield f"line {node.lineno}: evaluate_robustness belongs in orchestrator/evaluation.py"


def methods_import_from_the_exact_module(path: str, source: str) -> Iterator[str]:
    """So that a trial's id covers the files its method really uses: a package's table reaches every method."""
    if path.partition("/")[0] not in MAY_IMPORT or path.endswith("/__init__.py"):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: relative import"
        for name in modules(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if name in ("attacks", "defenses", "defenses.networks"):
                yield f"line {node.lineno}: imports from the package {name}, not from a module in it"


def files_are_named_for_their_idea(path: str, source: str) -> Iterator[str]:
    if Path(path).stem in VAGUE or not VAGUE.isdisjoint(Path(path).parts):
        yield "has a name that says nothing"


def owner(node: ast.Attribute) -> str:
    return ast.unparse(node.value)


def initialises(path: str, called: ast.Attribute) -> bool:
    return path.startswith("defenses/networks/") and owner(called).rpartition(".")[2] == "init"


def torch_names(tree: ast.AST) -> set[str]:
    """What torch is called in a file: `import torch as t` gives t."""
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {alias.asname or "torch" for alias in aliases if alias.name.partition(".")[0] == "torch"}


LAWS: list[Law] = [
    only_the_cluster_imports_ray,
    floors_import_only_what_lies_below,
    methods_touch_only_tensors,
    methods_draw_from_no_global_generator,
    nobody_grades_itself,
    methods_import_from_the_exact_module,
    files_are_named_for_their_idea,
]

PLANTED: list[tuple[Law, str, str]] = [
    (only_the_cluster_imports_ray, "orchestrator/search.py", "import ray"),
    (only_the_cluster_imports_ray, "orchestrator/report/page.py", "def run():\n    from ray import tune"),
    (only_the_cluster_imports_ray, "defenses/fit.py", "import ray.util as u"),
    (floors_import_only_what_lies_below, "attacks/pgd.py", "import numpy"),
    (floors_import_only_what_lies_below, "attacks/pgd.py", "from torchvision import models"),
    (floors_import_only_what_lies_below, "attacks/pgd.py", "def f():\n    import defenses.fit"),
    (floors_import_only_what_lies_below, "defenses/fit.py", "from orchestrator.datasets import DATASETS"),
    (floors_import_only_what_lies_below, "defenses/networks/mlp.py", "import scipy"),
    *[
        (methods_touch_only_tensors, path, source)
        for path in ("attacks/pgd.py", "defenses/networks/resnet.py")
        for source in (
            "import os",
            "import os.path as p",
            "from time import perf_counter",
            "def f():\n    import logging",
            "from pathlib import Path",
            "import random",
            "import torchvision.datasets",
            "from torchvision import io",
            "from torch.utils import tensorboard",
            "print(1)",
            "show = print",
            "with open('a') as f: pass",
            "import torch\ntorch.save({}, 'a')",
            "import torch as t\nt.load('a')",
        )
    ],
    *[
        (methods_draw_from_no_global_generator, path, source)
        for path in ("attacks/pgd.py", "defenses/augment.py")
        for source in (
            "import torch\ntorch.rand(3)",
            "import torch\ntorch.randn(3, device=d)",
            "import torch\ntorch.randint(3, (2,))",
            "import torch\ntorch.randperm(3)",
            "import torch\ntorch.bernoulli(p)",
            "import torch\ntorch.normal(0.0, 1.0, (3,))",
            "import torch\ntorch.multinomial(p, 2)",
            "import torch\ntorch.randn_like(x)",
            "import torch as t\nt.rand(3)",
            "import torch.nn\ntorch.rand(3)",
            "from torch import rand as noise\nnoise(3)",
            "x.clone().uniform_(-1, 1)",
            "p.bernoulli()",
            "import torch\ntorch.nn.init.kaiming_normal_(weight)",
        )
    ],
    (methods_draw_from_no_global_generator, "defenses/networks/mlp.py", "import torch\ntorch.rand(3)"),
    (methods_draw_from_no_global_generator, "defenses/networks/mlp.py", "self.weight.normal_()"),
    (nobody_grades_itself, "attacks/pgd.py", "def robust_accuracy(model): pass"),
    (nobody_grades_itself, "defenses/fit.py", "class Evaluation: pass"),
    (nobody_grades_itself, "defenses/fit.py", "def f():\n    accuracy = 1.0"),
    (nobody_grades_itself, "defenses/fit.py", "class Epoch:\n    clean_accuracy: float"),
    (nobody_grades_itself, "orchestrator/training.py", "def evaluate_robustness(model): pass"),
    (methods_import_from_the_exact_module, "defenses/pgd_at.py", "from attacks import PGD"),
    (methods_import_from_the_exact_module, "defenses/pgd_at.py", "import attacks"),
    (methods_import_from_the_exact_module, "defenses/pgd_at.py", "from defenses.networks import NETWORKS"),
    (methods_import_from_the_exact_module, "attacks/pgd.py", "from .draws import Draws"),
    *[(files_are_named_for_their_idea, f"orchestrator/{name}.py", "") for name in sorted(VAGUE)],
    (files_are_named_for_their_idea, "orchestrator/utils/clock.py", ""),
    (files_are_named_for_their_idea, "tests/helpers.py", ""),
]

INNOCENT = [
    ("orchestrator/cluster/pool.py", "import ray"),
    ("attacks/pgd.py", "import math\nimport torch\nfrom attacks.draws import Draws\ntorch.rand(3, generator=g)"),
    ("attacks/pgd.py", "def f(draws):\n    return draws.normal(3) + draws.uniform(3)"),
    ("defenses/pgd_at.py", "import torchvision.models\nfrom attacks.pgd import PGD\nmodel.eval()\nstate.load(3)"),
    ("defenses/__init__.py", "from defenses.networks import NETWORKS"),
    ("defenses/networks/mlp.py", "from torch import nn\nnn.init.kaiming_normal_(weight)"),
    ("orchestrator/evaluation.py", "import os\nimport numpy\ndef evaluate_robustness(model): print(1)"),
    ("orchestrator/database.py", ""),
]


def files() -> list[Path]:
    return sorted(path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("law", LAWS)
def test_the_house_keeps_the_law(law: Law) -> None:
    broken = []
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        broken += [f"{place}: {what}" for what in law(place, path.read_text())]
    assert not broken


@pytest.mark.parametrize(("law", "path", "source"), PLANTED)
def test_a_planted_violation_is_seen(law: Law, path: str, source: str) -> None:
    assert list(law(path, source))


@pytest.mark.parametrize(("path", "source"), INNOCENT)
def test_what_is_allowed_is_let_through(path: str, source: str) -> None:
    assert not [what for law in LAWS for what in law(path, source)]


def test_every_law_is_planted_against_and_every_package_is_looked_at() -> None:
    assert {law for law, _, _ in PLANTED} == set(LAWS)
    assert {path.relative_to(ROOT).parts[0] for path in files()} >= {*PACKAGES, "tests"}
