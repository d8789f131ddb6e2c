"""The run directory of a sweep: made, or found again and held against the spec."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.provenance import gather
from orchestrator.spec import Spec, difference, load_spec
from orchestrator.store import Store

SPEC = "spec.yaml"
PROVENANCE = "provenance.json"


def run_root(spec: Spec, store: str | Path | None) -> Path:
    """The absolute run directory, `<store>/<sweep name>`; `store` overrides the spec's."""
    return (Path(store if store is not None else spec.store).expanduser() / spec.name).absolute()


def open_run(spec: Spec, root: Path) -> Store:
    """The store of a sweep, ready to be written.

    Raises UserError where a sweep of this name with another space is on record there.
    """
    if (root / SPEC).exists():
        changed = difference(load_spec(root / SPEC).search_space_key(), spec.search_space_key())
        if changed:
            raise UserError(
                f"{root}: a sweep named {spec.name} with another space is on record here; give the new one another "
                "name, or another --store. What changed:\n" + "\n".join(f"  {line}" for line in changed)
            )
    store = Store(root, spec.param_columns())
    store.prepare()
    text = spec.to_yaml()
    if not (root / SPEC).exists() or (root / SPEC).read_text() != text:
        store.write_text(SPEC, text)
        store.write_json(PROVENANCE, gather(text))
    return store


def provenance(store: Store) -> dict[str, str]:
    """What each row of `trials` says of the code and the spec."""
    found = json.loads((store.root / PROVENANCE).read_text())
    return {"code_version": found["code_version"], "spec_hash": found["spec_hash"]}
