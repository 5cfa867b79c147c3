"""Tools that break things: a shim over file calls, forked children that may die, drivers run as programs."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


class Shim:
    """Sees every open for writing, sync and rename below a folder, and acts at the n-th.

    Attributes:
        seen: the calls so far: what, and on which path.
    """

    def __init__(self, root: Path, count: int, act: Callable[[], None]) -> None:
        self.root, self.count, self.act = str(root), count, act
        self.seen: list[tuple[str, str]] = []

    def install(self, *, removals: bool = False) -> None:
        """Start seeing; with `removals` also every file and folder that is deleted."""
        fsync, rename, replace, open_ = os.fsync, os.rename, os.replace, io.open

        def seen_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if isinstance(file, str | Path) and set(mode) & set("wax+"):
                self.note("open", str(file))
            return open_(file, mode, *rest, **more)

        def seen_fsync(descriptor: int) -> None:
            self.note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def seen_rename(source: Any, target: Any) -> None:
            self.note("rename", f"{source} -> {target}")
            rename(source, target)

        def seen_replace(source: Any, target: Any) -> None:
            self.note("rename", f"{source} -> {target}")
            replace(source, target)

        io.open, os.fsync, os.rename, os.replace = seen_open, seen_fsync, seen_rename, seen_replace  # type: ignore[assignment]
        if removals:
            os.unlink, os.rmdir = self._removal(os.unlink), self._removal(os.rmdir)  # type: ignore[assignment]

    def _removal(self, remove: Callable[..., None]) -> Callable[..., None]:
        def seen_removal(path: Any, *, dir_fd: int | None = None) -> None:
            folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}") + "/"
            self.note("remove", f"{folder}{path}")
            remove(path, dir_fd=dir_fd)

        return seen_removal

    def note(self, what: str, path: str) -> None:
        if self.root not in path:
            return
        self.seen.append((what, path.replace(self.root + "/", "")))
        if len(self.seen) == self.count:
            self.act()


def act_of(mode: str) -> Callable[[], None]:
    """What the shim does: ``kill`` this process, or fail the call with ``ENOSPC``, ``EIO``, ..."""

    def act() -> None:
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, mode)
        raise OSError(number, os.strerror(number))

    return act


def fork(function: Callable[[], object]) -> int:
    """Run in a forked child; its exit code, negative for a signal, 1 after an exception (printed)."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def program(file: str, *arguments: object, seconds: float = 280, expected: int = 0) -> str:
    """Run a test file as a program, a driver that forks with its libraries loaded; what it printed."""
    done = subprocess.run(
        [sys.executable, file, *map(str, arguments)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        timeout=seconds, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == expected, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def one_page(folder: Path, results: Any) -> None:
    """Data Docs of one file: thirty more like it would be thirty more crashes, and no other case."""
    folder.mkdir()
    (folder / "index.html").write_text("docs")


def quick_contracts() -> None:
    """In this process contracts pass unread and their docs are one file: both write nothing of their own."""
    import data_contracts.docs
    import tasks.stage

    data_contracts.docs.write_data_docs = one_page  # type: ignore[assignment]
    tasks.stage.check_table = lambda *_, **__: SimpleNamespace(passed=1)  # type: ignore[assignment]


def quick_keys() -> None:
    """In this process source digests are hashes of module names: reading sources is most of a cached run."""
    import tasks.identity
    from tasks.artifact import hash_json

    tasks.identity.closure_digest = lambda modules: hash_json(sorted(set(modules)))


def quick_syncs() -> None:
    """In this process syncs are counted and not done: what was written outlives a kill without them."""
    os.fsync = lambda descriptor: None


def load_libraries() -> None:
    """Import what a run imports, once, before the first fork."""
    for name in ("pandas", "dgl", "torch._dynamo", "gcl.methods.dmat_i", "gcl.trainer", "gcl.propagation",
                 "sklearn.linear_model", "tests.tiny_runs", "flows.wiring"):  # fmt: skip
        import_module(name)


def flip_bit(path: Path, position: int, bit: int) -> None:
    """Flip one bit of a file in place, whatever its mode."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(position)
        (value,) = file.read(1)
        file.seek(position)
        file.write(bytes([value ^ (1 << bit)]))
