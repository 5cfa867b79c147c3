"""The house rules, read from the syntax trees: who imports whom, what nobody calls, how long files are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.config import preset_names, read_preset, validate_config

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "gcl", "data_contracts")
ALLOWED = {
    "flows": {"flows", "tasks", "gcl", "data_contracts"},
    "tasks": {"tasks", "gcl", "data_contracts"},
    "gcl": {"gcl"},
    "data_contracts": {"data_contracts"},
}
ONLY_IN = {
    "prefect": ("flows/", "tasks/"),
    "dask": ("tasks/",),
    "distributed": ("tasks/",),
    "great_expectations": ("data_contracts/",),
    "dgl": ("gcl/dgl_kernels.py", "gcl/interop.py", "gcl/interop_hetero.py"),
    "typer": ("flows/",),
    "pickle": ("gcl/readers/safe_pickle.py",),
}
NOWHERE = {"dill", "cloudpickle", "joblib", "shelve", "marshal", "prefect_dask"}
MAX_LINES = 400
SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request: pytest.FixtureRequest) -> tuple[str, ast.Module]:
    path: Path = request.param
    return name_of(path), ast.parse(path.read_bytes())


def test_imports_run_downward(source: tuple[str, ast.Module]) -> None:
    name, tree = source
    ours = {module.partition(".")[0] for module in imports(tree)} & set(PACKAGES)
    assert ours <= ALLOWED[name.partition("/")[0]]


def test_libraries_stay_in_their_layer(source: tuple[str, ast.Module]) -> None:
    name, tree = source
    libraries = {module.partition(".")[0] for module in imports(tree)}
    misplaced = {lib for lib, places in ONLY_IN.items() if lib in libraries and not name.startswith(places)}
    assert not misplaced
    assert not libraries & NOWHERE


def test_heavy_libraries_are_imported_lazily_by_configurations_and_the_command_line() -> None:
    import subprocess
    import sys

    code = (
        "import flows.cli, flows.config, sys;"
        "print([m for m in ('torch', 'dgl', 'great_expectations', 'sklearn', 'matplotlib', 'prefect', 'dask')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"


def test_nothing_is_unpickled_printed_or_seeded_globally(source: tuple[str, ast.Module]) -> None:
    name, tree = source
    for call in calls(tree):
        text = ast.unparse(call.func)
        assert text not in ("torch.load", "torch.save", "torch.manual_seed", "np.random.seed", "random.seed")
        assert text not in ("eval", "exec", "print", "__import__")
        for keyword in call.keywords:
            allows = keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
            assert not allows or name == "gcl/readers/safe_pickle.py", f"line {call.lineno}"
        loads_array = text in ("np.load", "numpy.load")
        assert not loads_array or any(k.arg == "allow_pickle" for k in call.keywords), f"line {call.lineno}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.name not in ("utils.py", "helpers.py", "common.py")


def test_sources_are_short_on_the_whole() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES)
    assert lengths[len(lengths) // 2] <= 150


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in TESTS if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", preset_names())
def test_presets_validate_and_say_where_their_numbers_come_from(name: str) -> None:
    preset = read_preset(name)
    assert set(preset["about"]) >= {"description", "source"}
    config = preset["config"]
    if config["dataset"]["format"] not in ("digits_knn", "synthetic"):
        assert "path" not in config["dataset"], "where the files lie is the user's to say"
        config["dataset"]["path"] = "somewhere"
    validate_config(config)


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_no_path_of_a_developers_machine(path: Path) -> None:
    forbidden = ("/" + "work" + "/", "/" + "home" + "/", "/" + "root" + "/")
    if name_of(path).startswith(("tests/security", "tests/unit/gcl", "tests/malformed")):
        return  # made-up hostile paths
    assert not any(word in path.read_text() for word in forbidden)
