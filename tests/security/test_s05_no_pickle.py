"""S5: nothing in the source can load code: no unpickler, no torch.load, no eval; by the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "gcl", "data_contracts")
SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "dbm",
    "copyreg", "xmlrpc", "runpy", "code", "codeop", "imp",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter", "ssl._create_unverified_context",
}  # fmt: skip
METHODS = {"read_pickle", "to_pickle", "Unpickler", "load_pickle_module", "weights_only"}


def findings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            is_plain = isinstance(node, ast.Import)
            modules = [alias.name for alias in node.names] if is_plain else [str(node.module)]
            yield from (f"{node.lineno}: imports {m}" for m in modules if m.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f"{node.lineno}: {node.attr}"


def _in_call(call: ast.Call) -> Iterator[str]:
    called = ast.unparse(call.func)
    if called in CALLS:
        yield f"{call.lineno}: calls {called}"
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if options.get("allow_pickle", "False") != "False":
        yield f"{call.lineno}: allow_pickle={options['allow_pickle']}"
    if called in ("np.load", "numpy.load", "np.lib.npyio.NpzFile") and "allow_pickle" not in options:
        yield f"{call.lineno}: {called} without allow_pickle=False"
    if options.get("shell", "False") != "False" or options.get("weights_only", "True") != "True":
        yield f"{call.lineno}: {called} with shell or without weights_only"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_nothing_in_the_source_loads_code(path: Path) -> None:
    assert list(findings(ast.parse(path.read_bytes()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import os, cloudpickle as c", "from joblib import load",
        "import marshal", "import shelve", "torch.load(p)", "x = np.load(p)", "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)", "eval('1')", "subprocess.run(c, shell=True)", "frame.to_pickle(p)",
        "pd.read_pickle(p)", "read(p, weights_only=False)", "yaml.load(text, Loader=L)", "os.system(c)",
    ],
)  # fmt: skip
def test_the_check_notices(code: str) -> None:
    assert list(findings(ast.parse(code)))


def test_the_restricted_reader_is_the_only_one_that_knows_the_format() -> None:
    knowing = [path for path in SOURCES if "pickletools" in path.read_text("utf-8")]
    assert knowing == [REPOSITORY / "gcl/readers/safe_pickle.py"]
