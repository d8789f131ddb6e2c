"""The columns of the six tables, declared and versioned: nothing in the store has a guessed type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.wording import nearest

VERSION = 1
VERSION_KEY = b"robustsweep.schema_version"
PARAM = "param."
COSTS = frozenset({"seconds", "at", "asked_at", "host"})
"""Columns in which two executions of the same work differ, so that no conflict is made of them."""

Row = Mapping[str, Any]

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")
_PARAM_TYPES = {"int": _INT, "float": _FLOAT, "bool": _BOOL, "string": _TEXT}


def _required(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=False) for name in names]


def _nullable(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names]


_FIELDS: dict[str, list[pa.Field]] = {
    "asks": [
        *_required(_TEXT, "trial_id"),
        *_nullable(_INT, "number"),
        *_required(_TEXT, "cell", "config_json", "params_json"),
        *_nullable(_TEXT, "distributions_json", "sampler_attrs_json"),
        *_required(_TIME, "asked_at"),
    ],
    "trials": [
        *_required(_TEXT, "sweep", "cell", "trial_id", "config_id"),
        *_required(_INT, "seed"),
        *_required(_TEXT, "stage", "status"),
        *_nullable(_TEXT, "error"),
        *_required(_TEXT, "defense", "network", "dataset", "norm"),
        *_required(_FLOAT, "eps"),  # the columns param.* follow
        *_required(_TEXT, "params_json"),
        *_nullable(_INT, "parameters", "epochs", "checkpoint_epoch"),
        *_nullable(_TEXT, "evaluation"),
        *_nullable(_INT, "n"),
        *_nullable(_FLOAT, "clean_accuracy", "robust_accuracy", "robust_area", "robust_ci_low", "robust_ci_high"),
        *_nullable(_FLOAT, "rung_robust_accuracy"),
        *_required(_INT, "doubts", "severe_doubts"),
        *_nullable(_FLOAT, "train_seconds", "eval_seconds", "gpu_seconds"),
        *_nullable(_INT, "peak_memory_bytes"),
        *_nullable(_TIME, "started_at", "finished_at"),
        *_nullable(_TEXT, "host", "device", "code_version", "spec_hash", "checkpoint"),
        *_nullable(_INT, "revision"),
    ],
    "epochs": [
        *_required(_TEXT, "trial_id"),
        *_required(_INT, "epoch"),
        *_nullable(_FLOAT, "loss", "learning_rate", "clean_accuracy", "robust_accuracy", "seconds"),
    ],
    "attacks": [
        *_required(_TEXT, "trial_id"),
        *_required(_INT, "epoch"),
        *_required(_TEXT, "evaluation", "split", "attack", "attack_id"),
        *_required(_INT, "position"),
        *_required(_TEXT, "norm"),
        *_required(_FLOAT, "eps"),
        *_required(_TEXT, "attack_json"),
        *_required(_INT, "n", "n_attacked", "n_fooled"),
        *_required(_FLOAT, "clean_accuracy", "robust_accuracy", "ci_low", "ci_high"),
        *_nullable(_FLOAT, "forward_passes", "backward_passes", "seconds"),
    ],
    "examples": [
        *_required(_TEXT, "trial_id"),
        *_required(_INT, "epoch"),
        *_required(_TEXT, "evaluation", "split", "attack", "attack_id", "norm"),
        *_required(_FLOAT, "eps"),
        *_required(_INT, "example_id", "label", "clean_prediction"),
        *_nullable(_INT, "adversarial_prediction"),
        *_required(_BOOL, "robust"),
        *_nullable(_FLOAT, "robust_probability", "distance", "margin"),
    ],
    "events": [
        *_required(_TIME, "at"),
        *_nullable(_TEXT, "trial_id"),
        *_required(_TEXT, "kind"),
        *_nullable(_TEXT, "severity", "evidence", "host"),
    ],
}
TABLES = tuple(_FIELDS)


def schema_of(table: str, param_columns: Mapping[str, str] | None = None) -> pa.Schema:
    """The schema of a table. `param_columns` gives the path of each hole (without `param.`) the type of its column
    in `trials`: "int", "float", "bool" or "string"."""
    fields = list(_FIELDS[table])
    if table == "trials":
        params = [pa.field(PARAM + path, _PARAM_TYPES[kind]) for path, kind in (param_columns or {}).items()]
        after = [field.name for field in fields].index("eps") + 1
        fields[after:after] = params
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION)})


def to_table(table: str, rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as a table of this schema; a nullable column may be left out, a NaN becomes null.

    Raises ValueError for a column that is unknown, required and missing, or of another type.
    """
    unknown = sorted({name for row in rows for name in row} - set(schema.names))
    if unknown:
        raise ValueError(f"{table}: unknown column {', '.join(unknown)}{nearest(schema.names, unknown[0])}")
    columns = [_column(table, field, [row.get(field.name) for row in rows]) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def differences(first: pa.Table, second: pa.Table) -> list[str]:
    """The columns in which two parts differ, costs left out; ["rows"] where their numbers of rows differ."""
    if first.num_rows != second.num_rows:
        return ["rows"]
    shared = [name for name in second.column_names if name in first.column_names and name not in COSTS]
    return [name for name in shared if not first[name].equals(second[name])]


def _column(table: str, field: pa.Field, values: list[Any]) -> pa.Array:
    try:
        found = pa.array([_cell(field, value) for value in values], type=field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{table}.{field.name}: must be {field.type}: {error}") from error
    if found.null_count and not field.nullable:
        raise ValueError(f"{table}.{field.name}: is required, missing in {found.null_count} of {len(values)} rows")
    return found


def _cell(field: pa.Field, value: Any) -> Any:
    """The value as Arrow may take it: Arrow by itself cuts 1.5 to 1 and takes a time without a zone for UTC."""
    if value is None or value != value:  # NaN, NaT
        return None
    if field.type == _INT and isinstance(value, (float, np.floating)):
        if not value.is_integer():
            raise ValueError(f"got {value!r}")
        return int(value)
    if field.type == _TIME and not (isinstance(value, datetime) and value.tzinfo):
        raise ValueError(f"needs a time with its zone, got {value!r}")
    if field.type == _TEXT and field.name.startswith(PARAM):
        return str(value)  # a choice of mixed values
    return value
