"""How long pandas takes to read 1,000,000 rows of `examples`, in many small parts and compacted.

    python -m benchmarks.reading
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from orchestrator.storage.compaction import compact
from orchestrator.storage.parts import encoded
from orchestrator.storage.schemas import schema_of
from orchestrator.storage.store import Store

TRIALS, ROWS = 250, 4000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(Path(folder) / "sweep")
        store.prepare()
        generator = np.random.default_rng(0)
        for trial in range(TRIALS):
            trial_id = f"{trial:016x}"
            store.files.replace(store.part("examples", f"{trial_id}.final"), encoded(examples(trial_id, generator)))
            store.append("attacks", f"{trial_id}.final", [attack(trial_id)])
        parts = best(f"{store.root}/examples")
        start = time.perf_counter()
        compact(store)
        packing = time.perf_counter() - start
        packed = best(f"{store.root}/examples")
        rows = len(pd.read_parquet(f"{store.root}/examples"))
        print(
            f"{rows:,} rows of examples: {TRIALS} parts read in {parts:.2f} s, compacted in {packing:.1f} s, then "
            f"{len(store.names('examples'))} part read in {packed:.2f} s ({packed / parts:.2f} of it)"
        )


def best(path: str) -> float:
    """The quickest of five readings by plain pandas."""
    found = []
    for _ in range(5):
        start = time.perf_counter()
        pd.read_parquet(path)
        found.append(time.perf_counter() - start)
    return min(found)


def examples(trial_id: str, generator: np.random.Generator) -> pa.Table:
    text = {"trial_id": trial_id, "evaluation": "final", "split": "validation", "attack": "pgd"}
    text |= {"attack_id": "0123456789abcdef", "norm": "linf"}
    schema = schema_of("examples")
    columns = []
    for field in schema:
        if field.name in text:
            columns.append(pa.array([text[field.name]] * ROWS))
        elif field.type == pa.bool_():
            columns.append(pa.array(generator.random(ROWS) < 0.5))
        elif field.type == pa.int64():
            columns.append(pa.array(generator.integers(0, 5000 if field.name == "example_id" else 10, ROWS)))
        elif field.name == "robust_probability":
            columns.append(pa.nulls(ROWS, pa.float64()))
        else:
            columns.append(pa.array(generator.random(ROWS)))
    return pa.Table.from_arrays(columns, schema=schema)


def attack(trial_id: str) -> dict[str, object]:
    return {
        "trial_id": trial_id, "epoch": 1, "evaluation": "final", "split": "validation", "attack": "pgd",
        "attack_id": "0", "position": 0, "norm": "linf", "eps": 0.1, "attack_json": "{}", "n": ROWS,
        "n_attacked": ROWS, "n_fooled": 0, "clean_accuracy": 1.0, "robust_accuracy": 1.0, "ci_low": 0.0,
        "ci_high": 1.0,
    }  # fmt: skip


if __name__ == "__main__":
    main()
