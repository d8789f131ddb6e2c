"""The tables of a store as anybody reads them: `pandas.read_parquet` of a directory, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

KEYS = {
    "trials": ["trial_id"],
    "asks": ["trial_id"],
    "epochs": ["trial_id", "epoch"],
    "attacks": ["trial_id", "evaluation", "epoch", "attack_id", "eps"],
    "examples": ["trial_id", "evaluation", "epoch", "attack_id", "eps", "example_id"],
}
Tables = dict[str, pd.DataFrame]


def read(root: Path) -> Tables:
    """All tables, `trials` first: what its rows were derived from must then be in those read after it."""
    return {name: pd.read_parquet(root / name) for name in (*KEYS, "events")}


def keys_of(name: str, table: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(table[KEYS[name]].itertuples(index=False, name=None))


def twice(name: str, table: pd.DataFrame) -> list[str]:
    """What is wrong with the keys of a table: each may stand in one row."""
    repeated = table[table.duplicated(KEYS[name])][KEYS[name]]
    return [f"{name}: a row twice: {tuple(row)}" for row in repeated.itertuples(index=False, name=None)]


def plain(value: object) -> object:
    """A cell so that equal cells are equal: whatever stands for nothing is None."""
    return None if value is None or value != value else value


def rows_of(table: pd.DataFrame, key: str = "trial_id") -> dict[str, dict[str, object]]:
    """The rows by a key that each has for itself."""
    return {str(row[key]): {str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")}
