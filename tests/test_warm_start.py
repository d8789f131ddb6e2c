"""Claims about `search.warm_start`: what another run tells a new search, and that it is read once."""

from __future__ import annotations

import copy
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console

import orchestrator
from orchestrator.errors import SpecError, UserError
from orchestrator.evolution import EvolvingPoints, numbers_of
from orchestrator.fitting import NoFit, params_of
from orchestrator.lowdiscrepancy import coordinate, share_of
from orchestrator.preview import preview
from orchestrator.sampler_limits import POPULATION
from orchestrator.samplers import GENERATION_OF
from orchestrator.search import Outcome, Past, Study
from orchestrator.spec import load_spec

FIGURES = ["trial_id", "status", "clean_accuracy", "robust_accuracy", "robust_area", "rung_robust_accuracy"]


def one_cell(name: str, *runs: Path, **search: Any) -> dict[str, Any]:
    found = copy.deepcopy(SYNTHETIC) | {"name": name, "matrix": {"defense": [{"name": "standard"}]}}
    found["evaluation"]["test"] = {"finalists": 0}
    found["search"] = {"trials": 3, "objectives": {"robust_area": "max"}, "reuse": False, **search}
    found["search"] |= {"warm_start": [str(run) for run in runs]} if runs else {}
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    spec = one_cell("pilot", sampler="random", trials=6)
    return Inline(tmp_path_factory.mktemp("pilots") / "pilot", spec).run()


def begun(run: Inline) -> list[tuple[Any, ...]]:
    """What the study of the only cell holds before its first suggestion."""
    (study,) = run.sweep.studies.values()
    trials = study._study.get_trials()[: study._shift]
    return [(trial.state.name, trial.params, trial.values, trial.intermediate_values) for trial in trials]


def skipped(run: Inline) -> dict[str, int]:
    events = run.store.read("events").query("kind == 'warm start'")
    return json.loads(events["evidence"].iloc[0])["skipped"]  # type: ignore[no-any-return]


def figures(run: Inline) -> pd.DataFrame:
    return run.store.read("trials")[FIGURES].sort_values("trial_id").reset_index(drop=True)


def test_a_search_begins_with_the_finished_trials_of_another_run(source: Inline, tmp_path: Path) -> None:
    run = Inline(tmp_path / "new", one_cell("new", source.root))
    theirs = source.store.read("trials")
    assert len(begun(run)) == 6
    assert sorted(state for state, *_ in begun(run)) == sorted(
        {"completed": "COMPLETE", "pruned": "PRUNED"}[status] for status in theirs["status"]
    )
    rates = {round(params["training.lr"], 12) for _, params, *_ in begun(run)}
    assert rates == set(theirs["param.training.lr"].round(12))
    values = [found[0] for _, _, found, _ in begun(run) if found and len(found)]
    assert max(values) == pytest.approx(theirs["robust_area"].max())
    run.run()
    trials = run.store.read("trials")
    assert len(trials) == 3  # those of the past are none of ours
    assert set(trials["trial_id"]).isdisjoint(theirs["trial_id"])
    assert set(run.store.read("asks")["number"]) == {0, 1, 2}


@pytest.mark.parametrize("steps", [0, 3])
def test_it_is_read_once_and_a_killed_sweep_goes_on_without_the_other_run(
    source: Inline, tmp_path: Path, steps: int
) -> None:
    shutil.copytree(source.root, tmp_path / "pilot")
    undisturbed = Inline(tmp_path / "one" / "new", one_cell("new", tmp_path / "pilot")).run()
    spec = one_cell("new", tmp_path / "pilot")
    first = Inline(tmp_path / "two" / "new", spec).run(steps)
    shutil.move(tmp_path / "pilot", tmp_path / "gone")
    again = Inline(tmp_path / "two" / "new", spec)
    assert begun(again) == begun(first)
    pd.testing.assert_frame_equal(figures(again.run()), figures(undisturbed))
    shutil.move(tmp_path / "gone", tmp_path / "pilot")


def test_a_search_under_way_that_lost_record_and_run_goes_on_and_says_so(source: Inline, tmp_path: Path) -> None:
    shutil.copytree(source.root, tmp_path / "pilot")
    spec = one_cell("new", tmp_path / "pilot")
    run = Inline(tmp_path / "new", spec).run(2)
    for path in (run.root / "events").glob("group-*.parquet"):
        path.unlink()
    shutil.rmtree(tmp_path / "pilot")
    again = Inline(run.root, spec)
    assert begun(again) == []
    assert "no run here" in again.sweep.warm.remarks[0]
    again.run()
    assert len(again.store.read("trials")) == 3


