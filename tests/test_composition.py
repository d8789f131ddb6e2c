"""Claims about `adversarial`, `input` and `base` in a spec: where they may stand, what holds, what is refused."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from inline import SYNTHETIC, Inline
from small_specs import draw
from torch import Tensor

import orchestrator
from attacks import FGSM, PGD
from defenses.adversarial import Adversarial
from defenses.inputs import Gaussian, Quantise
from orchestrator.composition import KEYS, composed
from orchestrator.errors import SpecError
from orchestrator.plan import Plan
from orchestrator.spec import Spec, load_spec

WHOLE: dict[str, Any] = {
    "adversarial": {"name": "pgd", "steps": 2, "share": 0.5},
    "input": [{"name": "gaussian", "std": 0.05}, {"name": "quantise", "bits": 4}],
    "base": {"training": {"epochs": 1}},
}
TEXT = """\
name: composed
dataset: {name: synthetic, validation: 60}
threat: {norm: linf, eps: 0.1}
defense: DEFENSE
network: {name: mlp, widths: [4]}
training: {epochs: 3, batch_size: 32TRAINING}
BESIDE
search: {trials: 2}
"""


def load(defense: str = "{name: standard}", training: str = "", beside: str = "") -> Spec:
    more = f", {training}" if training else ""
    return load_spec(TEXT.replace("DEFENSE", defense).replace("TRAINING", more).replace("BESIDE", beside))


def plan_of(spec: Spec, cell: int = 0, **values: Any) -> Plan:
    """The first trial; `values` are those of holes, by the last word of their path."""
    found = spec.cells()[cell]
    configuration = found.space.configure(
        lambda path, hole: values.get(path.rpartition(".")[2].replace("0", ""), hole.probes()[0])
    )
    return Plan.of(found, configuration, "data", spec.seed, 0)


def refusal(defense: str = "{name: standard}", training: str = "", beside: str = "") -> str:
    with pytest.raises(SpecError) as raised:
        load(defense, training, beside)
    return str(raised.value)


PGD_2 = "adversarial: {name: pgd, steps: 2}"


def test_a_spec_without_them_has_the_blocks_it_always_had() -> None:
    """Nothing is filled in, so that what makes a trial's id is as it was."""
    plan = plan_of(load())
    assert not set(KEYS) & {*plan.defense, *plan.training}
    assert plan.defense == {"name": "standard"}
    assert "adversarial" not in load().to_yaml()
    assert "input" not in load().to_yaml()
    assert "base" not in load().to_yaml()


@pytest.mark.parametrize(
    "written",
    [
        {"defense": "{name: pcl, " + PGD_2 + "}"},
        {"defense": "{name: pcl}", "training": PGD_2},
        {"defense": "{name: pcl}", "beside": PGD_2},
        {"defense": "{name: pcl, " + PGD_2 + "}", "training": "adversarial: {name: fgsm}"},
        {"defense": "{name: pcl, " + PGD_2 + "}", "beside": "adversarial: {name: fgsm}"},
    ],
)
def test_wherever_it_stands_the_trial_is_the_same(written: dict[str, str]) -> None:
    """In the defense, under training, beside both; the defense's own goes before."""
    plan = plan_of(load(**written))
    assert plan.trial_id == plan_of(load("{name: pcl, " + PGD_2 + "}")).trial_id
    assert plan.make_training().adversarial == Adversarial(PGD(2))
    assert plan.trial_id != plan_of(load("{name: pcl}")).trial_id


@pytest.mark.parametrize("off", ["none", "null", "~"])
@pytest.mark.parametrize(("key", "value"), [("adversarial", "{name: fgsm}"), ("input", "[quantise]"), ("base", "{}")])
def test_a_defense_can_switch_off_what_training_has(key: str, value: str, off: str) -> None:
    plan = plan_of(load("{name: pcl, " + f"{key}: {off}" + "}", f"{key}: {value}"))
    assert plan.trial_id == plan_of(load("{name: pcl}")).trial_id
    assert key not in plan.defense


def test_the_arms_of_a_matrix_may_differ() -> None:
    text = TEXT.replace("defense: DEFENSE", "matrix: {defense: [{name: pgd_at, adversarial: none}, pcl, standard]}")
    spec = load_spec(text.replace("TRAINING", "").replace("BESIDE", PGD_2))
    found = [plan_of(spec, cell).make_training().adversarial for cell in range(3)]
    assert found == [None, Adversarial(PGD(2)), Adversarial(PGD(2))]


def test_holes_may_stand_in_all_three_and_have_columns() -> None:
    spec = load(
        "{name: pcl, adversarial: {choice: [null, {name: pgd, steps: {int: [1, 4]}, eps: "
        "{ref: threat.eps, times: 2}}]}}",
        "input: [{name: gaussian, std: {uniform: [0.01, 0.1]}}]",
        "base: {defense: {choice: [standard, pgd_at]}, training: {lr: {log_uniform: [0.01, 0.1]}}}",
    )
    assert spec.param_columns() == {
        "defense.adversarial": "string",
        "defense.adversarial.pgd.steps": "int",
        "training.input.0.std": "float",
        "training.base.defense": "string",
        "training.base.training.lr": "float",
    }
    plain, attacked = (plan_of(spec, adversarial=label, steps=3, std=0.02, lr=0.05) for label in ("null", "pgd"))
    assert plain.make_training().adversarial is None
    assert attacked.make_training().adversarial == Adversarial(PGD(3), eps=0.2)
    assert attacked.make_training().inputs == (Gaussian(0.02),)
    assert attacked.base() is not None
    assert attacked.defense["base"]["training"]["lr"] == 0.05
    assert "defense.adversarial.pgd.steps" not in plain.params


