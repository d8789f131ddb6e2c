"""Claims about models that overflow or do not fit into memory, from training to the row of the trial."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from inline import SYNTHETIC, Inline
from torch import Tensor, nn

from defenses.networks import Mlp
from orchestrator.storage.store import Store


class Linear(nn.Module):
    """With room for `most` images, and outputs times `factor` when it is judged."""

    most: int = 10**9
    factor: float = 1.0

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        logits: Tensor = self.linear(x.flatten(1))
        return logits if self.training else logits * self.factor


@pytest.fixture(autouse=True)
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mlp, "__call__", lambda self, channels, size, classes: Linear(channels, size, classes))


def trials(root: Path) -> pd.DataFrame:
    spec: dict[str, Any] = {**copy.deepcopy(SYNTHETIC), "defense": {"name": "pgd_at", "steps": 2}}
    del spec["matrix"]
    spec["search"]["trials"] = 1
    return Inline(root / "tiny", spec).run().store.read("trials")


def test_a_model_with_room_for_few_images_is_trained_and_attacked_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 32 and evaluations of up to 36 images, at most 6 at a time."""
    whole = trials(tmp_path / "whole").set_index("trial_id")
    monkeypatch.setattr(Linear, "most", 6)
    parts = trials(tmp_path / "parts").set_index("trial_id")
    assert set(parts["status"]) == {"completed"}
    assert set(parts.index) == set(whole.index)
    for figure in ("clean_accuracy", "robust_accuracy", "robust_area"):
        assert parts[figure].to_dict() == pytest.approx(whole[figure].to_dict(), abs=0.06)  # two images of 36
    said = Store.at(tmp_path / "parts" / "tiny").read("events").query("kind == 'out of memory'")
    assert set(said["trial_id"]) == set(parts.index)
    assert all(json.loads(text)["microbatches"] == 8 for text in said["evidence"])  # 32 in eights of 4
    assert "out of memory" not in set(Store.at(tmp_path / "whole" / "tiny").read("events")["kind"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("factor", math.nan, "ValueError: the model's logits are not finite for 24 of 24 images"),
        (
            "most",
            0,
            "in 32 parts of at most 1, which cannot be smaller: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
    ],
)
def test_what_cannot_be_trained_or_judged_is_a_failed_trial_that_says_why(
    name: str, value: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Linear, name, value)
    (row,) = trials(tmp_path).to_dict("records")
    assert row["status"] == "failed"
    assert row["error"].strip().splitlines()[-1].endswith(said)
    assert pd.isna(row["clean_accuracy"])
