"""Two stores of one sweep: what is the same whatever was killed, and what differs."""

from __future__ import annotations

from kills.tables import KEYS, Tables, keys_of, plain

COSTS = {"seconds", "train_seconds", "eval_seconds", "gpu_seconds", "peak_memory_bytes"}
CIRCUMSTANCES = {"host", "device", "started_at", "finished_at", "asked_at", "code_version", "spec_hash", "sweep"}


def differences(disturbed: Tables, undisturbed: Tables, most: int = 20) -> list[str]:
    """Where the tables differ in keys or figures, bit for bit; times, costs and hosts aside."""
    found = []
    for name in KEYS:
        first, second = (dict(_keyed(name, tables)) for tables in (disturbed, undisturbed))
        found += [f"{name}: {key} is not in the undisturbed run" for key in sorted(set(first) - set(second), key=str)]
        found += [f"{name}: {key} is in the undisturbed run only" for key in sorted(set(second) - set(first), key=str)]
        for key in set(first) & set(second):
            found += [
                f"{name} {key}: {column}: {first[key].get(column)!r}, undisturbed {value!r}"
                for column, value in second[key].items()
                if first[key].get(column) != value
            ]
    return found[:most] + ([f"... and {len(found) - most} more"] if len(found) > most else [])


def _keyed(name: str, tables: Tables) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    table = tables[name]
    kept = [column for column in table.columns if column not in COSTS | CIRCUMSTANCES]
    rows = [{str(column): plain(row[column]) for column in kept} for row in table.to_dict("records")]
    return list(zip(keys_of(name, table), rows, strict=True))
