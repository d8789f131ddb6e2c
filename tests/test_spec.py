"""Claims about sweep specs: what loads, what it means, and what is said of those that cannot be run."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_tables import DEFENSES, NETWORKS, TABLES, Training
from test_space import draw

from orchestrator.build import make
from orchestrator.errors import SpecError
from orchestrator.spec import Spec, difference, evaluation_sizes, load_spec

BASE: dict[str, Any] = {
    "name": "tried",
    "dataset": {"name": "toy"},
    "threat": {"norm": "linf", "eps": "8/255"},
    "network": "lenet",
    "defense": "plain",
}
WHOLE = """\
# Does it work?
name: whole
seed: 7
dataset: {name: files, pattern: "*.png", root: ~/data, validation: 900}
threat: {norm: linf, eps: 8/255}
matrix:
  defense:
    - {name: plain}
    - name: noisy
      scale: {log_uniform: [1e-3, 1]}
      per_layer: {each: {stem: {uniform: [0, 1/2]}, head: 0.1}}
network:
  choice:
    - {name: lenet}
    - {name: resnet, depth: {choice: [8, 14]}, width: {log_int: [8, 32]}}
training: {epochs: 12, lr: {grid: [0.01, 1e-1]}}
search:
  objectives: {robust_area: max, seconds: min}
  constraints: {clean_accuracy: ">= 9/10"}
  initial:
    - {network: {name: resnet, depth: 14}, training: {lr: 0.1}}
    - {defense.scale: 0.5}
scheduler: {name: asha, grace_epochs: 2, reduction_factor: 2}
evaluation:
  rung: {examples: 300, attacks: [{name: pgd, steps: 5}]}
  test: {finalists: 0}
