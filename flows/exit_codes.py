"""Exit codes: what went wrong, by the error's type; 0 is success.

2: wrong usage or configuration. 3: a data contract was violated. 4: a source could not be read.
5: a stage failed, or a contract could not be evaluated. 6: a run of a series regressed; its results are kept.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import ContractNotEvaluated, ContractViolation
from flows.config import ConfigurationError
from flows.server import ServerNotStarted
from gcl.errors import InvalidGraph, SourceUnreadable, UnsuitableSetting
from tasks.errors import StoreUnusable, UnknownArtifact
from tasks.regression import RunRegressed

logger = logging.getLogger(__name__)

USAGE, CONTRACT, SOURCE, FAILED, REGRESSED, INTERRUPTED = 2, 3, 4, 5, 6, 130


# What a user can do about a broken rule, where the rule alone does not say.
_HINTS = {
    "shift_within_bounds": "the model no longer fits these data: train again, or set a wider bound",
    "not_collapsed": "all nodes lie on one line: for columns of unlike units set smooth.standardise=true",
    "weights_equal_in_both_directions": "keep such a graph directed with dataset.one_way=keep",
}


class Interrupted(Exception):
    """A run was stopped by a signal; what it had finished is in the store."""


_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigurationError, USAGE),
    (UnsuitableSetting, USAGE),
    (StoreUnusable, USAGE),
    (UnknownArtifact, USAGE),
    (ContractViolation, CONTRACT),
    (InvalidGraph, CONTRACT),
    (SourceUnreadable, SOURCE),
    (ContractNotEvaluated, FAILED),
    (ServerNotStarted, FAILED),
    (RunRegressed, REGRESSED),
    (Interrupted, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
)


def exit_code(error: BaseException) -> int:
    """The exit code an error ends the program with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def describe(error: BaseException) -> str:
    """What to tell the user: one line, or one line a field or rule; never a traceback."""
    text = (
        " ".join(str(error).split("\n"))
        if not isinstance(error, ConfigurationError | ServerNotStarted)
        else str(error)
    )
    text = "".join(ch if ch.isprintable() or ch == "\n" else repr(ch)[1:-1] for ch in text)
    if isinstance(error, ContractViolation | InvalidGraph):
        hints = [hint for rule, hint in _HINTS.items() if rule in text]
        return f"contract violated: {text}" + "".join(f"; {hint}" for hint in hints)
    if isinstance(error, SourceUnreadable):
        return f"source unreadable: {text}"
    if isinstance(error, ConfigurationError | UnsuitableSetting):
        return f"configuration: {text}"
    if isinstance(error, KeyboardInterrupt | Interrupted):
        cause = f" by {text}" if text else ""
        return f"interrupted{cause}; the same command goes on from where this run stopped"
    # Our own errors say what is wrong in their own words; of others, the kind is half of the message.
    is_ours = type(error).__module__.partition(".")[0] in ("flows", "tasks", "gcl", "data_contracts")
    return text if is_ours else f"{type(error).__name__}: {text}".removesuffix(": ")


def write_failure(error: BaseException, folder: Path) -> None:
    """Leave ``failure.json`` beside where ``run.json`` would have been, for programs."""
    known = (ContractViolation, ContractNotEvaluated, RunRegressed)
    details = error.as_dict() if isinstance(error, known) else {}
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "exit_code": exit_code(error),
        "error": type(error).__name__,
        "message": describe(error),
        **details,
    }
    (folder / "failure.json").write_text(json.dumps(document, indent=1, default=str) + "\n")


def leave_failure(error: BaseException, out: Path, *, instead_of: Sequence[str] = ("run.json",)) -> None:
    """Have a folder of results say that the last run into it has failed; what an earlier one left goes.

    What a run that regressed has left stays: its results are sound, and no worse than ``failure.json`` says.

    Args:
        error: what the run ended with.
        out: the folder; made if it is not there.
        instead_of: names of the files that would pass for the results of the run that failed.
    """
    if not isinstance(error, RunRegressed):
        for name in instead_of:
            (out / name).unlink(missing_ok=True)
    write_failure(error, out)


@contextmanager
def failures_left_in(out: str | None, *, instead_of: Sequence[str] = ("run.json",)) -> Iterator[None]:
    """`leave_failure` if the body fails: nobody reads a schedule's log every day. None leaves nothing."""
    try:
        yield
    except BaseException as error:
        try:
            if out is not None:
                leave_failure(error, Path(out), instead_of=instead_of)
        except OSError:
            logger.exception("%s cannot be told that the run has failed", out)
        raise
