"""Claims about plugins: what the user named is let in and travels, and nothing else is ever imported."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inline import SYNTHETIC, Inline
from plugin_modules import plugins_forgotten

import orchestrator
from attacks import ATTACKS
from defenses import NETWORKS
from orchestrator.build import make, normalised
from orchestrator.cascade import stages
from orchestrator.cli import main
from orchestrator.cluster.parcel import pack
from orchestrator.cluster.submission import ordered
from orchestrator.datasets import DATASETS
from orchestrator.errors import UserError
from orchestrator.identity import method_source
from orchestrator.plan import Plan
from orchestrator.plugins.admission import admit
from orchestrator.plugins.luggage import Luggage, luggage
from orchestrator.plugins.record import changed_since
from orchestrator.spec import load_spec
from orchestrator.storage.files import open_files
from orchestrator.tables import all_tables

NETWORK = """
from dataclasses import dataclass
from torch import nn
from defenses.networks.normalise import Normalise

@dataclass(frozen=True)
class Line:
    scale: float = 1.0
    def __call__(self, channels, size, classes):
        return nn.Sequential(Normalise(channels), nn.Flatten(), nn.Linear(channels * size * size, classes))
"""
DEFENSE = """
from dataclasses import dataclass
from defenses.standard import Standard

@dataclass(frozen=True)
class Plain(Standard):
    pass