def test_only_what_lies_in_the_space_is_taken(source: Inline, tmp_path: Path) -> None:
    theirs = source.store.read("trials")
    spec = one_cell("narrow", source.root)
    spec["training"]["lr"] = {"log_uniform": [0.01, float(theirs["param.training.lr"].median())]}
    run = Inline(tmp_path / "narrow", spec)
    inside = int((theirs["param.training.lr"] <= theirs["param.training.lr"].median()).sum())
    assert (len(begun(run)), skipped(run)) == (inside, {"training.lr is outside its range here": 6 - inside})
    spec = one_cell("fixed", source.root)
    spec["training"]["weight_decay"] = 5e-4  # searched there
    run = Inline(tmp_path / "fixed", spec)
    alike = int((theirs["param.training.weight_decay"] == 5e-4).sum())
    assert (len(begun(run)), skipped(run)) == (alike, {"training.weight_decay is another": 6 - alike})
    spec = one_cell("more", source.root)
    spec["training"] |= {"epochs": 6, "momentum": {"uniform": [0.0, 0.95]}}  # fixed there
    run = Inline(tmp_path / "more", spec)
    assert len(begun(run)) == 6
    assert {params["training.momentum"] for _, params, *_ in begun(run)} == {0.9}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threat": {"norm": "linf", "eps": 0.04}}, "its threat is linf eps 0.05"),
        ({"dataset": {"name": "digits", "validation": 300}}, "its dataset is synthetic"),
        ({"network": {"name": "mlp", "widths": [8]}}, "network.widths is another"),
        ({"matrix": {"defense": [{"name": "pgd_at", "steps": 2}]}}, "defense is another"),
        (
            {
                "evaluation": SYNTHETIC["evaluation"]
                | {"final": {"attacks": [{"name": "fgsm"}]}, "test": {"finalists": 0}}
            },
            "its final evaluation attacked otherwise",
        ),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_a_count_and_a_reason(
    source: Inline, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    run = Inline(tmp_path / "new", one_cell("new", source.root) | changes)
    assert reason in skipped(run)
    assert all(state == "PRUNED" for state, *_ in begun(run))
    assert sum(skipped(run).values()) + len(begun(run)) == 6
    assert f"{skipped(run)[reason]} left out: {reason}" in run.sweep.warm.remarks[0]


def test_a_search_that_does_not_learn_is_not_changed(source: Inline, tmp_path: Path) -> None:
    warm = Inline(tmp_path / "a" / "new", one_cell("new", source.root, sampler="qmc")).run()
    cold = Inline(tmp_path / "b" / "new", one_cell("new", sampler="qmc")).run()
    pd.testing.assert_frame_equal(figures(warm), figures(cold))


def said_by_check(**search: Any) -> str:
    console, spec = Console(width=200, file=io.StringIO()), one_cell("new", **search)
    spec["training"]["momentum"] = {"uniform": [0.0, 0.9]}
    console.print(preview(load_spec(spec)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_check_says_what_becomes_of_other_runs_and_several_seeds() -> None:
    assert "learns from the trials of results/pilot" in said_by_check(warm_start=["results/pilot"])
    assert "without effect: random learns from no trial" in said_by_check(sampler="random", warm_start=["pilot"])
    assert "cmaes starts at the best trial" in said_by_check(sampler="cmaes", warm_start=["pilot"])
    assert "trained with 3 seeds" in said_by_check(seeds=3)
    assert "search.risk is without effect" in said_by_check(risk=1.0)


def test_a_run_that_is_not_there_is_refused_before_anything_is_on_record(tmp_path: Path) -> None:
    spec = one_cell("new", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"search\.warm_start: .*nowhere: no run here"):
        orchestrator.run(spec, store=tmp_path, console=Console(file=io.StringIO()))
    assert not (tmp_path / "new" / "spec.yaml").exists()
    with pytest.raises(UserError, match="this sweep itself"):
        orchestrator.run(one_cell("new", tmp_path / "new"), store=tmp_path, console=Console(file=io.StringIO()))
    with pytest.raises(SpecError, match=r"search\.warm_start"):
        load_spec(one_cell("new", warm_start="results/pilot"))


SPACE = {
    "name": "s",
    "dataset": {"name": "digits"},
    "threat": {"norm": "linf", "eps": 0.1},
    "defense": {"name": "pgd_at", "eps": {"ref": "threat.eps", "times": 1.5}},
    "network": {
        "choice": [
            {"name": "resnet", "depth": 8, "width": {"int": [2, 4]}},
            {"name": "mlp", "widths": {"choice": [[8], [16, 8]]}},
            {"name": "resnet", "depth": 14, "width": {"int": [4, 8]}},
        ]
    },
    "training": {"epochs": 3, "lr": {"uniform": [0.1, 0.3], "step": 0.1}},
}


def test_a_configuration_finds_its_way_back_into_a_space_of_choices_whatever_their_order() -> None:
    turned = SPACE | {"network": {"choice": list(reversed(SPACE["network"]["choice"]))}}  # type: ignore[index]
    (here,), (there,) = (load_spec(spec).cells() for spec in (SPACE, turned))
    study = Study(there.space, "grid", ["maximize"], seed=0)
    seen = set()
    for _ in range(30):
        _, found = study.ask()
        blocks = {"network": found.network, "defense": found.defense, "training": found.training}
        params = params_of(here.space, blocks, found.params)
        ours = here.space.configure(lambda path, hole, params=params: params[path])  # type: ignore[misc]
        assert (ours.network, ours.defense, ours.training) == (found.network, found.defense, found.training)
        seen.add(params["network"])
    assert seen == {"resnet", "resnet.2", "mlp"}
    wide = {"name": "resnet", "depth": 8, "width": 8}
    with pytest.raises(NoFit, match="network is none of its options"):
        params_of(here.space, blocks | {"network": blocks["network"] | wide}, {})
    with pytest.raises(NoFit, match="refers to another"):
        params_of(here.space, blocks | {"defense": blocks["defense"] | {"eps": 0.2}}, {})


def pasts(count: int, space: Any) -> list[Past]:
    """Trials whose value is the better the nearer lr is to 0.5."""
    study, found = Study(space, "random", ["maximize"], seed=5), []
    for _ in range(count):
        asked, configuration = study.ask()
        value = -abs(np.log(configuration.training["lr"] / 0.5))
        found.append(Past(asked.params, Outcome("completed", (float(value),), None, {"degenerate": 0.0})))
    return found


def numbers_only() -> Any:
    training = {"epochs": 3, "lr": {"log_uniform": [1e-3, 1.0]}, "momentum": {"uniform": [0.0, 0.9]}}
    (cell,) = load_spec(SPACE | {"network": "mlp", "training": training}).cells()
    return cell.space


def test_a_population_begins_where_the_other_run_ended() -> None:
    space = numbers_only()
    study = Study(space, "nsga2", ["maximize"], seed=0, past=pasts(POPULATION, space))
    asked, _ = study.ask()
    assert asked.sampler_attrs[GENERATION_OF["nsga2"]] == 1
    assert asked.number == 0


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_suggestions_are_nearer_to_what_was_good(sampler: str) -> None:
    space = numbers_only()

    def distance(past: list[Past]) -> float:
        study = Study(space, sampler, ["maximize"], seed=0, past=past)
        rates = [study.ask()[1].training["lr"] for _ in range(6)]
        return float(np.mean([abs(np.log(rate / 0.5)) for rate in rates]))

    assert distance(pasts(40, space)) < 0.7 * distance([])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes"])
def test_a_search_with_a_past_is_rebuilt_as_it_was(sampler: str) -> None:
    space, history = numbers_only(), []
    study = Study(space, sampler, ["maximize"], seed=0, past=pasts(20, space))
    for _ in range(14):
        asked, found = study.ask()
        outcome = Outcome("completed", (-abs(float(np.log(found.training["lr"] / 0.5))),), None, {"degenerate": 0.0})
        study.tell(asked.number, outcome)
        history.append((asked, outcome))
    again = Study(space, sampler, ["maximize"], seed=0, past=pasts(20, space))
    for asked, outcome in history[:9]:
        again.rebuild(asked, outcome)
    for asked, outcome in history[9:]:
        assert again.ask()[0] == asked
        again.tell(asked.number, outcome)


def test_a_share_is_the_way_back_from_a_coordinate() -> None:
    for hole in (*numbers_only().holes().values(), load_spec(SPACE).cells()[0].space.holes()["training.lr"]):
        kind = hole.distribution()
        for share in (0.01, 0.3, 0.77, 0.99):
            value = coordinate(kind, share)
            assert coordinate(kind, share_of(kind, value)) == pytest.approx(value)


def test_cmaes_starts_at_the_given_point() -> None:
    holes = numbers_of({path: hole.distribution() for path, hole in numbers_only().holes().items()})
    start = {"training.lr": 0.5, "training.momentum": 0.85}
    points = EvolvingPoints(holes, 0, start)
    assert points._cma.mean == pytest.approx([np.log(500) / np.log(1000), 0.85 / 0.9])


@pytest.mark.parametrize("where", ["training", "defense"])
def test_what_stands_beside_a_defense_is_found_again(where: str, tmp_path: Path) -> None:
    def searching(name: str, *runs: Path) -> dict[str, Any]:
        made = one_cell(name, *runs, sampler="tpe" if runs else "random", trials=2)
        beside = {"adversarial": {"name": "pgd", "steps": {"choice": [1, 2]}}, "base": {"training": {"epochs": 1}}}
        block = made["training"] if where == "training" else made["matrix"]["defense"][0]
        block |= beside | ({"input": [{"name": "quantise", "bits": {"int": [5, 7]}}]} if where == "training" else {})
        return made

    pilot = Inline(tmp_path / "pilot", searching("pilot")).run()
    again = Inline(tmp_path / "again", searching("again", tmp_path / "pilot"))
    taken = begun(again)
    assert len(taken) == len(pilot.sweep.records) == 2
    known = [record.plan.params for record in pilot.sweep.records.values()]
    path = f"{where}.adversarial.steps"
    (study,) = again.sweep.studies.values()
    hole = study.space.holes()[path]
    assert [hole.value(params[path]) for _, params, _, _ in taken] == [params[path] for params in known]
