"""The source a stage depends on: its import closure over tasks, gcl and data_contracts, as a digest.

Prefect's own policies see a task's own lines only; a change in a function that it calls would go
unnoticed. Imports are read from the syntax tree, so lazy imports inside functions count too.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

PACKAGES = ("tasks", "gcl", "data_contracts")
_PARSE_ATTEMPTS = 10


def closure_digest(modules: Iterable[str]) -> str:
    """sha256 over the source files that `modules` reach by imports inside our packages.

    Args:
        modules: dotted names to start from.
    """
    digest = hashlib.sha256()
    for name, (_, source) in sorted(_sources(modules).items()):
        digest.update(f"{name}\0{hashlib.sha256(source).hexdigest()}\n".encode())
    return digest.hexdigest()


def import_closure(modules: Iterable[str]) -> dict[str, Path]:
    """Dotted name to source file of every module of our packages that `modules` reach."""
    return {name: path for name, (path, _) in _sources(modules).items()}


def _sources(modules: Iterable[str]) -> dict[str, tuple[Path, bytes]]:
    """Dotted name to file and content, each read once: imports and digest are of one state."""
    reached: dict[str, tuple[Path, bytes]] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in reached or name.partition(".")[0] not in PACKAGES:
            continue
        path = _source(name)
        if path is None:  # an attribute of a module, not a module
            continue
        source = path.read_bytes()
        reached[name] = (path, source)
        # A submodule is not the packages above it, but importing it runs their __init__.
        pending.extend(name.rsplit(".", level)[0] for level in range(1, name.count(".") + 1))
        pending.extend(_imports(source, name if path.name == "__init__.py" else name.rpartition(".")[0]))
    return reached


def _source(name: str) -> Path | None:
    """The file of a module, found without importing anything but the package it lies in."""
    top, *inner = name.split(".")
    path = _package_folder(top).joinpath(*inner)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent


@lru_cache(maxsize=1024)  # a run asks for every stage, and nearly all stages share most of their files
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Dotted names that a module of `package` may import: modules, and attributes of modules."""
    names: list[str] = []
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module
            )
            if base:
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _parsed(source: bytes) -> ast.AST:
    """The syntax tree; asked for again where another thread was parsing at the same moment.

    CPython 3.11 counts the depth of trees for all threads together, and calls it a SystemError where their
    counts mix.
    """
    for _ in range(_PARSE_ATTEMPTS - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
