"""Claims about what is timed before a sweep, and what that says of its hours."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
import torch
from inline import SYNTHETIC
from torch import Tensor, nn

from attacks import ATTACKS, Threat
from defenses import DEFENSES
from orchestrator.build import normalised
from orchestrator.cascade import Stage, stages
from orchestrator.cli import main
from orchestrator.cluster.allocation import Allocation, Bundle
from orchestrator.errors import UserError
from orchestrator.fates import Estimate
from orchestrator.forecast import ATTACKED, forecast
from orchestrator.outlook import Outlook, outlook
from orchestrator.probe import Case, CellProbe, probe
from orchestrator.spec import load_spec
from orchestrator.timing import Clock, attack_seconds

LINF = Threat("linf", 0.1)
CPU = Bundle(1.0, 0.0)


def planned(**changes: Any) -> Outlook:
    return outlook(load_spec({**SYNTHETIC, "name": "s", **changes}))


def probes(found: Outlook, epoch: float = 10.0, attack: float = 0.01, scoring: float = 0.0) -> list[CellProbe]:
    """As if one configuration of each cell had been timed."""
    examples = {"rung": 24, "final": 36, "test": 30} | dict.fromkeys(found.spec.evaluation.named, 20)
    attacks = {name: [attack] * len(found.evaluation(name).attacks) for name in examples}
    case = Case("mlp", "standard", 100, 1.0, epoch, 1.0, attacks, scoring)
    return [CellProbe(cell.cell.name, 940, examples, 0.0, [case]) for cell in found.cells]


def allocation(slots: int, evaluators: int) -> Allocation:
    return Allocation(CPU, CPU, slots, evaluators)


def test_evaluations_beside_are_the_evaluators_work_after_the_tests() -> None:
    named = {"paper": {"examples": 20, "attacks": ["fgsm"]}, "cheap": {"of": "search", "attacks": ["fgsm"]}}
    found = planned(evaluation={**SYNTHETIC["evaluation"], **named})
    *_, again, test, beside, whole = forecast(found, probes(found, epoch=0.0), allocation(1, 1), is_on_gpu=False)
    assert beside.name == "beside: paper, cheap"
    assert again.wall
    assert test.wall
    assert beside.wall
    assert whole.wall
    assert beside.wall.mean > 0
    assert whole.wall.mean >= test.wall.mean + beside.wall.mean
    assert whole.work.mean >= test.work.mean + beside.work.mean


def test_hours_are_counts_times_seconds_over_workers() -> None:
    """No trial is stopped: 2 cells x 4 trials x 3 epochs of 10 s, one rung of 24 images at 3 eps under one attack."""
    found = planned(scheduler={"name": "none"})
    search, final, again, test, _ = forecast(found, probes(found), allocation(2, 1), is_on_gpu=False)
    rung, judged, tested = (n * 3 * attacks * 0.01 * ATTACKED.mean for n, attacks in ((24, 1), (36, 2), (30, 1)))
    assert search.work.mean * 3600 == pytest.approx(8 * (3 * 10 + rung))
    assert search.wall is not None
    assert search.wall.mean == pytest.approx(search.work.mean / 2)
    assert final.work.mean * 3600 == pytest.approx(8 * judged)
    assert again.work.mean * 3600 == pytest.approx(2 * 2 * (3 * 10 + rung))
    assert test.work.mean * 3600 == pytest.approx(2 * 2 * tested)


def test_evaluations_go_on_beside_training() -> None:
    found = planned()
    stages = forecast(found, probes(found), allocation(1, 1), is_on_gpu=False)
    walls = [stage.wall.mean for stage in stages if stage.wall]
    assert walls[-1] == pytest.approx(max(walls[0], walls[1]) + max(walls[2], walls[3]))
    assert stages[-1].work.mean == pytest.approx(sum(stage.work.mean for stage in stages[:-1]))


def test_workers_that_share_a_gpu_may_gain_nothing_from_it() -> None:
    found, quarter = planned(), Bundle(1.0, 0.25)
    here = Allocation(quarter, quarter, 4, 4)
    search = forecast(found, probes(found), here, is_on_gpu=True)[0]
    assert search.wall is not None
    assert search.wall.mean == pytest.approx(search.work.mean / 4)
    assert search.wall.high == pytest.approx(search.work.high)


def test_where_nothing_fits_there_is_work_and_no_wall() -> None:
    found = planned()
    assert [stage.wall for stage in forecast(found, probes(found), None, is_on_gpu=False)] == [None] * 5


def test_the_range_goes_from_the_smallest_to_the_largest_network() -> None:
    found = planned(scheduler={"name": "none"})
    timed = probes(found, attack=0.0)
    ends, attacks = ((1, 2.0), (9, 6.0)), timed[0].cases[0].attacks
    small, large = (Case("mlp", "standard", count, 0.5, epoch, 1.0, attacks, 0.0) for count, epoch in ends)
    both = [CellProbe(cell.cell, cell.train, cell.examples, 0.0, [small, large]) for cell in timed]
    work = forecast(found, both, allocation(1, 1), is_on_gpu=False)[0].work
    assert [work.low * 3600, work.mean * 3600, work.high * 3600] == pytest.approx([24 * 2, 24 * 4, 24 * 6])


class Slow(nn.Module):
    """A model whose every call takes `seconds`; what it has been asked is counted."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))
        self.seconds, self.calls = seconds, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        ends = time.perf_counter() + self.seconds
        while time.perf_counter() < ends:
            pass
        return x.flatten(1).sum(1, keepdim=True) * self.weight * 1e-3 + torch.eye(10)[0]


