"""Where a store may be, and that a secret in its URI goes no further: not into files, not into messages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.errors import SpecError, UserError
from orchestrator.rundir import run_root
from orchestrator.spec import Spec, load_spec
from orchestrator.storage.files import open_files
from orchestrator.storage.store_place import below, what_is_wrong

SWEEP = Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"
SECRETS = [  # each holds "hunter" where a secret would be
    "s3://key:hunter2@bucket/results",
    "s3://hunter2@bucket/results",
    "s3://key:hunter%32@bucket/results",
    "s3://a@hunter2@bucket/results",
    "gs://key:hunter2@bucket/results",
    "s3://bucket/results?access_key=hunter2",
    "s3://bucket/results?region=eu-west-1&secret_key=hunter2",
    "s3://bucket/results?hunter2",
    "s3://bucket/results?hunter2/hunter3+hunter4==",
    "s3://bucket/results?session_token=hunter2&endpoint_override=127.0.0.1:9000",
    "s3://bucket/results?X-Amz-Credential=hunter2&X-Amz-Signature=hunter3",
    "s3://bucket/results?endpoint_override=key:hunter2@127.0.0.1:9000",
    "s3://bucket/results?endpoint_override=http%3A%2F%2Fkey%3Ahunter2%40host",
    "s3://bucket/results#hunter2",
    "https://key:hunter2@host/results?token=hunter2",
]


def spec() -> Spec:
    return load_spec(SWEEP)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["robustsweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_in_a_store_is_refused_without_being_repeated(place: str) -> None:
    for refuse in (open_files, lambda place: run_root(spec(), place)):
        with pytest.raises(UserError, match="store: must") as refused:
            refuse(place)
        assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_in_a_spec_is_refused_with_its_line_and_without_being_repeated(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SWEEP.read_text().replace("store: results", f"store: '{place}'"))
    with pytest.raises(SpecError, match=r"a\.yaml:18 store: must") as refused:
        load_spec(path)
    assert "hunter" not in str(refused.value)
    with pytest.raises(SpecError, match="store: must") as refused:
        load_spec(SWEEP, [f"store={place!r}"])
    assert "hunter" not in str(refused.value)


def test_a_misspelt_key_or_a_broken_line_does_not_show_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for wrong in (
        "stroe: s3://key:hunter2@bucket/x",
        "store: 's3://key:hunter2@bucket/x",
        "store: [s3://k:hunter2@b/x]",
    ):
        path.write_text(SWEEP.read_text().replace("store: results", wrong))
        with pytest.raises(SpecError, match=r"a\.yaml:1[89]") as refused:
            load_spec(path)
        assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("place", SECRETS[:6:5])
def test_a_run_with_a_secret_in_its_store_ends_with_2_and_writes_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "run", SWEEP, "--store", place) == 2
    said = "".join(capsys.readouterr())
    assert "credentials belong in the environment" in said
    assert "hunter" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("https://host/results", "must be a path or one of s3://BUCKET/..., gs://BUCKET/..., got 'https'"),
        ("file:///results", "got 'file'"),
        ("s3:///results", "must name a bucket"),
        ("s3://ab/results", "must name a bucket"),
        ("s3://BUCKET/results", "must name a bucket"),
        ("s3://bucket/../other", "must be a path of letters"),
        ("s3://bucket//results", "must be a path of letters"),
        ("s3://bucket/a b", "must be a path of letters"),
        ("s3://bucket/%2e%2e/x", "must be a path of letters"),
        ("s3://bucket/.hidden", "must be a path of letters"),
        ("s3://bucket/x?allow_bucket_creation=true", "other settings than endpoint_override, region, scheme"),
        ("gs://bucket/x?region=eu", "other settings than endpoint_override, scheme, project_id, got 'region'"),
    ],
)
def test_what_is_no_store_is_refused_with_what_would_be(place: str, why: str) -> None:
    assert why in (what_is_wrong(place) or "")


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket",
        "s3://my.bucket-1/a/b_c=1/",
        "s3://bucket/x?region=eu-central-1",
        "s3://bucket/x?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
        "s3://bucket/x?endpoint_override=https%3A%2F%2Fminio.example%3A9000",
        "gs://bucket/x",
        "gs://anonymous@bucket/x?endpoint_override=127.0.0.1:9000&scheme=http",
    ],
)
def test_a_plain_uri_is_a_store(place: str) -> None:
    assert what_is_wrong(place) is None
    assert load_spec(SWEEP, [f"store={place!r}"]).store == place


@pytest.mark.parametrize("place", [Path("s3://bucket/results"), "gs:/bucket/results", "s3:bucket"])
def test_a_uri_that_lost_a_slash_is_not_taken_for_a_directory(place: str | Path) -> None:
    for refuse in (open_files, lambda place: run_root(spec(), place)):
        with pytest.raises(UserError, match="with two slashes"):
            refuse(place)


def test_a_run_lies_below_its_store_and_the_query_stays_at_the_end() -> None:
    assert run_root(spec(), "s3://bucket/a/?region=eu") == "s3://bucket/a/quickstart?region=eu"
    assert run_root(spec(), "gs://bucket") == "gs://bucket/quickstart"
    assert below("s3://bucket/a", "b") == "s3://bucket/a/b"
    assert Path(run_root(spec(), "results")) == Path("results/quickstart").absolute()
    assert Path(run_root(spec(), Path("~/x"))) == Path.home() / "x" / "quickstart"
    assert Path(run_root(spec(), None)) == Path("results/quickstart").absolute()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", ".x", "a\\b", "s3://b", "a?b", "a#b", "a b", "a\n"])
def test_a_name_that_leaves_the_store_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="name: must be"):
        load_spec(SWEEP, [f"name={name!r}"])
