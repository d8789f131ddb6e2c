"""Claims about blocks: what they stand for, and what is said of those that stand for nothing."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from small_tables import ATTACKS, DEFENSES, NETWORKS, Mlp, Noisy, Pgd, Resnet, Training

from orchestrator.build import block_of, make, normalised, settings
from orchestrator.coercion import coerce, number
from orchestrator.errors import SpecError, UserError


def test_a_block_makes_its_dataclass() -> None:
    assert make(NETWORKS, {"name": "resnet", "depth": 8}) == Resnet(depth=8)
    assert make(NETWORKS, "resnet") == Resnet()
    assert make(Training, {"lr": 1}) == Training(lr=1.0)


def test_lists_reach_a_dataclass_as_tuples_and_leave_it_as_lists() -> None:
    made = make(NETWORKS, {"name": "mlp", "hidden": [8, 4.0]})
    assert made == Mlp(hidden=(8, 4))
    assert hash(made) == hash(Mlp(hidden=(8, 4)))
    assert block_of(made) == {"name": "mlp", "hidden": [8, 4], "dropout": 0.0}


@pytest.mark.parametrize(
    "block",
    [
        {"name": "noisy", "scale": 1, "attack": "pgd"},
        {"scale": 1.0, "attack": {"steps": 10.0, "name": "pgd"}, "name": "noisy"},
        {"name": "noisy", "scale": "2/2", "attack": {"name": "pgd"}, "is_shared": False, "start": None},
        {"name": "noisy", "scale": 1e0, "attack": {"name": "pgd"}, "sites": ("stem", "head"), "per_layer": {}},
    ],
)
def test_equal_settings_are_equal_blocks_whatever_way_they_are_written(block: dict[str, Any]) -> None:
    assert repr(normalised(DEFENSES, block)) == repr(
        normalised(DEFENSES, {"name": "noisy", "scale": 1.0, "attack": "pgd"})
    )


def test_normalising_is_idempotent_and_the_way_back_of_make() -> None:
    block = normalised(DEFENSES, {"name": "noisy", "scale": "8/255", "per_layer": {"stem": 1}, "attack": "pgd"})
    assert normalised(DEFENSES, block) == block
    assert block_of(make(DEFENSES, block)) == block
    assert make(DEFENSES, block) == Noisy(8 / 255, per_layer={"stem": 1.0}, attack=Pgd())


def test_a_field_that_no_spec_can_give_is_no_key() -> None:
    assert "threat" not in settings(Training)
    with pytest.raises(SpecError, match="threat: unknown key; the keys are epochs, lr"):
        make(Training, {"threat": None})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"name": "resnt"}, "a:3 network.name: must be one of lenet, resnet, mlp, got 'resnt'; did you mean 'resnet'?"),
        ("ResNet", "a:3 network: must be one of lenet, resnet, mlp, got 'ResNet'; did you mean 'resnet'?"),
        ({"depth": 8}, "a:3 network.name: is required: one of lenet, resnet, mlp"),
        ({"name": 3}, "a:3 network.name: must be one of lenet, resnet, mlp, got 3"),
        ([1], "a:3 network: must be a mapping with a name, got [1]"),
        (
            {"name": "resnet", "dept": 8},
            "a:3 network.dept: unknown key; the keys are depth, width; did you mean 'depth'?",
        ),
        ({"name": "lenet", "depth": 8}, "a:3 network.depth: unknown key; there are no keys here"),
        ({"name": "resnet", "depth": 8.5}, "a:3 network.depth: must be a whole number, got 8.5"),
        ({"name": "resnet", "depth": True}, "a:3 network.depth: must be a whole number, got true"),
        ({"name": "resnet", "depth": "8/3"}, "a:3 network.depth: must be a whole number, got '8/3'"),
        ({"name": "resnet", "depth": 9}, "a:3 network.depth: must be 6n + 2, got 9"),
        ({"name": "mlp", "hidden": 8}, "a:3 network.hidden: must be a list, got 8"),
        ({"name": "mlp", "hidden": [8, "x"]}, "a:3 network.hidden: item 1: must be a whole number, got 'x'"),
        ({"name": "mlp", "dropout": float("nan")}, "a:3 network.dropout: must be a finite number, got NaN"),
    ],
)
def test_a_wrong_block_is_named_with_what_is_allowed(block: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        make(NETWORKS, block, "a:3 network")
    assert str(raised.value) == message


def test_a_wrong_block_inside_a_block_is_named_with_its_path() -> None:
    with pytest.raises(SpecError, match=r"^defense\.attack\.steps: must be >= 1, got 0$"):
        make(DEFENSES, {"name": "noisy", "attack": {"name": "pgd", "steps": 0}}, "defense")
    with pytest.raises(
        SpecError, match=r"^attack\.loss: must be one of cross_entropy, margin, got 'margn'; did you mean"
    ):
        make(DEFENSES, {"name": "noisy", "attack": {"name": "pgd", "loss": "margn"}})


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        make(NETWORKS, {"name": "resnet", "depth": "deep", "width": None, "size": 1})
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == ["size", "depth", "width"]


def test_what_a_class_refuses_as_a_whole_is_said_of_the_block() -> None:
    with pytest.raises(SpecError, match=r"^defense: the start, 2\.0, is above the scale, 1\.0$"):
        make(DEFENSES, {"name": "noisy", "scale": 1, "start": 2}, "defense")


def test_a_spec_error_is_a_user_error_and_a_value_error() -> None:
    assert issubclass(SpecError, UserError)
    assert issubclass(SpecError, ValueError)


def test_a_required_setting_that_is_missing_is_asked_for() -> None:
    from small_tables import TABLES

    with pytest.raises(SpecError, match=r"^pattern: is required$"):
        make(TABLES.datasets, "files")


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" 1 / 2 ", 0.5), ("-1/4", -0.25), ("2.5/10", 0.25), (3, 3)]
)
def test_fractions_are_numbers(text: Any, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "value", ["8/0", "1/2/3", "a/b", "0.5", "", None, True, [1], float("inf"), float("nan"), 10**400]
)
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a"):
        number(value)


def test_minus_zero_is_zero() -> None:
    assert str(coerce(float, -0.0)) == "0.0"


def test_a_union_takes_a_value_as_the_member_of_its_own_type() -> None:
    assert coerce(int | float, 1) == 1
    assert type(coerce(float | int, 1)) is int
    assert coerce(float | None, None) is None
    assert coerce(float | Literal["auto"], "auto") == "auto"
    assert coerce(float | Literal["auto"], "1/4") == 0.25
    with pytest.raises(ValueError, match="must be a number or one of auto, got 'aut'"):
        coerce(float | Literal["auto"], "aut")


def test_the_presets_of_attacks_come_back_as_blocks() -> None:
    assert block_of(Pgd(40)) == {"name": "pgd", "steps": 40, "step_size": None, "loss": "cross_entropy"}
    assert make(ATTACKS, block_of(Pgd(40, 0.5, "margin"))) == Pgd(40, 0.5, "margin")