def stage_of(attack: dict[str, Any]) -> tuple[Stage, dict[str, Any]]:
    block = normalised(ATTACKS, attack)
    return stages(block)[0], block


def test_an_attack_that_takes_too_long_is_cut_off_and_told_by_its_passes() -> None:
    """600 calls of 5 ms on 4 images are 0.75 s an image; 0.1 s are spent on it."""
    model, some = Slow(0.005), (torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))
    stage, block = stage_of({"name": "pgd", "steps": 599})
    found = attack_seconds(stage, block, model, some, LINF, Clock("cpu"), 0.1)
    assert model.calls < 100
    assert found > 600 * 0.005 / 4
    assert not model._forward_pre_hooks


def test_a_short_attack_is_timed_whole() -> None:
    model, some = Slow(0.001), (torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    stage, block = stage_of({"name": "pgd", "steps": 3, "restarts": 2})
    assert attack_seconds(stage, block, model, some, LINF, Clock("cpu"), 60.0) > 8 * 0.001 / 2
    assert model.calls == 8


@pytest.mark.parametrize("name", sorted(DEFENSES))
def test_every_defense_can_be_timed(name: str) -> None:
    found = planned(matrix={"defense": [{"name": name}]}, dataset={"name": "synthetic"})
    before = torch.get_num_threads(), torch.random.get_rng_state()
    (cell,) = probe(found, 0.2)
    (case,) = cell.cases
    assert case.epoch > 0
    assert case.images_per_second == pytest.approx(cell.train / case.epoch)
    assert all(cost > 0 for costs in case.attacks.values() for cost in costs)
    assert not cell.remark
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_the_smallest_and_the_largest_network_are_timed() -> None:
    network = {"choice": [{"name": "mlp", "widths": [8]}, {"name": "mlp", "widths": [{"int": [60, 64]}]}, "lenet"]}
    found = planned(network=network, matrix={"defense": ["standard"]}, dataset={"name": "synthetic", "size": 8})
    (cell,) = probe(found, 0.2)
    assert cell.cases[0].parameters is not None
    assert [case.parameters for case in cell.cases] == list(found.cells[0].parameters or ())
    assert sum(case.share for case in cell.cases) == pytest.approx(1)


def test_without_data_images_of_their_shape_are_timed_and_that_is_said() -> None:
    found = planned(dataset={"name": "mnist", "root": "/nowhere", "train": 300}, matrix={"defense": ["standard"]})
    (cell,) = probe(found, 0.2)
    assert cell.train == 300
    assert cell.remark.startswith("timed on generated images: dataset.root: /nowhere/MNIST/raw/")


def test_without_data_of_a_known_shape_nothing_is_timed() -> None:
    found = planned(dataset={"name": "image_folder", "root": "/nowhere"})
    with pytest.raises(UserError, match=r"--probe: .*/nowhere"):
        probe(found, 0.2)


def test_what_cannot_be_trained_is_named() -> None:
    defense = {"name": "learn2perturb", "sigma": {"nowhere": 0.1, "rest": 0.2}}
    found = planned(matrix={"defense": [defense]})
    with pytest.raises(
        UserError, match=r"--probe: defense=learn2perturb: learn2perturb on .* got nowhere where there are"
    ):
        probe(found, 0.2)


def test_the_command_prints_costs_and_hours_and_has_them_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    path = tmp_path / "s.json"  # JSON is YAML
    path.write_text(json.dumps({**SYNTHETIC, "name": "s"}))

    def call(*more: str) -> str:
        call = ["robustsweep", "check", str(path), "--probe", "--probe-seconds", "0.2", *more]
        monkeypatch.setattr(sys, "argv", call)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    said = call()
    assert "s: the spec is right." in said
    assert "finalists: training" in said
    plan = json.loads(call("--json"))
    assert [stage["name"] for stage in plan["forecast"]][-1] == "all"
    assert {cell["cell"] for cell in plan["probe"]} == {cell["name"] for cell in plan["cells"]}


def test_an_estimate_is_multiplied_end_by_end() -> None:
    assert Estimate(2, 1, 3).times(2) == Estimate(4, 2, 6)
