"""A spec whose attacks are not made for the norm of a threat is refused before anything is trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from inline import SYNTHETIC

from orchestrator.errors import SpecError
from orchestrator.spec import load_spec


def spec(*norms: str, attacks: list[Any]) -> dict[str, Any]:
    """One cell for each norm."""
    found = copy.deepcopy(SYNTHETIC)
    found["matrix"]["threat"] = [{"norm": norm, "eps": 0.05} for norm in norms]
    del found["threat"]
    found["evaluation"]["final"]["attacks"] = attacks
    return found


def test_every_cell_has_to_be_one_that_the_attack_is_for() -> None:
    eot = {"name": "eot", "attack": {"name": "deepfool", "steps": 3}}
    with pytest.raises(SpecError) as refused:
        load_spec(spec("linf", "l1", attacks=["pgd", {"name": "ddn"}, eot, "fmn"]))
    assert [line.partition("evaluation.")[2] for line in str(refused.value).splitlines()] == [
        "final.attacks[1]: ddn is for threats in l2, got one in linf",
        "final.attacks[1]: ddn is for threats in l2, got one in l1",
        "final.attacks[2]: eot is for threats in linf or l2, got one in l1",
    ]


def test_in_a_norm_that_it_is_for_it_is_taken() -> None:
    loaded = load_spec(spec("l2", attacks=["carlini_wagner", "ddn", "deepfool", "fmn", "mim"]))
    assert [block["name"] for block in loaded.evaluation.final.attacks][:2] == ["carlini_wagner", "ddn"]