"""
ATTACK = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Still:
    def __call__(self, model, x, y, threat, draws):
        return x.clone()
"""
INPUT = """
from dataclasses import dataclass
from torch import nn
from attacks.surface import Surface

@dataclass(frozen=True)
class Dim:
    def __call__(self, channels, size):
        return nn.Threshold(0.5, 0.5)
    def surface(self):
        return Surface()
"""
DATASET = """
from dataclasses import dataclass
import numpy as np

@dataclass(frozen=True)
class Stripes:
    def __call__(self, root, split):
        rows = np.arange(200 if split == "train" else 40)
        images = np.random.default_rng(len(rows)).integers(0, 99, (len(rows), 1, 4, 4), dtype=np.uint8)
        images[rows % 2 == 1, :, ::2] += 120
        return images, (rows % 2).astype(np.int64)
"""
ALL = NETWORK + DEFENSE + ATTACK + DATASET
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file below the working directory; what is let in of it is out again after the test."""

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # bytecode of a source changed within a second is stale
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with plugins_forgotten():
        yield written


def spec_of(**blocks: Any) -> dict[str, Any]:
    evaluation = {stage: {**SYNTHETIC["evaluation"][stage]} for stage in ("rung", "final", "test")}
    return {**SYNTHETIC, "matrix": {}, "defense": {"name": "standard"}, "evaluation": evaluation, **blocks}


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, which finds our packages and no plugin."""
    root = str(Path(orchestrator.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONSAFEPATH": "1"}
    call = [sys.executable, "-c", code]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("named", ["one", "one.py", "{folder}/one.py"])
def test_a_module_and_a_file_are_named_alike(write: Write, tmp_path: Path, named: str) -> None:
    write("one.py", ALL)
    (plugin,) = admit([named.format(folder=tmp_path)])
    assert plugin.module == "one"
    defenses = all_tables().defenses
    assert {name for table in (ATTACKS, defenses, NETWORKS, DATASETS) for name in table if ":" in name} == {
        *("one:Line", "one:Plain", "one:Still", "one:Stripes"),
    }
    assert make(NETWORKS, {"name": "one:Line", "scale": 2}).scale == 2.0
    assert defenses["one:Plain"].name == "one:Plain"  # not that of the class it is derived from
    assert [stage.name for stage in stages("one:Still")] == ["one:Still"]


def test_a_file_in_a_package_is_named_from_the_package(write: Write) -> None:
    write("lib/pack/__init__.py", "")
    write("lib/pack/part.py", NETWORK + "\nfrom . import beside\n")
    write("lib/pack/beside.py", "")
    assert admit(["lib/pack/part.py"])[0].module == "pack.part"
    assert "pack.part:Line" in NETWORKS


def test_a_transform_in_front_of_the_network_may_be_a_plugin_too(write: Write) -> None:
    write("own.py", INPUT)
    blocks = spec_of(input=[{"name": "own:Dim"}])
    with pytest.raises(UserError, match="add --plugin own"):
        load_spec(blocks)
    admit(["own"])
    load_spec(blocks)
    assert all_tables().inputs["own:Dim"].name == "own:Dim"


def test_a_class_is_on_record_under_the_place_where_it_is_defined(write: Write) -> None:
    write("pack/__init__.py", "from pack.part import Line\n__all__ = ['Line']\n")
    write("pack/part.py", NETWORK)
    admit(["pack"])
    assert normalised(NETWORKS, "pack:Line") == normalised(NETWORKS, "pack.part:Line")
    cell = load_spec(spec_of(network={"name": "pack:Line"}, training={"epochs": 1})).cells()[0]
    assert cell.space.configure(lambda path, hole: None).network["name"] == "pack.part:Line"


BOMB = "from pathlib import Path\nPath(__file__).with_name('went_off').write_text('')\n" + ALL


@pytest.mark.parametrize(
    "blocks",
    [
        {"network": {"name": "bomb:Line"}},
        {"network": {"choice": [{"name": "mlp"}, {"name": "bomb:Line"}]}},
        {"defense": "bomb:Plain"},
        {"dataset": {"name": "bomb:Stripes"}},
        {"evaluation": {"rung": {"attacks": ["bomb:Still"]}}},
        {"evaluation": {"final": {"attacks": [{"name": "bomb:Still"}]}}},
        {"matrix": {"defense": [{"name": "standard"}, {"name": "bomb:Plain"}]}, "defense": None},
    ],
    ids=lambda blocks: "-".join(blocks),
)
def test_a_spec_that_names_a_module_imports_nothing_and_says_what_to_add(
    write: Write, tmp_path: Path, blocks: dict[str, Any]
) -> None:
    write("bomb.py", BOMB)
    with pytest.raises(UserError, match=r"bomb:\w+' is of a module that was not named: add --plugin bomb \(in Python"):
        load_spec(spec_of(**blocks))
    assert not (tmp_path / "went_off").exists()


@pytest.mark.parametrize(
    "name", ["os:system", "torch.nn:Linear", "subprocess:Popen", ":", "a:", ":b", "a:b:c", "a b:c"]
)
def test_modules_that_are_there_anyway_are_no_plugins(name: str) -> None:
    with pytest.raises(UserError, match=r"not named|must be one of"):
        load_spec(spec_of(network={"name": name}))


def test_a_stored_run_imports_nothing_and_says_what_its_models_need(write: Write, tmp_path: Path) -> None:
    write("bomb.py", BOMB)
    admit(["bomb"])
    spec = spec_of(network={"name": "bomb:Line"}, search={"trials": 1}, training={"epochs": 1})
    run = Inline(tmp_path / "store" / "tiny", spec).run()
    (tmp_path / "went_off").unlink()
    look = """
import orchestrator
run = orchestrator.load("store/tiny")
print(len(run.leaderboard()), len(run.trials()), run.status().shape)
trial = run.trials().trial_id[0]
try:
    run.model(trial)
except orchestrator.UserError as error:
    print(error)
import pathlib
print(pathlib.Path("went_off").exists())
print(type(orchestrator.load("store/tiny", plugins=["bomb"]).model(trial)).__name__)
print(pathlib.Path("went_off").exists())
"""
    ended = python(look, tmp_path)
    lines = ended.stdout.splitlines()
    assert len(lines) == 5, ended.stderr
    assert lines[1].endswith("add --plugin bomb (in Python plugins=['bomb']) if its code may run")
    assert lines[1].startswith(f"{run.root}: trial ")
    assert lines[2:] == ["False", "Sequential", "True"]
    (told,) = json.loads((run.root / "provenance.json").read_text())["plugins"]
    assert told["module"] == "bomb"
    assert {len(told["file_hash"]), len(told["source"])} == {16}
    assert changed_since(open_files(str(run.root))) == []
    with plugins_forgotten():
        write("bomb.py", BOMB + "\n# another\n")
        sys.modules.pop("bomb")
        orchestrator.plugins.admission._ADMITTED.clear()
        admit(["bomb"])
        (line,) = changed_since(open_files(str(run.root)))
        assert line.startswith("plugin bomb: its source has changed")


WRONG = {
    "absent": ("nowhere", None, r"--plugin nowhere: there is no module nowhere, neither in /.+ nor where Python looks"),
    "elsewhere": ("far", ("lib/far.py", ALL), r"there is a file lib/far\.py, which may be given as it is"),
    "no name": ("a-b", None, r"--plugin a-b: must be a module such as my_package\.my_module, or a file"),
    "no file": ("gone.py", None, r"--plugin gone\.py: must be a Python file that is there"),
    "raises": (
        "bad",
        ("bad.py", "def f():\n    return 1 / 0\nf()\n"),
        r"(?s)cannot be imported\n.*bad\.py.*line 2.*ZeroD",
    ),
    "exits": ("bad", ("bad.py", "raise SystemExit(3)\n"), r"(?s)cannot be imported\n.*SystemExit: 3"),
    "syntax": ("bad", ("bad.py", "def f(:\n"), r"(?s)cannot be imported\n.*bad\.py.*line 1.*SyntaxError"),
    "lacks a module": (
        "bad",
        ("bad.py", "import no_such_thing\n"),
        "(?s)cannot be imported.*No module named 'no_such_",
    ),
    "ours": ("attacks.pgd", None, "attacks is robustsweep's own"),
    "hidden": ("json.py", ("json.py", ALL), r"--plugin json\.py: the name json already stands for .*; rename it"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_cannot_be_imported_is_refused_with_the_end_of_its_traceback(write: Write, how: str) -> None:
    named, file, message = WRONG[how]
    if file is not None:
        write(*file)
    with pytest.raises(UserError, match=message) as refused:
        admit([named])
    assert "Traceback" not in str(refused.value)
    assert "importlib" not in str(refused.value)


THAW = (
    "from dataclasses import dataclass\n@dataclass\nclass Line:\n    def __call__(self, channels, size, classes): ...\n"
)
LACKING = [
    (THAW, "Line", r"part:Line is no network: it must be a frozen dataclass: write @dataclass\(frozen=True\) above it"),
    (NETWORK.replace("channels, size, classes):", "channels):"), "Line", "it is called as __call__.channels, size, cl"),
    (
        NETWORK,
        "Lime",
        r"part has no class 'Lime'; it has Line, Normalise|part has no class 'Lime'; it has Line;.*Line'",
    ),
    (ATTACK, "Still", "part:Still is no network: it is an attack"),
    (DEFENSE, "Plain", "part:Plain is no network: it is a defense"),
    (NETWORK.replace("scale", "name"), "Line", "no field may be called name, which is a key of every network"),
]


@pytest.mark.parametrize(("text", "cls", "message"), LACKING)
def test_a_class_that_lacks_something_is_refused_with_what(write: Write, text: str, cls: str, message: str) -> None:
    write("part.py", text)
    admit(["part"])
    with pytest.raises(UserError, match=message):
        load_spec(spec_of(network={"name": f"part:{cls}"}))


def test_a_defense_without_a_surface_is_refused(write: Write) -> None:
    write(
        "part.py",
        DEFENSE.replace("(Standard)", "").replace(
            "    pass", "    def fit(self, *a): ...\n    def deployed(self, s): ..."
        ),
    )
    admit(["part"])
    with pytest.raises(UserError, match=r"^spec defense: part:Plain is no defense: it has no surface\(\)"):
        load_spec(spec_of(defense="part:Plain", network="mlp"))


def test_a_table_of_which_nothing_is_known_takes_any_frozen_dataclass(write: Write) -> None:
    write("part.py", NETWORK + THAW.replace("Line", "Thaw"))
    admit(["part"])
    table: dict[str, type] = {}
    assert make(table, {"name": "part:Line", "scale": 3}).scale == 3.0
    with pytest.raises(UserError, match="frozen dataclass"):
        make(table, "part:Thaw")


def ids(*plugins: str) -> dict[str, str]:
    """The ids of a trial with the plugins' network, one with their defense, one with neither; as a new process has."""
    with plugins_forgotten():
        method_source.cache_clear()
        admit(plugins)
        pairs = {"network": (f"{plugins[0]}:Line", "standard"), "defense": ("mlp", f"{plugins[-1]}:Plain")}
        found = {}
        for key, (network, defense) in {**pairs, "neither": ("mlp", "standard")}.items():
            cell = load_spec(spec_of(network=network, defense=defense, training={"epochs": 1})).cells()[0]
            found[key] = Plan.of(cell, cell.space.configure(lambda path, hole: None), "data", 0, 0).trial_id
        return found


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("nets/line.py", {"network"}),
        ("nets/deep/tools.py", {"network"}),
        ("beside.py", {"network"}),
        ("own.py", {"defense"}),
        ("nets/__init__.py", set()),
        ("nets/unused.py", set()),
    ],
)
def test_an_edit_changes_the_ids_of_the_trials_that_use_it_and_of_no_others(
    write: Write, path: str, changes: set[str]
) -> None:
    files = {
        "nets/__init__.py": "",
        "nets/line.py": NETWORK + "from .deep import tools\nimport beside\n",
        "nets/deep/tools.py": "",  # of a package without an __init__
        "nets/unused.py": "",
        "beside.py": "",
        "own.py": DEFENSE,
    }
    for name, text in files.items():
        write(name, text)
    before = ids("nets.line", "own")
    write(path, files[path] + "\nCHANGED = True\n")
    after = ids("nets.line", "own")
    assert {key for key in before if before[key] != after[key]} == changes


def test_a_file_that_changed_after_it_was_imported_is_refused(write: Write) -> None:
    write("one.py", ALL + "import two\n")
    write("two.py", "")
    assert admit(["one"]) == admit(["one"])
    write("two.py", "# edited")
    with pytest.raises(UserError, match="plugin one: its source has changed since this process imported it; start Py"):
        admit(["one"])


def test_the_source_travels_to_a_process_that_has_no_file_of_it(write: Write, tmp_path: Path) -> None:
    """A package with relative imports and a part without an __init__, and a module beside it."""
    write("here/nets/__init__.py", "")
    write("here/nets/line.py", NETWORK + "from .deep.tools import FACTOR\nimport beside\n")
    write("here/nets/deep/tools.py", "FACTOR = 3\n")
    write("here/nets/other.py", "")
    write("here/beside.py", "# coding: latin-1\nWORD = '\xe9'\n").write_bytes(b"# coding: latin-1\nWORD = '\xe9'\n")
    admit(["here/nets/line.py"])
    carried = luggage()
    names = {module.name for module in carried.modules}
    assert names == {"nets", "nets.line", "nets.deep", "nets.deep.tools", "nets.other", "beside"}
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "luggage").write_bytes(pickle.dumps(carried))
    (tmp_path / "here").rename(tmp_path / "gone")
    open_it = """
import pickle
pickle.load(open("luggage", "rb")).unpack()
from defenses import NETWORKS
from orchestrator.build import make
import sys, inspect
print(make(NETWORKS, {"name": "nets.line:Line", "scale": 2}).scale, sys.modules["nets.line"].FACTOR)
print(ascii(sys.modules["beside"].WORD), "class Line" in inspect.getsource(sys.modules["nets.line"]))
"""
    ended = python(open_it, tmp_path / "there")
    assert ended.stdout.split() == ["2.0", "3", "'\\xe9'", "True"], ended.stderr


def test_what_is_let_in_already_is_not_unpacked_again(write: Write) -> None:
    write("one.py", ALL)
    admit(["one"])
    before = ATTACKS["one:Still"]
    luggage().unpack()
    assert ATTACKS["one:Still"] is before
    assert Luggage().unpack() is None


def test_list_shows_each_class_of_a_plugin_once_with_its_settings(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("pack/__init__.py", "from pack.part import Line\n__all__ = ['Line']\n")
    write("pack/part.py", ALL)
    assert give(monkeypatch, "list", "--plugin", "pack", "--plugin", "pack.part") == 0
    said = capsys.readouterr().out
    for name, settings in {"Line": "scale=1.0", "Plain": "", "Still": "", "Stripes": ""}.items():
        (line,) = [line for line in said.splitlines() if f"pack.part:{name}" in line]
        assert settings in line
    assert "pack:Line" not in said
    assert give(monkeypatch, "list", "networks", "pack:Line", "--plugin", "pack") == 0
    assert "scale" in capsys.readouterr().out


def test_check_needs_a_spec_or_a_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert give(monkeypatch, "check") == 2
    assert "needs a SPEC, or --plugin MODULE, or both" in capsys.readouterr().err


def give(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `robustsweep` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["robustsweep", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_broken_installed_plugin_breaks_no_list(
    distribution: str, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("site-packages/theirs/nets.py", "import no_such_thing")
    assert give(monkeypatch, "list", "networks") == 0
    said = capsys.readouterr()
    assert "resnet" in said.out
    assert "--plugin theirs.nets: cannot be imported" in said.err


@pytest.fixture
def distribution(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed plugin whose entry point names a class."""
    write("site-packages/theirs/__init__.py", "")
    write("site-packages/theirs/nets.py", NETWORK)
    write("site-packages/theirs-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    write("site-packages/theirs-1.0.dist-info/entry_points.txt", "[robustsweep.plugins]\nstraight = theirs.nets:Line\n")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    return "theirs.nets:Line"


@pytest.mark.parametrize("name", ["straight", "theirs.nets:Line"])
def test_an_installed_plugin_need_not_be_named_and_may_have_a_short_name(distribution: str, name: str) -> None:
    assert normalised(NETWORKS, {"name": name, "scale": 2}) == {"name": distribution, "scale": 2.0}
    load_spec(spec_of(network={"choice": [{"name": name}, {"name": "mlp"}]}))


def test_an_installed_plugin_stays_where_it_is_and_must_be_the_same_everywhere(distribution: str, write: Write) -> None:
    normalised(NETWORKS, "straight")
    carried = luggage()
    assert ([plugin.module for plugin in carried.plugins], carried.modules) == (["theirs.nets"], ())
    with plugins_forgotten():
        orchestrator.plugins.admission._ADMITTED.clear()
        carried.unpack()
    write("site-packages/theirs/nets.py", NETWORK + "# another version")
    with plugins_forgotten():
        orchestrator.plugins.admission._ADMITTED.clear()
        with pytest.raises(UserError, match=r"plugin theirs\.nets: is not the same on every node; install the same"):
            carried.unpack()


def test_a_plugin_travels_with_a_job_from_wherever_it_lies(write: Write, tmp_path: Path) -> None:
    spec_file = write("project/tiny.yaml", json.dumps(spec_of(network="one:Line")))
    write("elsewhere/one.py", ALL)
    admit(["elsewhere/one.py"])
    files = dict(pack(tmp_path / "project", spec_file, modules=luggage().modules).files)
    assert files["one.py"] == tmp_path / "elsewhere/one.py"
    spec = load_spec(spec_file)
    order = ordered(spec, Path("tiny.yaml"), None, None, (), None, ["one"])
    assert order.entrypoint.endswith("run tiny.yaml --address auto --plugin one")
    write("project/one.py", "")
    with pytest.raises(UserError, match=r"project/one\.py: lies where the plugin .*elsewhere/one\.py would go"):
        pack(tmp_path / "project", spec_file, modules=luggage().modules)


def test_another_source_of_a_plugin_is_another_job(write: Write) -> None:
    found = set()
    for text in (ALL, ALL + "# edited"):
        with plugins_forgotten():
            write("one.py", text)
            admit(["one"])
            found.add(ordered(load_spec(spec_of(network="one:Line")), Path("a"), None, None, (), None).submission_id)
    assert len(found) == 2
