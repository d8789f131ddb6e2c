"""Claims about 1,000 specs that were damaged: each runs, or is refused in words that say where and what."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mutations import mutated
from rich.console import Console
from small_specs import draw

from defenses import DEFENSES
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.plan import Plan
from orchestrator.preview import preview
from orchestrator.spec import Spec, load_spec

ROOT = Path(__file__).parent.parent
EXAMPLE = """\
# Every section, with holes of every kind.
name: example
seed: 0
dataset: {name: mnist, root: ~/data, validation: 5000}
threat: {norm: linf, eps: 0.1}
matrix: {defense: [{name: standard}, {name: pgd_at, steps: {int: [1, 9]}, eps: {ref: threat.eps, times: 5/4}}]}
network:
  choice:
    - {name: lenet}
    - {name: resnet, depth: {choice: [8, 14, 20]}, width: {log_int: [8, 32]}}
    - {name: mlp, widths: [{int: [8, 64], step: 8}, 16]}
training:
  {epochs: 12, batch_size: 128, optimizer: sgd, lr: {log_uniform: [0.01, 0.3]}, weight_decay: 5e-4,
   momentum: {normal: [0.8, 0.1, 0, 0.95]}, clip: {grid: [0, 1]}}
search:
  {sampler: tpe, trials: 64, objectives: {robust_area: max, seconds: min}, constraints: {clean_accuracy: ">= 0.9"},
   initial: [{network: {name: resnet, depth: 8}, training: {lr: 0.1}}]}
scheduler: {name: asha, grace_epochs: 2, reduction_factor: 3}
evaluation:
  rung:  {examples: 500,  attacks: [{name: pgd, steps: 10}]}
  final: {examples: 2000, attacks: [strong_pgd]}
  test:  {finalists: 3, seeds: 3, attacks: [{name: pgd, steps: 100, restarts: 2, loss: margin}]}
resources: {trial: {cpus: 1, gpus: 0.25}, evaluator: {cpus: 1, gpus: 1/4, count: 2}, max_concurrent: auto}
store: results
"""
LINE = re.compile(r"""spec(:\d+)?( (?:[\w.<\[\]-]|'[^']*'|"[^"]*")+)?: \S""")  # where, and the key where there is one
NO_WORDS_FOR_PEOPLE = re.compile(
    r"Traceback|Error\b|Exception|0x[0-9a-f]{8}|<class|pydantic|Input should|NoneType|unhashable|not subscriptable"
    r"|literal for int|iterable|positional argument|required argument|unsupported operand|codec|ordinal"
)


def originals() -> list[str]:
    """The sweeps, the whole specs among the README's blocks, and one with every section."""
    blocks = (ROOT / "README.md").read_text().split("```yaml\n")[1:]
    specs = [block.split("```")[0] for block in blocks if "name:" in block and "dataset:" in block]
    assert specs
    return [*(path.read_text() for path in sorted((ROOT / "sweeps").rglob("*.yaml"))), *specs, EXAMPLE]


def assert_runs(spec: Spec, seed: int) -> None:
    """The preview is printed, the normal form comes back, and a configuration builds."""
    with Console(width=100, quiet=True).capture():
        Console(width=100, quiet=True).print(preview(spec))
    assert load_spec(spec.to_yaml()) == spec
    for cell in spec.cells()[:3]:
        plan = Plan.of(cell, cell.space.configure(draw(random.Random(seed))), "data", spec.seed, 0)
        assert plan.make_network()
        assert plan.make_defense()
        assert plan.make_training()


def refused(text: str, seed: int) -> str | None:
    """What is said against a spec; None where it runs. Any other error is a failure of the test."""
    try:
        spec = load_spec(text)
    except UserError as error:
        return str(error)
    assert_runs(spec, seed)
    return None


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.parity)])
def test_what_is_damaged_runs_or_is_refused_in_words_with_its_place(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, said = originals(), dict[int, str]()
    assert [refused(text, 0) for text in texts] == [None] * len(texts)
    for seed in range(count):
        began = time.process_time()
        found = refused(mutated(texts[seed % len(texts)], seed) + "\n\n", seed)  # a text has lines, a path has none
        assert time.process_time() - began < 2, f"seed {seed}: a spec must be read at once"
        if found is not None:
            said[seed] = found
    for seed, message in said.items():
        assert not NO_WORDS_FOR_PEOPLE.search(message), (seed, message)
        for line in message.splitlines():
            assert LINE.match(line), (seed, line)
            assert len(line) < 600, (seed, line)
            assert line.isprintable(), (seed, line)
    with capsys.disabled():
        print(f"\n{count} damaged specs: {count - len(said)} right, {len(said)} refused in words")
    assert 0.5 * count < len(said) < 0.95 * count


def test_the_command_refuses_damaged_files_with_one_message_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.yaml"
    for seed in range(40):
        path.write_text(mutated(EXAMPLE, seed), encoding="utf-8", newline="")
        monkeypatch.setattr(sys, "argv", ["robustsweep", "check", str(path)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert code in (0, 2), seed
        assert bool(err.strip()) == (code == 2), seed
        assert "Traceback" not in err, seed
        assert err.startswith(str(path)) or code == 0, (seed, err)
        assert out.strip() or code == 2


def test_a_process_of_its_own_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_bytes(EXAMPLE.replace("eps: 0.1}", "eps: 8}").replace("pgd_at", "pdg_at").encode())
    command = [sys.executable, "-m", "orchestrator", "check", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"{path}:5 threat.eps: must be a fraction of the pixel range, at most 1 for linf, got 8; did you mean 8/255?",
        f"{path}:6 matrix.defense[1].name: must be one of {', '.join(DEFENSES)}, got 'pdg_at'; did you mean 'pgd_at'?",
    ]