def test_the_normal_form_loads_again_to_the_same() -> None:
    spec = load("{name: pcl, " + PGD_2 + "}", "input: [quantise]", "base: {training: {epochs: 2}}")
    again = load_spec(spec.to_yaml())
    assert again == spec
    assert plan_of(again).trial_id == plan_of(spec).trial_id
    form = spec.model_dump()
    assert form["defense"]["adversarial"]["share"] == 1.0
    assert form["training"]["input"] == [{"name": "quantise", "bits": 3}]
    assert form["training"]["base"] == {"training": {"epochs": 2}}


def test_a_base_of_which_nothing_is_said_is_standard_training_with_the_trials_own() -> None:
    _, training = composed({"name": "standard"}, {"epochs": 3}, 7)
    defense, _ = composed({"name": "standard"}, {"epochs": 3, "base": {}}, 7)
    assert defense["base"]["defense"]["name"] == "standard"
    assert (defense["base"]["training"], defense["base"]["seed"]) == (training, 7)


def test_a_base_is_completed_by_the_trials_own_training() -> None:
    """Its attacks and transforms too, unless the base or its defense has its own."""
    plan = plan_of(load("{name: pcl, input: none}", "input: [quantise]", "base: {training: {lr: 0.5}}"))
    base = plan.base()
    assert base is not None
    assert base.training == plan.training | {"lr": 0.5}
    assert base.defense == {"name": "standard", "input": [{"name": "quantise", "bits": 3}]}
    assert (base.network, base.fingerprint, base.threat) == (plan.network, plan.fingerprint, plan.threat)
    assert plan.make_training().inputs == ()
    assert base.make_training().inputs == (Quantise(),)
    own = "base: {defense: {name: standard, adversarial: {name: fgsm}}, training: {input: none}}"
    base = plan_of(load("{name: pcl}", f"input: [quantise], {PGD_2}", own)).base()
    assert base is not None
    assert base.make_training().inputs == ()
    assert base.make_training().adversarial == Adversarial(FGSM())


