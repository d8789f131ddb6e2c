"""Claims about sweep specs: what loads, what it means, and what is said of those that cannot be run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_specs import BASE, WHOLE, load, refusal

from orchestrator.errors import SpecError
from orchestrator.spec import difference, evaluation_sizes, load_spec


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
    assert test.attacks == [{"name": "strong_pgd"}]
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
        ("evaluation.final.attacks=[strong_pgd, pgd]", lambda spec: len(spec.evaluation.final.attacks) == 2),
    ],
)
def test_an_override_changes_one_value(override: str, read: Any) -> None:
    assert not read(load(WHOLE))
    assert read(load(WHOLE, "search.initial=null", override))


def test_a_merge_key_gives_what_the_mapping_itself_does_not() -> None:
    text = WHOLE.replace("- {name: plain}", "- &plain {name: noisy, scale: 0.5}").replace(
        "    - name: noisy\n", "    - <<: *plain\n"
    )
    first, second = load(text, "search.initial=null").matrix["defense"]
    assert (first["scale"], second["name"], second["scale"]) == (0.5, "noisy", {"log_uniform": [0.001, 1.0]})


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
    assert spec.evaluation.final.attacks == [{"name": "strong_pgd"}]
    with pytest.raises(SpecError, match=r"network\.depth: the hole .* allows 9, but it must be 6n"):
        load_spec({**given, "network": {"name": "resnet", "depth": {"int": [8, 20]}}})
