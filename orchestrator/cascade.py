"""Which attacks an evaluation runs, in order, each with the JSON and the id it has in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from attacks import ATTACKS, CASCADES, Surface
from orchestrator.build import block_of, make
from orchestrator.identity import attack_id

AttackCall = Callable[..., Tensor]  # (model, x, y, threat, draws) -> adversarial
AttackChoice = str | Mapping[str, Any] | AttackCall


@dataclass(frozen=True)
class Stage:
    """One attack of a cascade: `name` and `json` describe it, `id` is the hash of `json`."""

    attack: AttackCall
    name: str
    json: str
    id: str


def stages(
    attacks: AttackChoice | Sequence[AttackChoice], surface: Surface | None = None, classes: int | None = None
) -> list[Stage]:
    """The stages that `attacks` stands for: names of attacks or cascades, blocks of a spec, attack objects.

    Where `surface` names losses of its own, an attack of a cascade that has the usual loss is run with each of them
    that it knows (dlr: from three `classes` on); what is given by its own name or settings is run as it is written.

    Raises ValueError for an unknown name or setting, or where nothing is given.
    """
    choices = [attacks] if isinstance(attacks, str | Mapping) or callable(attacks) else list(attacks)
    losses = () if surface is None or surface.losses == Surface().losses else surface.losses
    losses = tuple(loss for loss in losses if loss != "dlr" or classes is None or classes > 2)
    found = [stage for choice in choices for stage in _expanded(choice, losses)]
    if not found:
        raise ValueError("attacks: needs at least one attack, got none")
    known: dict[str, AttackCall] = {}
    for stage in found:
        if known.setdefault(stage.id, stage.attack) != stage.attack:
            raise ValueError(
                f"attacks: two different ones are both {stage.json}: give them different names or settings"
            )
    return found


def cascade_of(name: str) -> list[dict[str, Any]]:
    """The blocks of the attacks that a cascade stands for, against a defense that names no losses of its own."""
    return [block_of(attack) for attack in CASCADES[name]]


def _expanded(choice: AttackChoice, losses: tuple[str, ...]) -> list[Stage]:
    block = {"name": choice} if isinstance(choice, str) else choice
    if not isinstance(block, Mapping):
        return [_stage(block)]
    if block.get("name") in CASCADES and len(block) == 1:
        attacks = [each for attack in CASCADES[block["name"]] for each in _with_losses(attack, losses)]
        return list({stage.id: stage for stage in map(_stage, attacks)}.values())
    return [_stage(make(ATTACKS, block))]


def _with_losses(attack: Any, losses: tuple[str, ...]) -> list[Any]:
    """The attack with each of the losses, where it has the usual one; else, and where there are none, as it is."""
    usual = next((field.default for field in fields(attack) if field.name == "loss"), None)
    if not losses or usual is None or attack.loss != usual:
        return [attack]
    found = []
    for loss in losses:
        with suppress(ValueError):  # one that this attack cannot climb
            found.append(replace(attack, loss=loss))
    return found or [attack]


def _stage(attack: AttackCall) -> Stage:
    kind = attack if hasattr(attack, "__qualname__") else type(attack)
    name = str(getattr(attack, "name", kind.__qualname__))
    text = json.dumps({"name": name, **_settings(attack)}, sort_keys=True, default=repr)
    return Stage(attack, name, text, attack_id(text))


def _settings(attack: Any) -> dict[str, Any]:
    """The fields of a dataclass; an attack within (eot) with its name, without which two of them would be one."""
    if not is_dataclass(attack) or isinstance(attack, type):
        return {}
    return {field.name: _setting(getattr(attack, field.name)) for field in fields(attack)}


def _setting(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return ({"name": value.name} if hasattr(value, "name") else {}) | _settings(value)
