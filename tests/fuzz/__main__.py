"""`python -m tests.fuzz NAME --seconds 600`: fuzz one reader, or all of them one after the other.

With atheris installed the inputs are guided by coverage, otherwise by outcomes (tests/fuzz/mutation.py). An
input that ends in an error which its target does not declare ends the program with 1 and is kept in
`--findings`; if the process itself dies, the input is the file `last` there.
"""

import argparse
import faulthandler
import hashlib
import importlib.util
import logging
import resource
import sys
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

MEMORY_BYTES = 1 << 30
_INSTRUMENTED = ["gcl", "flows", "tasks", "data_contracts", "numpy.lib", "zipfile", "pickletools"]


def main() -> int:
    """Parse the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", help="a target of tests/fuzz/targets.py, or all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument(
        "--engine", choices=["atheris", "mutation"], help="default: atheris where it is installed"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument(
        "--findings", type=Path, default=Path("out/fuzz"), help="where inputs that fail are kept"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    engine = arguments.engine or ("atheris" if importlib.util.find_spec("atheris") else "mutation")
    if engine == "atheris" and arguments.name == "all":
        parser.error("atheris fuzzes one target a process")
    with _instrumentation(engine):  # of all that is imported from here on, so nothing of ours may be before
        from tests.fuzz.targets import TARGETS
    if arguments.name not in (*TARGETS, "all"):
        parser.error(f"no target {arguments.name!r}; there are: {', '.join(TARGETS)}")
    if engine == "atheris":
        _fuzz_with_atheris(arguments.name, arguments.seconds, arguments.seed, arguments.findings)
    names = list(TARGETS) if arguments.name == "all" else [arguments.name]
    failed = [
        name for name in names if not _fuzz(name, arguments.seconds, arguments.seed, arguments.findings)
    ]
    return 1 if failed else 0


def _instrumentation(engine: str) -> AbstractContextManager[object]:
    if engine != "atheris":
        return nullcontext()
    import atheris

    instrumented: AbstractContextManager[object] = atheris.instrument_imports(include=_INSTRUMENTED)
    return instrumented


def _fuzz(name: str, seconds: float, seed: int, findings: Path) -> bool:
    """Whether a target took everything; the input it did not take is kept."""
    from tests.fuzz.mutation import INPUT_SECONDS, inputs
    from tests.fuzz.targets import TARGETS, seeds

    target, count, outcomes = TARGETS[name], 0, set()
    for data in seeds(name):  # imports what the target needs before memory is limited
        target(data)
    _limit_memory()
    # A loop in C code never returns to Python's signal handler: then the process ends with a traceback.
    faulthandler.dump_traceback_later(seconds + 20 * INPUT_SECONDS, exit=True)
    last = findings / name / "last"
    last.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        for _, outcome in inputs(name, target, seed=seed, seconds=seconds, before=last.write_bytes):
            count += 1
            outcomes.add(outcome)
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        kept = last.rename(last.with_name(f"{type(error).__name__}-{_digest(last.read_bytes())}"))
        sys.stdout.write(f"{name}: {type(error).__name__}: {str(error)[:300]}\n  input kept at {kept}\n")
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()
    last.unlink()
    rate = count / max(time.monotonic() - started, 1e-9)
    sys.stdout.write(f"{name}: {count} inputs ({rate:.0f}/s), {len(outcomes)} outcomes, nothing found\n")
    sys.stdout.flush()
    return True


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _limit_memory() -> None:
    """Half again beyond what is there now for the data of this process: a bomb becomes a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_BYTES, hard))


def _fuzz_with_atheris(name: str, seconds: float, seed: int, findings: Path) -> None:
    import atheris

    with _instrumentation("atheris"):  # what targets import when they are called
        from tests.fuzz.mutation import INPUT_SECONDS, MAX_BYTES
        from tests.fuzz.targets import TARGETS, seeds

        for data in seeds(name):
            TARGETS[name](data)
    corpus = findings / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds(name):
        (corpus / _digest(data)).write_bytes(data)
    options = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", f"-max_len={MAX_BYTES}",
               f"-timeout={int(INPUT_SECONDS)}", f"-rss_limit_mb={2 * MEMORY_BYTES >> 20}",
               f"-artifact_prefix={findings}/{name}-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: TARGETS[name](data) and None)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    sys.exit(main())