resources: {trial: {cpus: 1, gpus: 1/4}, max_concurrent: 2}
"""


def load(source: Any = None, *overrides: str, **changes: Any) -> Spec:
    """A spec over the small tables: a text, or BASE with some keys changed (None removes one)."""
    given = source if source is not None else {**BASE, **changes}
    return load_spec(given, overrides, TABLES)


def refusal(source: Any = None, *overrides: str, **changes: Any) -> str:
    with pytest.raises(SpecError) as raised:
        load(source, *overrides, **changes)
    return str(raised.value)


def test_only_five_keys_are_required_and_the_rest_has_defaults() -> None:
    spec = load()
    assert (spec.seed, spec.store, spec.matrix, spec.training["epochs"]) == (0, "results", {}, 30)
    assert (spec.search.sampler, spec.search.trials, spec.search.constraints) == ("tpe", 32, {})
    assert spec.search.objectives == {"robust_area": "max", "clean_accuracy": "max"}
    assert (spec.scheduler.name, spec.scheduler.grace_epochs, spec.scheduler.reduction_factor) == ("asha", 1, 3)
    assert (spec.resources.trial.cpus, spec.resources.evaluator.count, spec.resources.max_concurrent) == ("auto",) * 3
    test = spec.evaluation.test
    assert (test.finalists, test.seeds, test.examples) == (3, 3, None)
    assert spec.evaluation.rung.attacks == [{"name": "pgd", "steps": 10, "step_size": None, "loss": "cross_entropy"}]
    assert [(attack["steps"], attack["loss"]) for attack in test.attacks] == [(40, "cross_entropy"), (40, "margin")]
    assert spec.evaluation.final.attacks == test.attacks


def test_a_file_a_text_and_a_mapping_are_one_spec(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE)
    assert load(path) == load(str(path)) == load(WHOLE) == load(YAML(typ="safe").load(WHOLE))


def test_fractions_and_exponents_are_numbers() -> None:
    spec = load(WHOLE)
    (plain, noisy) = spec.cells()
    assert plain.threat.eps == 8 / 255
    assert noisy.space.holes()["defense.scale"].form() == {"log_uniform": [0.001, 1.0]}
    assert noisy.space.holes()["defense.per_layer.stem"].form() == {"uniform": [0.0, 0.5]}
    assert spec.resources.trial.gpus == 0.25
    assert spec.search.constraints == {"clean_accuracy": ">= 0.9"}


def test_a_null_section_is_one_left_out() -> None:
    assert load(search=None, evaluation=None, matrix=None, training=None) == load()


def test_the_normal_form_loads_again_to_an_equal_spec() -> None:
    spec = load(WHOLE)
    again = load(spec.to_yaml())
    assert again == spec
    assert again.to_yaml() == spec.to_yaml()
    assert again.search_space_key() == spec.search_space_key()
    assert [cell.fixed for cell in again.cells()] == [cell.fixed for cell in spec.cells()]
    assert load(WHOLE, "seed=8") != spec


def test_a_spec_without_a_matrix_has_one_cell_named_all() -> None:
    (cell,) = load().cells()
    assert (cell.name, cell.dataset.name, cell.threat.norm) == ("all", "toy", "linf")


def test_a_matrix_is_the_product_of_its_axes() -> None:
    spec = load(
        **dict.fromkeys(("threat", "defense", "dataset", "network")),
        matrix={
            "network": [{"name": "resnet", "depth": 8}, "lenet", {"choice": ["lenet", "mlp"]}],
            "defense": ["plain"],
            "threat": [{"norm": "linf", "eps": "8/255"}, {"norm": "l2", "eps": 3}],
            "dataset": ["toy", {"name": "toy", "classes": 3}],
        },
    )
    names = [cell.name for cell in spec.cells()]
    assert len(names) == len(set(names)) == 12
    assert names[0] == "dataset=toy,threat=linf:0.03137,defense=plain,network=resnet"
    assert names[-1] == "dataset=toy.2,threat=l2:3,defense=plain,network=choice"
    last = spec.cells()[-1]
    assert (last.threat.norm, last.threat.eps, last.dataset.settings) == ("l2", 3.0, {"classes": 3})
    assert list(last.space.holes()) == ["network"]


def test_two_blocks_of_one_name_are_two_cells() -> None:
    noisy = [{"name": "noisy", "scale": scale} for scale in (0.1, 0.2)]
    assert [cell.name for cell in load(defense=None, matrix={"defense": noisy}).cells()] == [
        "defense=noisy",
        "defense=noisy.2",
    ]


def test_paths_in_a_matrix_are_those_without_one() -> None:
    columns = load(WHOLE).param_columns()
    assert columns == {
        "network": "string",
        "network.resnet.depth": "int",
        "network.resnet.width": "int",
        "defense.scale": "float",
        "defense.per_layer.stem": "float",
        "training.lr": "float",
    }


def test_initial_settings_go_to_the_cells_that_have_their_holes() -> None:
    plain, noisy = load(WHOLE).cells()
    first = {"network": "resnet", "network.resnet.depth": 14, "training.lr": 0.1}
    assert plain.fixed == (first,)
    assert noisy.fixed == (first, {"defense.scale": 0.5})


def test_a_dataset_block_has_the_keys_of_all_datasets() -> None:
    (cell, _) = load(WHOLE).cells()
    assert cell.dataset_block() == {
        "name": "files",
        "root": "~/data",
        "validation": 900,
        "train": None,
        "test": None,
        "pattern": "*.png",
        "download": False,
    }


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("search.trials=5", lambda spec: spec.search.trials == 5),
        ("resources.trial.gpus=0", lambda spec: spec.resources.trial.gpus == 0),
        ("training.lr={uniform: [0, 1]}", lambda spec: spec.training["lr"] == {"uniform": [0.0, 1.0]}),
        ("matrix.defense.1.scale=1/4", lambda spec: spec.matrix["defense"][1]["scale"] == 0.25),
        ("matrix.defense[1].scale=1/4", lambda spec: spec.matrix["defense"][1]["scale"] == 0.25),
        ("evaluation.rung.attacks=[pgd]", lambda spec: spec.evaluation.rung.attacks[0]["steps"] == 10),
        ("evaluation.final.attacks=[strong_pgd, pgd]", lambda spec: len(spec.evaluation.final.attacks) == 3),
    ],
)
def test_an_override_changes_one_value(override: str, read: Any) -> None:
    assert not read(load(WHOLE))
    assert read(load(WHOLE, "search.initial=null", override))


def test_an_override_that_is_wrong_is_named_as_it_was_given() -> None:
    assert (
        refusal(WHOLE, "search.trials=0") == "--set search.trials=0 search.trials: must be a whole number >= 1, got 0"
    )
    assert refusal(WHOLE, "search.trails=3").startswith("--set search.trails=3 search.trails: unknown key")
    assert refusal(WHOLE, "seed") == "--set seed: must be key.path=value, such as search.trials=8"
    assert refusal(WHOLE, "matrix.defense.7.scale=1") == "--set matrix.defense.7.scale=1: there is no 7 in a list of 2"
    assert refusal(WHOLE, "seed.x=1") == "--set seed.x=1: there is no x in 7"
    assert refusal(WHOLE, "seed=[1").startswith("--set seed=[1: the value is no YAML")


def test_the_line_of_a_problem_is_that_of_its_key() -> None:
    text = WHOLE.replace("width: {log_int: [8, 32]}", "width: {log_int: [0, 32]}")
    text = text.replace("[0, 1/2]", "[0, half]").replace("grace_epochs: 2", "grace: 2")
    assert refusal(text).splitlines() == [
        "spec:11 matrix.defense[1].per_layer.each.stem.uniform[1]: must be a number, got 'half'",
        "spec:15 network.choice[1].width.log_int: bounds must be > 0 on a log scale, got [0, 32]",
        "spec:23 scheduler.grace: unknown key; the keys are name, grace_epochs, reduction_factor"
        "; did you mean 'grace_epochs'?",
    ]


def test_a_file_is_named_in_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(WHOLE.replace("seed: 7", "seed: -7"))
    assert refusal(path) == f"{path}:3 seed: must be a whole number in 0..4294967295, got -7"
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\x00")
    assert refusal(tmp_path / "image.yaml") == f"{tmp_path / 'image.yaml'}: must be a text file in UTF-8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseed: 1\nname: b\n", "spec:3 name: duplicate key, first given at spec:1"),
        ("a:\n  b: {c: 1, c: 2}\n", "spec:2 a.b.c: duplicate key, first given at spec:2"),
        ("name: [a\nseed: 1\n", "spec:2: is not YAML: "),
        ("name: !!python/name:os.system x\n\n", "spec:1 name: must be plain YAML, got a value tagged"),
        ("- 1\n- 2\n", "spec: must be a mapping with name, dataset, threat, network, defense, got [1, 2]"),
        ("\n", "spec: must be a mapping with name, dataset, threat, network, defense, got null"),
        ("a: *b\n", "spec:1: is not YAML: found undefined alias"),
        ("a: &a [*a]\n\n", "spec: is nested too deeply"),
        ("--- 1\n--- 2\n", "spec:2: is not YAML: "),
    ],
)
def test_text_that_is_no_spec_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_aliases_that_stand_for_too_much_are_refused() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "at most 20000 values, aliases counted" in refusal(f"l0: &l0 1\n{levels}")


def test_a_merge_key_gives_what_the_mapping_itself_does_not() -> None:
    text = WHOLE.replace("- {name: plain}", "- &plain {name: noisy, scale: 0.5}").replace(
        "    - name: noisy\n", "    - <<: *plain\n"
    )
    first, second = load(text, "search.initial=null").matrix["defense"]
    assert (first["scale"], second["name"], second["scale"]) == (0.5, "noisy", {"log_uniform": [0.001, 1.0]})


@pytest.mark.parametrize("missing", ["name", "dataset", "threat", "network", "defense"])
def test_a_required_key_is_asked_for(missing: str) -> None:
    text = refusal({key: value for key, value in BASE.items() if key != missing})
    assert text.startswith(f"spec {missing}: is required")
    assert ("or a list of them under matrix" in text) == (missing != "name")


NESTED: list[tuple[dict[str, Any], str]] = [
    ({"name": "../x"}, "name: must be letters, digits, '.', '_' and '-', at most 128 and no '.' in front"),
    ({"name": ".x"}, "name: must be letters"),
    ({"name": "a/b"}, "name: must be letters"),
    ({"name": ""}, "name: must be letters"),
    ({"name": 3}, "name: must be letters"),
    ({"name": "a" * 129}, "name: must be letters"),
    ({"defence": 1}, "defence: unknown key; the keys are name, seed, dataset, threat, matrix, defense,"),
    ({"seed": 0.5}, "seed: must be a whole number in 0..4294967295, got 0.5"),
    ({"seed": True}, "seed: must be a whole number in 0..4294967295, got true"),
    ({"store": ""}, "store: must be text, got ''"),
    ({"dataset": "tony"}, "dataset: must be one of toy, files, got 'tony'; did you mean 'toy'?"),
    (
        {"dataset": {"name": "toy", "clases": 3}},
        "dataset.clases: unknown key; the keys are root, validation, train, test, cl",
    ),
    ({"dataset": {"name": "toy", "classes": 1}}, "dataset.classes: must be >= 2, got 1"),
    ({"dataset": {"name": "toy", "train": 0}}, "dataset.train: must be a whole number >= 1 or null, got 0"),
    ({"dataset": {"name": "toy", "root": 3}}, "dataset.root: must be text or null, got 3"),
    ({"dataset": {"name": "files"}}, "dataset.pattern: is required"),
    ({"dataset": ["toy"]}, "dataset: must be a mapping with a name, got [toy]"),
    (
        {"threat": {"norm": "linf", "eps": 8}},
        "threat.eps: must be a fraction of the pixel range, at most 1 for linf, got 8; did",
    ),
    ({"threat": {"norm": "linf", "eps": -1}}, "threat.eps: must be finite and >= 0, got -1.0"),
    ({"threat": {"norm": "linff", "eps": 0.1}}, "threat.norm: must be one of linf, l2, l1"),
    ({"threat": {"norm": "linf"}}, "threat.eps: is required"),
    ({"threat": {"norm": "linf", "eps": 0.1, "steps": 3}}, "threat.steps: unknown key; the keys are norm, eps"),
    ({"threat": "linf"}, "threat: must be a mapping, got 'linf'"),
    ({"network": {"name": "resnet", "depth": 9}}, "network.depth: must be 6n + 2, got 9"),
    (
        {"network": {"name": "resnet", "depth": {"int": [8, 20]}}},
        "network.depth: the hole {int: [8, 20]} allows 9, but it must",
    ),
    (
        {"network": {"log_int": [1, 2]}},
        "network: must be a block with a name, or a choice of such blocks, got {log_int: [1, 2]}",
    ),
    ({"network": {"choice": ["lenet", "vgg"]}}, "network.choice[1]: must be one of lenet, resnet, mlp, got 'vgg'"),
    (
        {"defense": {"name": "noisy", "scael": 1}},
        "defense.scael: unknown key; the keys are scale, sites, per_layer, start,",
    ),
    ({"training": {"epochs": 0}}, "training.epochs: must be >= 1, got 0"),
    ({"training": {"optimizer": "sgdd"}}, "training.optimizer: must be sgd or adam, got 'sgdd'"),
    ({"training": {"threat": None}}, "training.threat: unknown key; the keys are epochs, lr"),
    ({"training": 3}, "training: must be a mapping, got 3"),
    ({"training": {"lr": {"uniform": [1, 0]}}}, "training.lr.uniform: low must be below high, got [1, 0]"),
    ({"matrix": 3}, "matrix: must be a mapping, got 3"),
    ({"matrix": {"network": ["lenet"]}}, "matrix.network: network is given beside the matrix too; keep one of them"),
    (
        {"matrix": {"trainin": []}},
        "matrix.trainin: is no axis of a matrix; the axes are dataset, threat, defense, network",
    ),
    ({"network": None, "matrix": {"network": []}}, "matrix.network: must be a list with at least one network, got []"),
    (
        {"network": None, "matrix": {"network": "lenet"}},
        "matrix.network: must be a list with at least one network, got 'lenet'",
    ),
    (
        {"network": None, "matrix": {"network": ["lenet"] * 1001}},
        "matrix: may have at most 1000 cells, got 1001 (1001)",
    ),
    ({"search": 3}, "search: must be a mapping, got 3"),
    ({"search": {"sampler": "tpee"}}, "search.sampler: must be one of tpe, random, got 'tpee'; did you mean 'tpe'?"),
    ({"search": {"trials": 0}}, "search.trials: must be a whole number >= 1, got 0"),
    ({"search": {"objectives": {}}}, "search.objectives: must name at least one of clean_accuracy, robust_accuracy,"),
    (
        {"search": {"objectives": {"robust": "max"}}},
        "search.objectives.robust: must be one of clean_accuracy, robust_accuracy",
    ),
    ({"search": {"objectives": {"seconds": "mini"}}}, "search.objectives.seconds: must be one of max, min, got 'mini'"),
    ({"search": {"constraints": {"seconds": "< 3"}}}, "search.constraints.seconds: must be a bound such as '>= 0.9'"),
    ({"search": {"constraints": {"seconds": ">= x"}}}, "search.constraints.seconds: must be a bound such as '>= 0.9'"),
    ({"search": {"constraints": {"second": ">= 1"}}}, "search.constraints.second: must be one of clean_accuracy"),
    ({"search": {"initial": 3}}, "search.initial: must be a list, got 3"),
    ({"search": {"initial": [3]}}, "search.initial[0]: must be a mapping, got 3"),
    (
        {"search": {"initial": [{"training.rl": 1}]}},
        "search.initial[0].training.rl: training.rl is no hole; the holes are none",
    ),
    ({"scheduler": {"name": "ahsa"}}, "scheduler.name: must be one of asha, none, got 'ahsa'; did you mean 'asha'?"),
    ({"scheduler": {"reduction_factor": 1}}, "scheduler.reduction_factor: must be a number > 1, got 1"),
    ({"scheduler": {"grace_epochs": 31}}, "scheduler.grace_epochs: must be at most training.epochs (30), got 31"),
    (
        {"evaluation": {"fnal": {}}},
        "evaluation.fnal: unknown key; the keys are rung, final, test; did you mean 'final'?",
    ),
    (
        {"evaluation": {"rung": {"exampels": 3}}},
        "evaluation.rung.exampels: unknown key; the keys are examples, attacks",
    ),
    ({"evaluation": {"rung": {"examples": 0}}}, "evaluation.rung.examples: must be a whole number >= 1 or null, got 0"),
    (
        {"evaluation": {"rung": {"attacks": []}}},
        "evaluation.rung.attacks: must be a list of at least one attack, got []",
    ),
    (
        {"evaluation": {"rung": {"attacks": ["pdg"]}}},
        "evaluation.rung.attacks[0]: must be one of pgd, strong_pgd, got 'pdg'; did",
    ),
    (
        {"evaluation": {"test": {"attacks": [{"name": "pgd", "step": 3}]}}},
        "evaluation.test.attacks[0].step: unknown key; the",
    ),
    (
        {"evaluation": {"test": {"attacks": [{"name": "pgd", "steps": 0}]}}},
        "evaluation.test.attacks[0].steps: must be >= 1",
    ),
    (
        {"evaluation": {"test": {"attacks": [{"name": "strong_pgd", "steps": 3}]}}},
        "evaluation.test.attacks[0]: strong_pgd is a",
    ),
    ({"evaluation": {"test": {"finalists": -1}}}, "evaluation.test.finalists: must be a whole number >= 0, got -1"),
    (
        {"resources": {"trial": {"gpus": 1.5}}},
        "resources.trial.gpus: must be a share of one GPU in [0, 1], a whole number of them",
    ),
    ({"resources": {"trial": {"cpus": 0}}}, "resources.trial.cpus: must be a number > 0 or auto, got 0"),
    (
        {"resources": {"evaluator": {"count": "all"}}},
        "resources.evaluator.count: must be a whole number >= 1 or auto, got 'all'",
    ),
    ({"resources": {"trial": {"count": 3}}}, "resources.trial.count: unknown key; the keys are cpus, gpus"),
    ({"resources": {"max_concurrent": 0}}, "resources.max_concurrent: must be a whole number >= 1 or auto, got 0"),
]


@pytest.mark.parametrize(("changes", "message"), NESTED)
def test_what_cannot_be_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    (line,) = refusal({key: value for key, value in {**BASE, **changes}.items() if value is not None}).splitlines()
    assert line.startswith(f"spec {message}")
    assert "Input should" not in line


def test_eps_in_pixel_steps_is_asked_about() -> None:
    assert refusal(threat={"norm": "linf", "eps": 8}).endswith("got 8; did you mean 8/255?")
    assert refusal(threat={"norm": "linf", "eps": 1000}).endswith("got 1000")
    assert load(threat={"norm": "l2", "eps": 8}).cells()[0].threat.eps == 8


@pytest.mark.parametrize(
    ("changes", "place", "advice"),
    [
        ({"seed": {"int": [0, 3]}}, "seed", "use matrix, over dataset, threat, defense, network"),
        ({"threat": {"norm": "linf", "eps": {"choice": [0.1, 0.2]}}}, "threat.eps", "use matrix: {threat: [...]}"),
        ({"dataset": {"choice": ["toy", "files"]}}, "dataset", "use matrix: {dataset: [...]}"),
        ({"dataset": {"name": "toy", "classes": {"int": [2, 3]}}}, "dataset.classes", "use matrix: {dataset: [...]}"),
        ({"evaluation": {"rung": {"attacks": [{"name": "pgd", "steps": {"int": [1, 2]}}]}}},
         "evaluation.rung.attacks[0].steps", "use matrix, over"),
    ],
)  # fmt: skip
def test_a_hole_elsewhere_points_to_the_matrix(changes: dict[str, Any], place: str, advice: str) -> None:
    (line,) = refusal({**BASE, **changes}).splitlines()
    assert line.startswith(
        f"spec {place}: a hole may stand under network, defense and training only; to compare several,"
    )
    assert advice in line


def test_initial_settings_outside_their_holes_are_refused_with_their_line() -> None:
    text = WHOLE.replace("training: {lr: 0.1}}", "training: {lr: 0.2}}").replace(
        "defense.scale: 0.5", "defense.scael: 1"
    )
    first, second = refusal(text).splitlines()
    assert first == "spec:21 search.initial[0].training.lr: training.lr must be one of 0.01, 0.1, got 0.2"
    assert second.startswith(
        "spec:22 search.initial[1].defense.scael: defense.scael is no hole; the holes are network,"
    )
    assert second.endswith("did you mean 'defense.scale'?")


def test_a_change_of_the_space_is_told_and_what_may_change_is_not() -> None:
    old = load(WHOLE)
    same = load(
        WHOLE,
        "search.trials=99",
        "store=elsewhere",
        "resources.max_concurrent=1",
        "evaluation.final.attacks=[pgd]",
        "dataset.root=/mnt",
        "training.lr={grid: [1/100, 0.1]}",
    )
    assert difference(old.search_space_key(), same.search_space_key()) == []
    changed = load(
        WHOLE,
        "seed=8",
        "training.lr={uniform: [0.1, 1]}",
        "matrix.defense.1.scale=0.2",
        "threat.eps=0.1",
        "search.sampler=random",
        "search.initial=null",
        "scheduler.grace_epochs=3",
        "training.optimizer=adam",
    )
    assert set(difference(old.search_space_key(), changed.search_space_key())) == {
        "seed: was 7, now 8",
        "training.lr: was {grid: [0.01, 0.1]}, now {uniform: [0.1, 1.0]}",
        "training.optimizer: was 'sgd', now 'adam'",
        "matrix.defense[1].scale: was {log_uniform: [0.001, 1.0]}, now 0.2",
        "threat.eps: was 0.03137254901960784, now 0.1",
        "search.sampler: was 'tpe', now 'random'",
        "search.initial: was [{network: {name: resnet, depth: 14}, training: {lr: 0.1}}, {defense.scale: 0..., now []",
        "scheduler.grace_epochs: was 2, now 3",
    }


@pytest.mark.parametrize(
    ("rung", "final", "size", "sizes"),
    [
        (None, None, 300, (100, 200)),
        (None, None, 900, (300, 600)),
        (None, None, 5000, (500, 2000)),
        (None, None, 2, (1, 1)),
        (400, None, 1000, (400, 600)),
        (None, 2000, 2100, (100, 2000)),
        (None, 1000, 5000, (500, 1000)),
        (300, 700, 1000, (300, 700)),
    ],
)
def test_sizes_left_open_follow_from_the_validation_split(rung: Any, final: Any, size: int, sizes: Any) -> None:
    spec = load(evaluation={"rung": {"examples": rung}, "final": {"examples": final}})
    assert evaluation_sizes(spec, size) == sizes


@pytest.mark.parametrize(
    ("rung", "final", "size", "told"),
    [
        (300, 701, 1000, "300 and 701"),
        (None, 100, 100, "at least 1 and 100"),
        (None, None, 1, "at least 1 and at least 1"),
    ],
)
def test_sizes_that_do_not_fit_together_are_named(rung: Any, final: Any, size: int, told: str) -> None:
    evaluation = {"rung": {"examples": rung}, "final": {"examples": final}}
    with pytest.raises(SpecError, match=f"which has {size}: {told} do not fit"):
        evaluation_sizes(load(evaluation=evaluation), size)
    assert f"which has {size}: {told} do not fit" in refusal(
        evaluation=evaluation, dataset={"name": "toy", "validation": size}
    )


def test_a_test_subset_bounds_the_test_evaluation() -> None:
    changes = {"dataset": {"name": "toy", "test": 10}, "evaluation": {"test": {"examples": 11}}}
    assert refusal(**changes) == "spec evaluation.test.examples: must be at most dataset.test, 10, got 11"


def test_rungs_grow_by_the_reduction_factor_to_the_last_epoch() -> None:
    assert load(WHOLE).rungs(12) == [2, 4, 8, 12]
    assert load(WHOLE).rungs(1) == [1]
    assert load(scheduler={"name": "none"}).rungs(30) == [30]


def test_a_grace_that_some_configurations_outlast_is_allowed() -> None:
    assert load(training={"epochs": {"int": [5, 40]}}, scheduler={"grace_epochs": 31}).rungs(40) == [31, 40]
    assert "(25)" in refusal(training={"epochs": {"int": [5, 25]}}, scheduler={"grace_epochs": 31})


def test_importing_the_spec_brings_neither_ray_nor_pandas_nor_torch() -> None:
    code = "import sys, orchestrator.spec; sys.exit(bool({'ray', 'pandas', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_real_tables_are_the_default() -> None:
    network = {"choice": ["lenet", {"name": "resnet", "depth": {"choice": [8, 14]}}]}
    given = {**BASE, "dataset": "digits", "defense": "pgd_at", "network": network}
    spec = load_spec(given)
    assert load_spec(spec.to_yaml()) == spec
    assert [attack["loss"] for attack in spec.evaluation.final.attacks] == ["cross_entropy", "margin"]
    with pytest.raises(SpecError, match=r"network\.depth: the hole .* allows 9, but it must be 6n"):
        load_spec({**given, "network": {"name": "resnet", "depth": {"int": [8, 20]}}})


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
        sampler = self.random.choice(["tpe", "random"])
        return {**written, "search": {"sampler": sampler, "trials": self.random.randint(1, 99)}}

    def dataset(self) -> Any:
        return self.random.choice(
            ["toy", {"name": "toy", "classes": 3, "validation": 60}, {"name": "files", "pattern": "a"}]
        )

    def threat(self) -> Any:
        return {"norm": self.random.choice(["linf", "l2", "l1"]), "eps": self.random.choice([0, 0.1, "8/255", 1])}

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
        return {"name": "noisy", **dict(self.random.sample(sorted(written.items()), self.random.randint(0, 7)))}

    def training(self) -> Any:
        return {"epochs": self.whole(1, 40), "lr": self.real(0.01, 1), "optimizer": self.random.choice(["sgd", "adam"])}

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
                assert make(DEFENSES, made.defense)
                assert make(Training, made.training)
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
