"""Claims about measuring a model in a file: its weights find their network, or the message says which do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from attacks import Threat
from defenses.networks import NETWORKS
from orchestrator import evaluate_checkpoint, evaluate_robustness
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.splits import load_test

NETWORK = {"name": "mlp", "widths": [8]}
DATASET = {"name": "digits", "test": 60}
THREAT = Threat("linf", 0.1)
WORDS = ("--network", "{name: mlp, widths: [8]}", "--dataset", "{name: digits, test: 60}", "--threat", "linf:1/10")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return NETWORKS["mlp"](widths=(8,))(1, 8, 10)


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    return path


def under(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in network().state_dict().items()}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["robustsweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "tensors",
    [
        network().state_dict(),
        under("module"),
        under("model") | {"optimizer.model.0.momentum_buffer": torch.ones(3)},
        {name: tensor + 1 for name, tensor in under("model").items()} | under("ema"),
    ],
    ids=["plain", "in parallel", "of a trial", "averaged"],
)
def test_every_way_to_name_the_weights_gives_the_same_figures(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    found = evaluate_checkpoint(saved(tmp_path / "m.safetensors", tensors), NETWORK, DATASET, THREAT, "fgsm")
    data = load_test(DATASET, 0)
    images = torch.from_numpy(data.images.copy()).float() / 255
    labels, ids = torch.from_numpy(data.labels.copy()), torch.from_numpy(data.example_ids.copy())
    same = evaluate_robustness(network(), images, labels, threat=THREAT, attacks="fgsm", example_ids=ids)
    assert found.robust_accuracy == same.robust_accuracy
    assert found.per_example.equals(same.per_example)


def _without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in network().state_dict().items() if key != name}


FIRST = next(name for name in network().state_dict() if name.endswith("weight"))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (_without(FIRST), f"missing: {FIRST}$"),
        (network().state_dict() | {"head.bias": torch.ones(1)}, "unexpected: head.bias$"),
        (network().state_dict() | {FIRST: torch.ones(2, 3)}, rf"of another shape: {FIRST} \[2, 3\] for \[8, 64\]$"),
        (under("model") | {"noise.0.sigma": torch.ones(1)}, "holds noise beside the network"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate_checkpoint(saved(tmp_path / "m.safetensors", tensors), NETWORK, DATASET, THREAT, "fgsm")


def test_the_command_prints_each_attack_and_the_same_figures_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "m.safetensors", network().state_dict())
    attacks = ("--attack", "fgsm", "--attack", "{name: pgd, steps: 2}", "--eps", "0.05")
    assert call(monkeypatch, "evaluate", path, *WORDS, *attacks) == 0
    shown = capsys.readouterr().out
    for words in ("clean", "robust", "fgsm", "pgd", "0.05", "severe doubt, degenerate"):
        assert words in shown
    assert call(monkeypatch, "evaluate", path, *WORDS, *attacks, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["n"] == 60
    assert figures["ci_low"] <= figures["robust_accuracy"] <= figures["ci_high"]
    assert [row["attack"] for row in figures["per_attack"]] == ["fgsm", "pgd"] * 2
    assert [point["eps"] for point in figures["curve"]] == [0.05, 0.1]
    assert figures["doubts"][0]["kind"] == "degenerate"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--network": "mpl"}, "--network: must be one of"),
        ({"--network": "{name: mlp, widths: [{int: [4, 8]}]}"}, "--network: must be one network"),
        ({"--dataset": "digit"}, "--dataset: must be one of"),
        ({"--dataset": "{name: digits, tset: 3}"}, "--dataset.tset: unknown key"),
        ({"--threat": "linf"}, "--threat: must be NORM:EPS"),
        ({"--threat": "l3:0.1"}, "--threat: the norm must be one of"),
        ({"--threat": "linf:8"}, "did you mean 8/255"),
        ({"--name": "x"}, "--name: a model in a file"),
        ({"--attack": "pdg"}, "--attack 'pdg': must be one of"),
    ],
)
def test_a_wrong_call_is_one_message_and_code_2(
    tmp_path: Path,
    changed: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(tmp_path / "m.safetensors", network().state_dict())
    words = dict(zip(WORDS[::2], WORDS[1::2], strict=True)) | {"--attack": "fgsm"} | changed
    assert call(monkeypatch, "evaluate", path, *(word for pair in words.items() for word in pair)) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"hello")
    for path, said in ((tmp_path / "m.safetensors", "must be a file of safetensors"), (tmp_path / "n", "cannot read")):
        with pytest.raises(UserError, match=f"MODEL: .*{said}"):
            evaluate_checkpoint(path, NETWORK, DATASET, THREAT, "fgsm")
