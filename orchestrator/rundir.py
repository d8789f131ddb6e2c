"""The run directory of a sweep: made, or found again and held against the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.lasting import lasting_base
from orchestrator.provenance import code_version, gather
from orchestrator.spec import Spec, difference, load_spec
from orchestrator.store import Store

SPEC = "spec.yaml"
PROVENANCE = "provenance.json"


def run_root(spec: Spec, store: str | Path | None) -> Path:
    """The absolute run directory, `<store>/<sweep name>`; `store` overrides the spec's."""
    place = str(store if store is not None else spec.store)
    if "://" in place:
        raise UserError(f"store: must be a path, got {place!r}: object stores are not there yet")
    return (lasting_base() / Path(place).expanduser() / spec.name).absolute()


def open_run(spec: Spec, root: Path) -> Store:
    """The store of a sweep, ready to be written.

    Raises UserError where a sweep of this name with another space is on record there.
    """
    if (root / SPEC).exists():
        changed = difference(_fixed(load_spec(root / SPEC)), _fixed(spec))
        if changed:
            raise UserError(
                f"{root}: a sweep named {spec.name} with another space is on record here; give the new one another "
                "name, or another --store. What changed:\n" + "\n".join(f"  {line}" for line in changed)
            )
    store = Store(root, spec.param_columns())
    store.prepare()
    text = spec.to_yaml()
    is_same = (root / SPEC).exists() and (root / SPEC).read_text() == text
    if not is_same or not _is_current(root / PROVENANCE):
        store.write_json(PROVENANCE, gather(text))
        store.write_text(SPEC, text)
    return store


def _fixed(spec: Spec) -> dict[str, Any]:
    """What may not change under one name: the space, and what the figures of different trials are measured by."""
    measured = spec.evaluation.model_dump()
    for key in ("finalists", "seeds"):
        del measured["test"][key]
    return {**spec.search_space_key(), "evaluation": measured}


def _is_current(path: Path) -> bool:
    """Whether a provenance on record is of the code at hand."""
    try:
        return bool(json.loads(path.read_text())["code_version"] == code_version())
    except (OSError, ValueError, KeyError):
        return False


def provenance(store: Store) -> dict[str, str]:
    """What each row of `trials` says of the code and the spec."""
    found = json.loads((store.root / PROVENANCE).read_text())
    return {"code_version": found["code_version"], "spec_hash": found["spec_hash"]}
