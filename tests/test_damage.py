"""Damaged files of a run: each is named, or the run is right all the same; repaired, no row is lost."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline

from orchestrator.doctor import examine, set_aside
from orchestrator.errors import UserError
from orchestrator.storage.compaction import compact
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.store import Store

SPEC = {
    **SYNTHETIC,
    "search": {"trials": 3, "objectives": {"robust_area": "max"}, "sampler": "random"},
    "evaluation": {**SYNTHETIC["evaluation"], "test": {**SYNTHETIC["evaluation"]["test"], "seeds": 1}},
}
KEYS = {
    "asks": ["trial_id"],
    "trials": ["trial_id", "status", "clean_accuracy", "robust_accuracy", "robust_area", "epochs", "doubts"],
    "epochs": ["trial_id", "epoch", "loss", "robust_accuracy"],
    "attacks": ["trial_id", "evaluation", "epoch", "attack_id", "eps", "robust_accuracy", "n"],
    "examples": ["trial_id", "evaluation", "attack_id", "eps", "example_id", "robust", "margin"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", SPEC).run().root


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep, cut off in the middle."""
    return Inline(tmp_path_factory.mktemp("stopped") / "tiny", SPEC).run(7).root


def compacted(source: Path, folder: Path) -> Path:
    root = Path(shutil.copytree(source, folder / "tiny"))
    compact(Store.at(root))
    return root


@pytest.fixture(scope="module")
def packed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished sweep, compacted."""
    return compacted(finished, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def stopped_and_packed(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compacted(stopped, tmp_path_factory.mktemp("stopped_and_packed"))


SOURCES = ["finished", "stopped", "packed", "stopped_and_packed"]


def rows(root: Path) -> dict[str, pd.DataFrame]:
    """What plain pandas reads, without what differs from run to run."""
    return {
        table: pd.read_parquet(root / table)[columns].sort_values(columns, ignore_index=True)
        for table, columns in KEYS.items()
    }


def damage(path: Path, generator: random.Random) -> str:
    """Spoil a file in one of the ways in which disks do."""
    content = path.read_bytes()
    kind = generator.choice(["cut", "flipped", "emptied", "zeroed", "deleted", "garbage", "doubled"])
    place = generator.randrange(max(1, len(content)))
    if kind == "deleted":
        path.unlink()
        return kind
    spoilt = {
        "cut": content[:place],
        "flipped": content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :] if content else b"",
        "emptied": b"",
        "zeroed": bytes(len(content)),
        "garbage": generator.randbytes(len(content)),
        "doubled": content + content,
    }[kind]
    path.write_bytes(spoilt)
    return kind


def end_of(root: Path) -> str:
    """Run the sweep on; where a damaged file stops it, set aside what the doctor finds, and run it again."""
    refusal, store = refused(root), Store.at(root)
    assert refusal is None or str(root) in refusal
    if set_aside(store, examine(store)):
        assert refused(root) is None
        return "repaired" if refusal is None else "named, then repaired"
    assert refusal is None, f"the doctor finds nothing of: {refusal}"
    return "right"


def refused(root: Path) -> str | None:
    """What a run says that does not go on; None where it goes on to its end."""
    try:
        Inline(root, SPEC).run()
    except UserError as error:
        return str(error)
    return None


def tried(source: Path, folder: Path, expected: dict[str, pd.DataFrame], times: int, seed: int) -> Counter[str]:
    """Damage one file, run on, compare; so many times. -> what happened how often."""
    generator, counts = random.Random(seed), Counter[str]()
    for turn in range(times):
        root = folder / str(turn) / "tiny"
        shutil.copytree(source, root)
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
        path = generator.choice(files)
        name = path.relative_to(root)
        kind = damage(path, generator)
        counts[f"{name.parts[0]}: {end_of(root)}"] += 1
        for table, rows_now in rows(root).items():
            pd.testing.assert_frame_equal(rows_now, expected[table], obj=f"{table} after {name} was {kind}")
        shutil.rmtree(root.parent)
    return counts


@pytest.mark.parametrize("source", SOURCES)
def test_a_damaged_file_is_named_or_does_no_harm_and_no_row_is_lost(
    source: str, finished: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    times = 2
    counts = tried(request.getfixturevalue(source), tmp_path, rows(finished), times=times, seed=1)
    assert counts.total() == times


@pytest.mark.parity
@pytest.mark.parametrize("source", SOURCES)
def test_fifty_damaged_files_of_each(
    source: str, finished: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    counts = tried(request.getfixturevalue(source), tmp_path, rows(finished), times=50, seed=2)
    print(f"{source}: {dict(sorted(counts.items()))}")
    assert counts.total() == 50


@pytest.mark.parametrize("kind", ["deleted", "cut"])
@pytest.mark.parametrize("source", ["packed", "stopped_and_packed"])
def test_a_manifest_that_is_lost_or_damaged_is_named_and_no_row_is_lost(
    source: str, kind: str, finished: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = Path(shutil.copytree(request.getfixturevalue(source), tmp_path / "tiny"))
    for table in ("asks", "epochs", "attacks", "examples", "events"):
        path = root / table / MANIFEST
        path.unlink() if kind == "deleted" else path.write_bytes(path.read_bytes()[:-3])
    assert end_of(root) == "named, then repaired"
    for name, found in rows(root).items():
        pd.testing.assert_frame_equal(found, rows(finished)[name], obj=name)


@pytest.mark.parametrize("table", ["asks", "epochs", "attacks", "examples", "trials"])
def test_a_table_that_lost_all_its_parts_is_found_again(finished: Path, tmp_path: Path, table: str) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    for path in (root / table).iterdir():
        path.unlink()
    Inline(root, SPEC).run()
    for name, found in rows(root).items():
        pd.testing.assert_frame_equal(found, rows(finished)[name], obj=name)


def test_damage_in_a_packed_part_is_named(finished: Path, packed: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(packed, root)
    (part,) = (root / "epochs").glob("packed-*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{part}: is damaged .*doctor RUN --repair"):
        Inline(root, SPEC)
    assert [finding.name for finding in examine(Store.at(root))] == [f"epochs/{part.name}"]
    end_of(root)
    pd.testing.assert_frame_equal(rows(root)["epochs"], rows(finished)["epochs"])


@pytest.mark.parametrize("source", SOURCES)
def test_a_whole_run_has_no_findings(source: str, request: pytest.FixtureRequest) -> None:
    assert examine(Store.at(request.getfixturevalue(source))) == []
