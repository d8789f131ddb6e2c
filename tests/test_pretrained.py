"""Claims about models that exist already in a sweep: measured like the others, not trained, known by content."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from inline import SYNTHETIC, Inline
from rich.console import Console

from defenses.networks import NETWORKS
from orchestrator.analysis import load
from orchestrator.errors import UserError
from orchestrator.pretrained import digest_of, problems
from orchestrator.preview import preview
from orchestrator.spec import load_spec
from orchestrator.splits import load_training


@functools.cache
def model(seed: int = 0) -> torch.nn.Module:
    """A network that somebody trained elsewhere: 40 steps on all the images at once."""
    train, _ = load_training(load_spec(SYNTHETIC).cells()[0].dataset_block(), 0)
    x, y = torch.from_numpy(train.images.copy()).float() / 255, torch.from_numpy(train.labels.copy())
    torch.manual_seed(seed)
    found = NETWORKS["mlp"](widths=(16,))(1, 8, train.classes)
    optimizer = torch.optim.Adam(found.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(found(x), y).backward()
        optimizer.step()
    return found.eval().requires_grad_(False)


def save(path: Path, seed: int = 0) -> str:
    safetensors.torch.save_file(model(seed).state_dict(), path)
    return str(path)


def spec(path: str, **changes: Any) -> dict[str, Any]:
    return {
        **SYNTHETIC,
        "matrix": {"defense": [{"name": "standard"}, {"name": "pretrained", "path": path}]},
        "training": {"epochs": 1, "batch_size": 32, "lr": {"choice": [0.01, 0.1]}},
        "search": {"trials": 1, "sampler": "random", "objectives": {"robust_area": "max"}},
        **changes,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    folder = tmp_path_factory.mktemp("store")
    run = Inline(folder / "tiny", spec(save(folder / "there.safetensors"))).run()
    (folder / "there.safetensors").unlink()  # what workers need is in the run
    return run


def pretrained(run: Inline) -> pd.DataFrame:
    trials: pd.DataFrame = run.store.read("trials")
    return trials[trials["defense"] == "pretrained"].set_index("stage")


def test_it_is_measured_at_one_rung_by_final_and_by_test_with_one_seed_and_not_trained(finished: Inline) -> None:
    trials = pretrained(finished)
    assert sorted(trials.index) == ["finalist", "search"]
    assert set(trials["status"]) == {"completed"}
    assert set(trials["epochs"]) == {0}
    assert set(trials["checkpoint_epoch"]) == {0}
    assert trials["rung_robust_accuracy"].notna().all()
    assert trials["param.training.lr"].isna().all()
    assert trials.loc["finalist", "evaluation"] == "test"
    assert trials.loc["search", "evaluation"] == "final"
    others = finished.store.read("trials").query("defense == 'standard' and stage == 'finalist'")
    assert len(others) == 2


def test_the_model_of_its_trial_is_the_one_of_the_file(finished: Inline) -> None:
    x = torch.rand(5, 1, 8, 8)
    found = load(finished.root).model(pretrained(finished).loc["finalist", "trial_id"])
    assert torch.equal(found(x), model()(x))
    assert found.surface


def test_settings_of_training_make_no_other_trial_of_it(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", spec(save(tmp_path / "m.safetensors"), search={"trials": 5, "sampler": "random"}))
    run.run()
    searched = run.store.read("trials").query("stage == 'search'")["defense"].value_counts()
    assert searched["pretrained"] == 1


def test_transforms_stand_in_front_of_it_and_nothing_else_of_training_concerns_it(tmp_path: Path) -> None:
    path, dim = save(tmp_path / "m.safetensors"), [{"name": "quantise", "bits": 1}]
    training = {"epochs": 1, "batch_size": 32, "input": dim, "adversarial": {"name": "fgsm"}, "base": {}}
    arms = [{"name": "pretrained", "path": path}, {"name": "pretrained", "path": path, "input": "none"}]
    run = Inline(tmp_path / "tiny", spec(path, matrix={"defense": arms}, training=training))
    with_it, without_it = run.sweep.next_trial(), run.sweep.next_trial()
    assert with_it
    assert without_it
    assert with_it.trial_id != without_it.trial_id
    assert "input" in with_it.defense
    assert not {"adversarial", "base"} & {*with_it.defense, *without_it.defense}
    run.left = 1
    run._train(with_it)
    run.sweep.ledger.flush()
    x = torch.rand(5, 1, 8, 8)
    assert torch.allclose(load(run.root).model(with_it.trial_id)(x), model()(x.round()))


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        ({"name": "pretrained", "adversarial": {"name": "fgsm"}}, "adversarial would change nothing"),
        ({"name": "pretrained", "base": {}}, "base would change nothing"),
        ({"name": "standard", "base": {"defense": {"name": "pretrained", "path": "m"}}}, "a base is trained"),
    ],
)
def test_what_would_do_nothing_is_refused(defense: dict[str, Any], message: str) -> None:
    arm = {**defense, "path": "m"} if defense["name"] == "pretrained" else defense
    with pytest.raises(UserError, match=f"matrix.defense.*{message}"):
        load_spec(spec("m", matrix={"defense": [arm]}))


def test_content_and_not_place_says_which_model_it_is(tmp_path: Path) -> None:
    ids = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / folder).mkdir()
        run = Inline(tmp_path / folder / "tiny", spec(save(tmp_path / folder / "m.safetensors", seed)))
        while (plan := run.sweep.next_trial()) is not None:
            ids += [plan.trial_id] if plan.is_pretrained else []
    assert ids[0] == ids[1] != ids[2]


def test_a_driver_that_died_goes_on_with_what_is_on_record(tmp_path: Path) -> None:
    whole = spec(save(tmp_path / "m.safetensors"))
    for steps in (1, 1, 1, 10):
        run = Inline(tmp_path / "tiny", whole).run(steps)
    trials = pretrained(run)
    assert sorted(trials.index) == ["finalist", "search"]
    keys = {table: run.store.keys(table) for table in ("attacks", "examples", "epochs", "trials")}
    again = Inline(tmp_path / "tiny", whole).run()
    assert again.trained_rungs == 0
    assert {table: again.store.keys(table) for table in keys} == keys


def test_a_checkpoint_that_is_lost_is_loaded_again(tmp_path: Path) -> None:
    whole = spec(save(tmp_path / "m.safetensors"))
    run = Inline(tmp_path / "tiny", whole).run()
    shutil.rmtree(run.root / "checkpoints" / pretrained(run).loc["search", "trial_id"])
    evaluation = {**SYNTHETIC["evaluation"], "final": {"examples": 36, "attacks": ["noise"]}}
    again = Inline(tmp_path / "tiny", {**whole, "evaluation": evaluation}).run()
    assert again.trained_rungs == 1
    assert pretrained(again).loc["search", "evaluation"] == "final.2"


def said(path: str, **block: Any) -> list[str]:
    found = load_spec(spec(path, matrix={"defense": [{"name": "pretrained", "path": path, **block}]}))
    train, _ = load_training(found.cells()[0].dataset_block(), 0)
    return list(problems(found.cells()[0], train))


def test_what_is_wrong_with_the_file_is_known_before_anything_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors")
    digest = digest_of(Path(path).read_bytes())
    assert said(path) == said(path, digest=digest) == []
    assert said(path, digest="0" * 16) == [f"defense.digest: {path} must have the content {'0' * 16}, got {digest}"]
    nowhere = str(tmp_path / "nowhere.safetensors")
    assert said(nowhere) == [f"defense.path: cannot read {nowhere}: No such file or directory"]
    (tmp_path / "text.safetensors").write_text("no tensors in here")
    assert "must be a file of safetensors" in said(str(tmp_path / "text.safetensors"))[0]
    weights = model().state_dict()
    first = next(iter(weights))
    safetensors.torch.save_file({name: value for name, value in weights.items() if name != first}, path)
    assert said(path) == [f"defense.path: {path} does not fit the network; missing: {first}"]


def test_a_missing_file_stops_a_sweep_that_needs_it(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", spec(str(tmp_path / "nowhere.safetensors")))
    with pytest.raises(UserError, match=r"defense.path: cannot read .*nowhere"):
        run.run()


def test_the_preview_says_that_it_has_no_fresh_seeds() -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(preview(load_spec(spec("m.safetensors"))))
    assert "defense=pretrained: a pretrained model has no fresh seeds" in shown.get()
    assert "1 finalist x 2 seeds each: 3 more" in shown.get()
