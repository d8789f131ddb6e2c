"""Claims about a sweep taken up again: numbers without gaps, finalists that were overtaken, figures as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inline import SYNTHETIC, Inline

from orchestrator.analysis import load
from orchestrator.records import is_lacking, read_records, suggestions
from orchestrator.storage import checkpoints

SEARCH = {"trials": 4, "sampler": "random", "objectives": {"robust_area": "max"}}


def two_cells_that_share(seed: int) -> dict[str, Any]:
    """Two finite spaces, one within the other, in which random search soon repeats itself."""
    steps = [{"choice": [1, 2]}, {"choice": [1, 2, 3]}]
    return SYNTHETIC | {
        "seed": seed,
        "matrix": {"defense": [{"name": "pgd_at", "steps": each} for each in steps]},
        "training": {"epochs": 1, "batch_size": 32, "lr": {"choice": [0.01, 0.05]}},
        "search": SEARCH,
        "evaluation": {**SYNTHETIC["evaluation"], "test": {"finalists": 0}},
    }


def one_cell(**changes: Any) -> dict[str, Any]:
    return SYNTHETIC | {"matrix": {"defense": [{"name": "standard"}]}} | changes


def asks(run: Inline) -> dict[str, int]:
    return {name: study.asks for name, study in run.sweep.studies.items()}


def numbers(run: Inline) -> dict[str, list[int]]:
    """The numbers under which each configuration was suggested, by its first trial."""
    configured = run.sweep.configured
    return {each.first.plan.trial_id: each.numbers for name in run.sweep.cells for each in configured.in_cell(name)}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_driver_killed_at_any_ask_leaves_numbers_without_gaps(tmp_path: Path, seed: int) -> None:
    """What waits in the ledger dies with it: nothing is flushed here but what must be."""
    run = Inline(tmp_path / "tiny", two_cells_that_share(seed))
    run.sweep.ledger.interval = 1e9
    while run.sweep.next_trial():
        pass
    assert any(len(found) > 1 for found in numbers(run).values())  # there were repeats
    again = Inline(tmp_path / "tiny", two_cells_that_share(seed))
    records, repeats = read_records(again.store)
    assert not is_lacking(suggestions(records, repeats))
    assert asks(again) == asks(run)


def test_a_lost_repeat_of_a_twin_is_asked_for_again_in_its_own_cell(tmp_path: Path) -> None:
    """As a damaged part of `events` that was set aside leaves it."""
    found = 0
    for seed in range(1, 9):
        run = Inline(tmp_path / f"{seed}" / "tiny", two_cells_that_share(seed))
        while run.sweep.next_trial():
            pass
        repeated = [key for key, found in numbers(run).items() if len(found) > 1]
        found += sum(run.sweep.records[key].plan.is_twin for key in repeated)
        for name in run.store.names("events"):
            (run.root / "events" / f"{name}.parquet").unlink()
        again = Inline(run.root, two_cells_that_share(seed))
        before, after = (
            {key: set(found[:-1] if key in repeated else found) for key, found in numbers(each).items()}
            for each in (run, again)
        )
        assert before.keys() == after.keys()
        assert all(run.sweep.records[key].plan == again.sweep.records[key].plan for key in before)
        records, repeats = read_records(again.store)
        assert not is_lacking(suggestions(records, repeats))
    assert found  # of the case that the test is about


def test_rungs_are_rebuilt_with_the_figures_they_were_compared_by(tmp_path: Path) -> None:
    search = {"trials": 5, "objectives": {"robust_area": "max", "seconds": "min"}}
    spec = one_cell(search=search, evaluation={**SYNTHETIC["evaluation"], "test": {"finalists": 0}})
    run = Inline(tmp_path / "tiny", spec).run()
    again = Inline(tmp_path / "tiny", spec)
    assert len(run.sweep.halving.rungs) > 1
    for place, rung in run.sweep.halving.rungs.items():
        rebuilt = again.sweep.halving.rungs[place].figures
        assert rebuilt.keys() == rung.figures.keys()
        for trial_id, values in rung.figures.items():
            assert rebuilt[trial_id] == pytest.approx(values)


def test_finalists_that_were_only_thought_of_are_not_on_record(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", one_cell())
    run.run(steps=0)
    while (plan := run.sweep.next_trial()) is not None:
        run.left = 10**9
        run._train(plan)
    assert len(run.sweep.finalists()) == 2
    run.sweep.ledger.flush()
    assert set(run.store.read("asks")["number"]) == {0, 1, 2, 3}


def test_a_finalist_that_was_begun_is_finished_though_others_overtake_it(tmp_path: Path) -> None:
    """Of four seeds some are overtaken when the search is extended."""
    overtaken = 0
    for seed in range(4):
        short = one_cell(seed=seed, search={"trials": 1, "sampler": "random", "objectives": {"robust_area": "max"}})
        run = Inline(tmp_path / f"{seed}" / "tiny", short)
        plan = run.sweep.next_trial()
        assert plan is not None
        run.left = 10**9
        run._train(plan)
        begun = run.sweep.finalists()[0]
        run.sweep.begin_finalist(begun)
        run.sweep.ledger.flush()
        longer = short | {"search": {**short["search"], "trials": 4}}
        again = Inline(run.root, longer).run()
        trials = again.store.read("trials").set_index("trial_id")
        assert trials.loc[begun.trial_id, "status"] == "completed"
        assert set(again.store.read("asks")["trial_id"]) == set(trials.index)
        finalists = trials.query("stage == 'finalist'")
        overtaken += finalists["config_id"].nunique() > 1
        assert load(run.root).status()["running"].sum() == 0
    assert overtaken


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_trained_trial_that_lost_its_checkpoint_is_trained_again(tmp_path: Path, harm: str) -> None:
    spec = one_cell(
        search={"trials": 2, "sampler": "random", "objectives": {"robust_area": "max"}}, scheduler={"name": "none"}
    )
    undisturbed = Inline(tmp_path / "whole" / "tiny", spec).run().store.read("trials").set_index("trial_id")
    run = Inline(tmp_path / "harmed" / "tiny", spec)
    run._evaluate = lambda assignment: None  # type: ignore[method-assign] # the driver dies before it is evaluated
    plan = run.sweep.next_trial()
    assert plan is not None
    run.left = 10**9
    run._train(plan)
    run.sweep.ledger.flush()
    ended = run.sweep.records[plan.trial_id].ended
    assert ended is not None
    path = run.root / checkpoints.DIRECTORY / ended["checkpoint"]
    if harm == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    found = Inline(run.root, spec).run().store.read("trials").set_index("trial_id").loc[undisturbed.index]
    assert set(found["status"]) == {"completed"}
    for column in ("robust_accuracy", "clean_accuracy", "robust_area", "epochs"):
        assert found[column].tolist() == undisturbed[column].tolist()
    assert not run.store.read("epochs").duplicated(["trial_id", "epoch"]).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_suggestions_of_cells_that_share_configurations_are_asked_for_again_in_their_order(
    tmp_path: Path, seed: int
) -> None:
    """Every ask of the first dozen numbers is lost, as with a packed part that was damaged and set aside."""
    run = Inline(tmp_path / "tiny", two_cells_that_share(seed) | {"search": {**SEARCH, "trials": 6}})
    while run.sweep.next_trial():
        pass
    run.sweep.ledger.flush()
    before = read_records(run.store)
    for name in run.store.names("asks")[:5]:
        (run.root / "asks" / f"{name}.parquet").unlink()
    again = Inline(run.root, two_cells_that_share(seed) | {"search": {**SEARCH, "trials": 6}})
    after = read_records(again.store)
    assert {key: record.plan for key, record in after[0].items()} == {
        key: record.plan for key, record in before[0].items()
    }
    assert sorted((each.trial_id, each.asked.number) for each in after[1]) == sorted(
        (each.trial_id, each.asked.number) for each in before[1]
    )
    assert asks(again) == asks(run)
