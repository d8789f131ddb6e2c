"""Claims about specs that cannot be run: what is said, of which line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_specs import BASE, WHOLE, load, refusal


def test_an_override_that_is_wrong_is_named_as_it_was_given() -> None:
    assert (
        refusal(WHOLE, "search.trials=0") == "--set search.trials=0 search.trials: must be a whole number >= 1, got 0"
    )
    assert refusal(WHOLE, "search.trails=3").startswith("--set search.trails=3 search.trails: unknown key")
    for empty in ("..=1", "[]=1", ".=", "=1"):
        assert refusal(WHOLE, empty) == f"--set {empty}: must be key.path=value, such as search.trials=8"
    assert (
        refusal(WHOLE, "seed=[")
        == "--set seed=[: the value is no YAML (expected the node content, but found the end of the text)"
    )
    assert refusal(WHOLE, "seed=2\n3").startswith(r"--set 'seed=2\n3' seed: must be a whole number")
    assert refusal(WHOLE, "seed") == "--set seed: must be key.path=value, such as search.trials=8"
    assert refusal(WHOLE, "matrix.defense.7.scale=1") == "--set matrix.defense.7.scale=1: there is no 7 in a list of 2"
    assert refusal(WHOLE, "training={lr: x}").startswith("--set training={lr: x} training.lr: must be a number")
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
    assert (
        refusal(tmp_path / "image.yaml")
        == f"{tmp_path / 'image.yaml'}: must be a text file in UTF-8, got the byte 0x89 in line 1"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseed: 1\nname: b\n", "spec:3 name: duplicate key, first given at spec:1"),
        ("a:\n  b: {c: 1, c: 2}\n", "spec:2 a.b.c: duplicate key, first given at spec:2"),
        ("name: [a\nseed: 1\n", "spec:2: is not YAML: "),
        ("name: !!python/name:os.system x\n\n", "spec:1 name: must be plain YAML, got a value tagged"),
        ("- 1\n- 2\n", "spec: must be a mapping with name, dataset, threat, network, defense, got [1, 2]"),
        ("\n", "spec: must be a mapping with name, dataset, threat, network, defense, got nothing: it is empty"),
        ("a: *b\n", "spec:1: is not YAML: found undefined alias"),
        ("a: &a [*a]\n\n", "spec:1 a[0][0]...: is nested too deeply, at most 50 levels"),
        ("a: &a\n  <<: *a\n", "spec:1 a.<<: merges itself"),
        ("a:\n  <<: 3\n", "spec:2 a.<<: must be a mapping or a list of mappings"),
        ("name: " + "{a: " * 60 + "1" + "}" * 60 + "\n", "spec:1 name.a.a...: is nested too deeply, at most 50 levels"),
        ("name: " + "[" * 1000 + "]" * 1000 + "\n", "spec: is nested too deeply"),
        ("name: a\nseed: !!bool maybe\n", "spec:2 seed: cannot be read as a value (bool), got 'maybe'"),
        ("name: a\nseed: " + "9" * 5000 + "\n", "spec:2 seed: cannot be read as a value (int), got '9999"),
        ("seed: !!python/object/apply:os.system [ls]\n", "spec:1 seed: must be plain YAML, got a value tagged"),
        ("seed: !!set {a, b}\n", "spec:1 seed: must be plain YAML, got a value tagged"),
        ("name: a\nseed: \x07\n", "spec:2: must be plain text, got the character '\\x07'"),
        ("a: {b: 1,\n\nc: 3\nd: 4\n", "spec:4: is not YAML: expected ',' or '}', but got ':' (while parsing"),
        ("a:\n\t- b\n", "spec:2: is not YAML: found character '\\t' that cannot start any token"),
        ("--- 1\n--- 2\n", "spec:2: is not YAML: "),
    ],
)
def test_text_that_is_no_spec_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_aliases_that_stand_for_too_much_are_refused() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "at most 20000 values, aliases counted" in refusal(f"l0: &l0 1\n{levels}")
    merges = "".join(f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 10)}]\n  k{n}: 1\n" for n in range(1, 20))
    assert "spec:1 l0: unknown key" in refusal(f"l0: &l0 {{a: 1}}\n{merges}")  # 10^19 ways, each mapping looked at once


def test_what_is_no_file_or_too_much_of_one_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    assert refusal("/dev/zero") == "/dev/zero: a spec may have at most 500000 bytes"
    assert refusal("~nobody-of-that-name/a.yaml").startswith("~nobody-of-that-name/a.yaml: cannot be read: ")
    assert refusal("a\0b.yaml").startswith("a\0b.yaml: cannot be read: ")
    (tmp_path / "mark.yaml").write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())  # as editors on Windows begin a file
    assert load(tmp_path / "mark.yaml") == load(WHOLE)


@pytest.mark.parametrize("missing", ["name", "dataset", "threat", "network", "defense"])
def test_a_required_key_is_asked_for(missing: str) -> None:
    text = refusal({key: value for key, value in BASE.items() if key != missing})
    assert text.startswith(f"spec {missing}: is required")
    assert ("or a list of them under matrix" in text) == (missing != "name")


NESTED: list[tuple[dict[str, Any], str]] = [
    (
        {"name": "../x"},
        "name: must be letters, digits, '.', '_' and '-', at most 128, no '.' or '-' in front and no '.'",
    ),
    *(
        ({"name": name}, "name: must be letters")
        for name in ("/etc", "x ", " x", "x.", "-x", "a\\b", "a\0", "x\n", "ｘ", "х")
    ),
    *(({"name": name}, "name: must be no device of Windows") for name in ("con", "NUL.txt", "Com1")),
    ({"name": ".x"}, "name: must be letters"),
    ({"name": "a/b"}, "name: must be letters"),
    ({"name": ""}, "name: must be letters"),
    ({"name": 3}, "name: must be letters"),
    ({"name": "a" * 129}, "name: must be letters"),
    ({"defence": 1}, "defence: unknown key; the keys are name, seed, dataset, threat, matrix, defense,"),
    ({"seed": 0.5}, "seed: must be a whole number in 0..4294967295, got 0.5"),
    ({"seed": True}, "seed: must be a whole number in 0..4294967295, got true"),
    ({"store": "a\0b"}, "store: must be text without control characters, got 'a\\x00b'"),
    ({"store": ""}, "store: must be text, got ''"),
    ({"dataset": "tony"}, "dataset: must be one of toy, files, got 'tony'; did you mean 'toy'?"),
    (
        {"dataset": {"name": "toy", "clases": 3}},
        "dataset.clases: unknown key; the keys are root, validation, train, test, cl",
    ),
    ({"dataset": {"name": "toy", "classes": 1}}, "dataset.classes: must be >= 2, got 1"),
    ({"dataset": {"name": "toy", "train": 0}}, "dataset.train: must be a whole number >= 1 or null, got 0"),
    ({"dataset": {"name": "toy", "root": 3}}, "dataset.root: must be text or null, got 3"),
    ({"dataset": {"name": "toy", "root": "a\0"}}, "dataset.root: must be a path without control characters, got 'a"),
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
    (
        {"defense": {"name": "noisy", "attack": {"name": "pgd", "step_size": {"choice": [0.1, 2]}}}},
        "defense.attack.step_size.choice[1]: must be a fraction of the pixel range, at most 1 for linf, got 2; did you",
    ),
    (
        {"network": {"name": "resnet", "width": 1e30}},
        "network.width: must be a whole number of at most 9,007,199,254,740",
    ),
    (
        {"network": {"name": "resnet", "width": {"int": [1, 1e18]}}},
        "network.width.int: may have at most 9,007,199,254,74",
    ),
    (
        {"training": {"lr": {"uniform": [0.1, 1], "step": 1e-300}}},
        "training.lr.uniform: may have at most 9,007,199,254",
    ),
    ({"training": {"lr": "8/"}}, "training.lr: must be a number, got '8/'; a fraction is written 8/255"),
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
    (
        {"search": {"sampler": "tpee"}},
        "search.sampler: must be one of tpe, random, qmc, grid, nsga2, nsga3, gp, cmaes, got 'tpee'; "
        "did you mean 'tpe'?",
    ),
    ({"search": {"trials": 0}}, "search.trials: must be a whole number >= 1, got 0"),
    (
        {"search": {"trials": 40_000}, "network": None, "matrix": {"network": ["lenet", "resnet", "mlp"]}},
        "search.trials: 3 cells x (40000 trials + 9 of finalists) are 120,027 trials; a sweep may have at most 100,000",
    ),
    ({"search": {"objectives": {}}}, "search.objectives: must name at least one of clean_accuracy, robust_accuracy,"),
    (
        {"search": {"objectives": {"robust": "max"}}},
        "search.objectives.robust: must be one of clean_accuracy, robust_accuracy",
    ),
    ({"search": {"objectives": {"seconds": "mini"}}}, "search.objectives.seconds: must be one of max, min, got 'mini'"),
    ({"search": {"constraints": {"seconds": "< 3"}}}, "search.constraints.seconds: must be a bound such as '>= 0.9'"),
    ({"search": {"constraints": {"seconds": ">= x"}}}, "search.constraints.seconds: must be a bound such as '>= 0.9'"),
    (
        {"search": {"constraints": {"clean_accuracy": ">= 90"}}},
        "search.constraints: clean_accuracy must be bounded by a share in [0, 1], got '>= 90.0'; did you mean '>= 0.9'",
    ),
    ({"search": {"constraints": {"second": ">= 1"}}}, "search.constraints.second: must be one of clean_accuracy"),
    ({"search": {"initial": 3}}, "search.initial: must be a list, got 3"),
    ({"search": {"initial": [3]}}, "search.initial[0]: must be a mapping, got 3"),
    (
        {"search": {"initial": [{"training.rl": 1}]}},
        "search.initial[0].training.rl: training.rl is no hole; the holes are none",
    ),
    ({"scheduler": {"name": "ahsa"}}, "scheduler.name: must be one of asha, none, got 'ahsa'; did you mean 'asha'?"),
    ({"scheduler": {"reduction_factor": 1}}, "scheduler.reduction_factor: must be a number in 1.01..1000, got 1"),
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
        {"evaluation": {"final": {"attacks": ["pgd", {"name": "pgd", "step_size": 2}]}}},
        "evaluation.final.attacks[1].step_size: must be a fraction of the pixel range, at most 1 for linf, got 2;",
    ),
    (
        {"evaluation": {"final": {"attacks": ["pgd", {"name": "pgd", "steps": 10}]}}},
        "evaluation.final.attacks: each must be another attack or have other settings, got twice {name: pgd, ",
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
    assert refusal(threat={"norm": "l2", "eps": 2000}).endswith("at most 1774 for l2, got 2000")
    assert refusal(threat={"norm": "l2", "eps": 0}).endswith("eps: must be > 0, got 0: at 0 there is nothing to attack")


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
