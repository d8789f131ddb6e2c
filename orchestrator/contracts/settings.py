"""What every class promises, of whatever kind: its fields are settings that a spec can give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orchestrator.build import block_of, make, settings
from orchestrator.contracts.claim import must


def is_a_frozen_dataclass_under_its_own_name(instance: Any, name: str) -> None:
    must(dataclasses.is_dataclass(instance), "it is no dataclass")
    must(instance.name == name, f"its name is {instance.name!r}, and it is known as {name!r}")
    must("name" not in {field.name for field in dataclasses.fields(instance)}, "it has a field called name")
    try:
        instance.name = "other"
    except dataclasses.FrozenInstanceError:
        return
    must(False, "its attributes can be set: write @dataclass(frozen=True)")


def can_be_written_in_a_spec(instance: Any, table: Mapping[str, type]) -> None:
    """Made again from the block that says it, it is the same."""
    block = block_of(instance)
    kind: Any = type(instance)
    for field in dataclasses.fields(instance):
        if field.init and field.name not in settings(kind):
            must(False, f"{field.name}: a spec has no value of type {field.type}")
    again = make(table, block)
    must(again == instance, f"made again from {block} it is {again}, and was {instance}")
