"""The import closure: what a stage's code reaches, lazily or not, and whose digest an edit changes."""

import ast
import hashlib
from pathlib import Path

import pytest

from tasks import closure
from tasks.closure import closure_digest, import_closure
from tasks.train import TrainStageConfig, code_of
from tests.tiny_runs import tiny

STAGE_MODULES = [
    f"tasks.{name}" for name in ("ingest", "smooth", "train", "uncertainty", "cluster", "evaluate", "report")
]
MADE_UP = {
    "tasks/__init__.py": "",
    "tasks/stage.py": "def f():\n    from gcl.deep import lazy\n",
    "tasks/other.py": "import gcl.apart\n",
    "gcl/__init__.py": "",
    "gcl/deep/__init__.py": "from gcl.deep.inner import x\n",
    "gcl/deep/lazy.py": "import numpy, gcl.deep.inner as inner\n",
    "gcl/deep/inner.py": "from gcl import apart_not\nx = 1\n",
    "gcl/apart.py": "",
    "gcl/apart_not.py": "",
    "data_contracts/__init__.py": "",
}


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of our names in a temporary folder."""
    for name, source in MADE_UP.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(closure, "_package_folder", lambda package: tmp_path / package)
    return tmp_path


def test_lazy_imports_packages_and_submodules_are_reached(made_up: Path) -> None:
    assert set(import_closure(["tasks.stage"])) == {
        "tasks", "tasks.stage", "gcl", "gcl.deep", "gcl.deep.lazy", "gcl.deep.inner", "gcl.apart_not"
    }  # fmt: skip
    assert set(import_closure(["tasks.other"])) == {"tasks", "tasks.other", "gcl", "gcl.apart"}


@pytest.mark.parametrize("edited", [name for name in MADE_UP if name.endswith(".py")])
def test_an_edit_changes_exactly_the_digests_that_reach_the_file(made_up: Path, edited: str) -> None:
    starts = ["tasks.stage", "tasks.other", "gcl.deep.inner"]
    before = {start: closure_digest([start]) for start in starts}
    reaching = {start for start in starts if made_up / edited in import_closure([start]).values()}
    (made_up / edited).write_text(MADE_UP[edited] + "# edited\n")
    assert {start for start in starts if closure_digest([start]) != before[start]} == reaching


def test_a_new_import_joins_the_closure(made_up: Path) -> None:
    before = closure_digest(["tasks.other"])
    (made_up / "gcl" / "apart.py").write_text("import gcl.deep\n")
    assert "gcl.deep.inner" in import_closure(["tasks.other"])
    assert closure_digest(["tasks.other"]) != before


def test_relative_imports_are_resolved(made_up: Path) -> None:
    (made_up / "gcl" / "apart.py").write_text("from .deep import lazy\nfrom . import apart_not\n")
    assert {"gcl.deep.lazy", "gcl.apart_not"} <= set(import_closure(["gcl.apart"]))


def test_the_order_of_the_starts_does_not_matter() -> None:
    assert closure_digest(STAGE_MODULES) == closure_digest(reversed(STAGE_MODULES))


@pytest.mark.parametrize(
    ("module", "reaches", "not_reached"),
    [
        ("tasks.ingest", "gcl.readers.planetoid", "gcl.clustering.kmeans"),
        ("tasks.smooth", "gcl.propagation", "gcl.trainer"),
        ("tasks.smooth", "tasks.dask_pool", "gcl.readers.planetoid"),
        ("tasks.train", "gcl.trainer", "gcl.evaluation.probe"),
        ("tasks.cluster", "gcl.clustering.leiden", "gcl.trainer"),
        ("tasks.evaluate", "gcl.evaluation.conformal", "gcl.trainer"),
        ("tasks.report", "gcl.plots", "gcl.trainer"),
        ("tasks.uncertainty", "gcl.checkpoint", "gcl.evaluation.probe"),
    ],
)
def test_stages_reach_their_science_and_not_that_of_others(
    module: str, reaches: str, not_reached: str
) -> None:
    reached = import_closure([module])
    assert reaches in reached
    assert not_reached not in reached
    assert "data_contracts.suites" in reached
    assert not any(name.startswith("flows") for name in reached)


def test_a_method_is_reached_only_where_it_is_chosen() -> None:
    config = TrainStageConfig(method=tiny().method, train=tiny().train)
    reached = import_closure(["tasks.train", *code_of(config)])
    assert "gcl.methods.dmat_i" in reached
    assert "gcl.methods.dmt" not in reached


def test_every_file_of_the_closure_counts() -> None:
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(["tasks.cluster"]).items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    assert digest.hexdigest() == closure_digest(["tasks.cluster"])


def test_a_thread_that_parses_at_the_same_moment_does_not_end_the_run(monkeypatch):
    parse, calls = ast.parse, []

    def mixed_up(source):
        calls.append(source)
        if len(calls) % 3:
            raise SystemError("AST constructor recursion depth mismatch (before=90, after=78)")
        return parse(source)

    expected = import_closure(["tasks.artifact"])
    monkeypatch.setattr("tasks.closure.ast.parse", mixed_up)
    closure._imports.cache_clear()
    assert import_closure(["tasks.artifact"]) == expected
    assert len(calls) == 3 * len(expected)


def test_a_file_is_parsed_again_only_where_it_has_changed(made_up: Path, monkeypatch):
    parsed = []
    monkeypatch.setattr(closure, "_parsed", lambda source: parsed.append(source) or ast.parse(source))
    starts = ["tasks.stage", "tasks.other", "gcl.apart"]
    closure_digest(starts)
    parsed.clear()
    closure_digest(starts)
    assert not parsed
    edited = "import gcl.deep\n"
    (made_up / "gcl" / "apart.py").write_text(edited)
    assert "gcl.deep" in import_closure(["gcl.apart"])
    assert parsed == [edited.encode()]


def test_a_parser_that_never_works_is_told(monkeypatch):
    def broken(source):
        raise SystemError("no")

    monkeypatch.setattr("tasks.closure.ast.parse", broken)
    closure._imports.cache_clear()
    with pytest.raises(SystemError):
        import_closure(["tasks.artifact"])
