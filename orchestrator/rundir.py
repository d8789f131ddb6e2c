"""The run directory of a sweep: made, or found again and held against the spec."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.lasting import lasting_base
from orchestrator.plugins.record import on_record
from orchestrator.protocols import Protocols
from orchestrator.provenance import code_version, gather, spec_hash
from orchestrator.storage.files import Files, open_files
from orchestrator.storage.patience import Patient
from orchestrator.storage.store import Store
from orchestrator.storage.store_place import below, is_uri, refuse_bad_uri

if TYPE_CHECKING:
    from orchestrator.spec import Spec

SPEC = "spec.yaml"
PROVENANCE = "provenance.json"
REPLACES = "replaces_spec_hash"  # in it, of the spec that was there: a driver may die between the two


def run_root(spec: Spec, store: str | Path | None) -> str:
    """Where a run is kept, `<store>/<sweep name>`, as `open_files` takes it: an absolute path, or a URI.

    `store` overrides the spec's. Raises UserError for a URI that is none or holds a secret, without repeating it.
    """
    place = str(store if store is not None else spec.store)
    if is_uri(place):
        refuse_bad_uri(place)
        return below(place, spec.name)
    if not place.strip() or not place.isprintable():
        raise UserError(f"store: must be a path, got {place!r}")
    try:
        return str((lasting_base() / Path(place).expanduser() / spec.name).absolute())
    except RuntimeError:
        raise UserError(f"store: there is no home directory for {place!r}") from None


def open_run_directory(root: str, say: Callable[[str], None] | None = None) -> Files:
    """The run directory, made if it is not there; a store that fails later is waited for, of which `say` hears.

    Raises UserError where it cannot be made.
    """
    files = open_files(root)
    try:
        files.make_directory("")
    except OSError as error:
        raise UserError(f"--store: cannot make the run directory {root}: {error.strerror or error}") from None
    return Patient(files, say=say)


def open_run(spec: Spec, files: Files) -> Store:
    """The store of a sweep, ready to be written.

    Raises UserError where a sweep of this name with another space, or other rungs, is on record there.
    """
    from orchestrator.spec import difference, load_spec  # here: who reads a run needs no specs

    recorded = text_of(files, SPEC)
    protocols = _protocols(files, recorded is not None)
    if recorded is not None:
        on_record = load_spec(f"{recorded}\n", name=f"{files.root}/{SPEC}")
        _refuse_other_rungs(on_record, spec, files.root)
        protocols = protocols.with_spec(on_record.evaluation.model_dump())
        changed = difference(_fixed(on_record), _fixed(spec))
        if changed:
            raise UserError(
                f"{files.root}: a sweep named {spec.name} with another space is on record here; give the new one "
                "another name, or another --store. What changed:\n" + "\n".join(f"  {line}" for line in changed)
            )
    store = Store(files, spec.param_columns())
    store.prepare()
    protocols.with_spec(spec.evaluation.model_dump()).write(store)
    text = spec.to_yaml()
    if recorded != text or not _is_current(files, text):
        store.write_json(PROVENANCE, {**gather(text), REPLACES: recorded if recorded is None else spec_hash(recorded)})
        store.write_text(SPEC, text)
    return store


def text_of(files: Files, name: str) -> str | None:
    """A file of the run, None where there is none. Raises UserError where it is no text."""
    try:
        return files.read(name).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{files.root}/{name}: is damaged: must be text in UTF-8 ({error.reason})") from None


def _protocols(files: Files, is_old: bool) -> Protocols:
    """Those on record. Where their file is lost and evaluations had been changed, nothing says which name is which
    protocol's: then each of the spec's gets a new name, and is measured again."""
    found = Protocols.of(files)
    if found.known or not is_old:
        return found
    try:
        names = set(Store(files).read("attacks", ["evaluation"])["evaluation"])
    except UserError:
        return found  # a driver died before the tables were there
    return Protocols({name: {} for name in names}) if any("." in name for name in names) else found


def _fixed(spec: Spec) -> dict[str, Any]:
    """What may not change under one name: the space."""
    return spec.search_space_key()


def _refuse_other_rungs(old: Spec, new: Spec, root: str) -> None:
    """Raises UserError where trials would be compared at rungs by figures of two protocols."""
    from orchestrator.spec import difference

    if changed := difference(_rung(old), _rung(new)):
        raise UserError(
            f"{root}: trials of this sweep were compared at rungs by what `evaluation.rung` said, and the models of "
            "those that were stopped are not kept: they cannot be measured again, and figures of two protocols do not "
            "compare. Put other attacks under `final`, `test` or a name of their own, or give the sweep another name. "
            "What changed:\n" + "\n".join(f"  {line}" for line in changed)
        )


def _rung(spec: Spec) -> dict[str, Any]:
    """By what trials are compared, and on which rows: where that is left open it depends on `final.examples`."""
    evaluation = spec.evaluation.model_dump(include={"rung", "final"})
    if evaluation["rung"]["examples"] is None:
        return {"evaluation": {"rung": evaluation["rung"], "final": {"examples": evaluation["final"]["examples"]}}}
    return {"evaluation": {"rung": evaluation["rung"]}}


def _is_current(files: Files, text: str) -> bool:
    """Whether a provenance on record is of the code at hand, plugins with it, and of this spec."""
    try:
        said = json.loads(files.read(PROVENANCE))
        is_of_this_code = said["code_version"] == code_version() and said.get("plugins", []) == on_record()
        return bool(is_of_this_code and said["spec_hash"] == spec_hash(text))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def provenance(store: Store) -> dict[str, str]:
    """What each row of `trials` says of the code and the spec."""
    found = json.loads(store.files.read(PROVENANCE))
    return {"code_version": found["code_version"], "spec_hash": found["spec_hash"]}