def test_what_it_attacks_with_is_part_of_the_identity_and_so_is_the_threat() -> None:
    specs = [
        load("{name: standard, " + block + "}")
        for block in (
            "adversarial: {name: pgd}",
            "adversarial: {name: pgd, share: 0.5}",
            "adversarial: {name: pgd, eps: 0.05}",
            "adversarial: {name: fgsm}",
            "input: [quantise]",
            "input: [quantise, gaussian]",
            "input: [gaussian, quantise]",
        )
    ]
    wider = load_spec(specs[0].to_yaml().replace("eps: 0.1", "eps: 0.2"))
    without = [load_spec(load().to_yaml().replace("eps: 0.1", f"eps: {eps}")) for eps in ("0.1", "0.2")]
    assert len({plan_of(spec).trial_id for spec in (*specs, wider, without[0])}) == 9
    assert len({plan_of(spec).trial_id for spec in without}) == 1


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"defense": "{name: pcl, adversarial: {name: pdg}}"},
            "spec:4 defense.adversarial.name: must be one of noise, fgsm, rfgsm, ",
        ),
        (
            {"training": "adversarial: {name: pgd, share: 2}"},
            "spec:6 training.adversarial.share: must be in (0, 1], got 2.0",
        ),
        (
            {"beside": "adversarial: {name: pgd, steps: 0}"},
            "spec:7 adversarial.steps: must be a whole number >= 1, got 0",
        ),
        (
            {"beside": "adversarial: {name: pgd, step: 3}"},
            "spec:7 adversarial.step: unknown key; the keys are steps, restarts, step_size, random_start, loss, keep, "
            "share, eps; did you mean 'steps'?",
        ),
        (
            {"beside": "adversarial: {name: pgd, eps: 8}"},
            "spec:7 adversarial.eps: must be a fraction of the pixel range, at most 1 for linf, got 8; did you mean",
        ),
        (
            {"beside": "input: {name: quantise}"},
            "spec:7 input: must be a list of blocks, each with a name, got {name: quantise}",
        ),
        (
            {"training": "input: [{name: quantise, bits: {int: [1, 9]}}]"},
            "spec:6 training.input[0].bits: the hole {int: [1, 9]} allows 9, but it must be a whole number in 1..8",
        ),
        (
            {"beside": "base: {network: lenet}"},
            "spec:7 base.network: unknown key; the keys are defense, training",
        ),
        (
            {"beside": "base: {training: {epoch: 3}}"},
            "spec:7 base.training.epoch: unknown key; the keys are epochs, ",
        ),
        (
            {"beside": "base: {base: {}}"},
            "spec:7 base.base: unknown key; the keys are defense, training",
        ),
        (
            {"training": PGD_2, "beside": PGD_2},
            "spec:7 adversarial: is given under training too; keep one of them, got {name: pgd, steps: 2}",
        ),
        (
            {"defense": "{name: pgd_at}", "beside": PGD_2},
            "spec:4 defense: adversarial: pgd_at attacks its images itself, by settings of its own, and these would be "
            "attacked twice: leave it out, or write adversarial: none in the defense's block",
        ),
        (
            {"beside": "base: {training: {warmup_epochs: 3}}"},
            "spec:4 defense: base.training.warmup_epochs: must be an integer from 0 to 2, got 3",
        ),
        (
            {"defense": "{name: pcl, " + PGD_2 + "}", "beside": "base: {defense: {name: pgd_at, adversarial: fgsm}}"},
            "spec:4 defense: base: adversarial: pgd_at attacks its images itself",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(written: dict[str, str], message: str) -> None:
    assert message in refusal(**written)


def test_a_choice_that_would_be_attacked_twice_is_refused() -> None:
    said = refusal("{choice: [pgd_at, pcl]}", PGD_2)
    assert said.startswith("spec:4 defense: adversarial: pgd_at attacks its images itself")


def test_settings_that_are_tried_first_may_be_of_them() -> None:
    spec = load("{name: pcl, adversarial: {name: pgd, steps: {int: [1, 4]}}}")
    text = spec.to_yaml().replace("initial: []", "initial: [{defense: {adversarial: {steps: 3}}}]")
    assert load_spec(text).cells()[0].fixed == ({"defense.adversarial.steps": 3},)


def test_composing_leaves_what_it_is_given_alone() -> None:
    defense, training = {"name": "standard", "input": []}, {"epochs": 2, **WHOLE}
    before = copy.deepcopy((defense, training))
    composed(defense, training, 3)
    assert (defense, training) == before


def test_a_sweep_with_all_three_goes_on_where_it_was_stopped_to_the_bit(tmp_path: Path) -> None:
    """Of three rungs, stopped after the first, beside one that is not."""
    made = copy.deepcopy(SYNTHETIC) | WHOLE | {"defense": {"name": "pcl"}}
    del made["matrix"]
    made["search"]["trials"] = 1
    made["scheduler"] = {"grace_epochs": 1, "reduction_factor": 1.5}
    made["evaluation"]["test"] |= {"finalists": 0}
    whole = Inline(tmp_path / "whole", made).run()
    Inline(tmp_path / "parts", made).run(steps=1)
    parts = Inline(tmp_path / "parts", made).run()
    columns = ["trial_id", "stage", "status", "clean_accuracy", "robust_accuracy", "rung_robust_accuracy"]
    ours, theirs = (run.store.read("trials")[columns].sort_values("trial_id") for run in (parts, whole))
    assert ours.to_dict("records") == theirs.to_dict("records")
    assert set(theirs["status"]) == {"completed"}
    examples = whole.store.read("examples")
    assert examples["robust_probability"].notna().all()  # noise in front makes the model stochastic
    configs = [json.loads(text)["defense"] for text in whole.store.read("asks")["config_json"]]
    assert all(set(KEYS) <= set(config) for config in configs)


def test_a_stored_model_has_its_transforms_and_a_surface_that_knows_them(tmp_path: Path) -> None:
    made = copy.deepcopy(SYNTHETIC) | {"defense": {"name": "standard"}, "input": [{"name": "quantise", "bits": 2}]}
    del made["matrix"]
    made["search"]["trials"] = 1
    made["evaluation"]["test"] |= {"finalists": 0}
    run = Inline(tmp_path, made).run()
    model = orchestrator.load(tmp_path).model(run.store.read("trials")["trial_id"][0])
    x: Tensor = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (model(x) == model((x * 3).round() / 3)).all()
    assert model.surface.backward is not None
    assert (model.surface.backward(x) == model(x)).all()


def test_random_choices_of_all_three_build() -> None:
    spec = load(
        "{choice: [standard, {name: pcl, adversarial: none}, {name: pcl, input: [{name: pixel_drop, share: {uniform: "
        "[0.1, 0.4]}}]}]}",
        "input: {choice: [none, [gaussian], [{name: quantise, bits: {int: [1, 8]}}, random_resize_pad]]}",
        "adversarial: {choice: [{name: pgd, steps: {int: [1, 3]}}, fgsm, none]}",
    )
    for seed in range(40):
        cell = spec.cells()[0]
        plan = Plan.of(cell, cell.space.configure(draw(random.Random(seed))), "data", 0, 0)
        training = plan.make_training()
        given = plan.params
        own = given["defense"] == "pcl"
        assert (training.adversarial is None) == (own or given["training.adversarial"] == "null"), seed
        if given["defense"] == "pcl.2":
            assert [type(each).name for each in training.inputs] == ["pixel_drop"]
        else:
            assert bool(training.inputs) == (given["training.input"] != "null")
