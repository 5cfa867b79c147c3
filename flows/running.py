"""Running the pipeline from the command line: seeds, the Prefect server, progress bars, failures."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from flows.config import MAX_SEED, ConfigurationError, PipelineConfig, StageName
from flows.exit_codes import Interrupted, leave_failure
from flows.record import RunRecord
from flows.server import prefect_server
from tasks.progress import Progress, listening
from tasks.runs import SeriesName
from tasks.store import Store

_MAX_SEEDS = 1000


def parse_seeds(text: str | None, *, default: int) -> tuple[int, ...]:
    """Seeds from ``0..4`` or ``0,3,7``.

    Raises:
        ConfigurationError: anything else, more than a thousand, or one beyond what `seed` may be.
    """
    if text is None:
        return (default,)
    try:
        if ".." in text:
            low, high = (int(part) for part in text.split(".."))
            seeds = tuple(range(low, min(high, low + _MAX_SEEDS) + 1))
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) > MAX_SEED or len(seeds) > _MAX_SEEDS:
        raise ConfigurationError(
            f"--seeds takes 0..4 or 0,3,7 (at most {_MAX_SEEDS} seeds, each up to {MAX_SEED}); got {text!r}"
        )
    return seeds


def check_series(name: str | None) -> str | None:
    """The name, if a series may have it.

    Raises:
        ConfigurationError: it may not.
    """
    try:
        return None if name is None else TypeAdapter(SeriesName).validate_python(name)
    except ValidationError:
        raise ConfigurationError(
            f"--series takes a name of small letters, digits, - and _, at most 64; got {name!r:.80}"
        ) from None


def run_pipeline(
    config: PipelineConfig,
    *,
    seeds: Sequence[int],
    store: str,
    out: Path,
    refresh: tuple[StageName, ...] = (),
    until: StageName | None = None,
    preset: str | None = None,
    series: str | None = None,
) -> RunRecord:
    """Run the flow once a seed and write the results.

    Several seeds get a folder each, ``OUT/seed-N``; ``OUT/run.json`` then holds the means over them. A run of
    a series has one seed: a seed is compared with itself, night after night.

    Raises:
        whatever the flow raises, after ``OUT/failure.json`` was written.
    """
    if series is not None and len(seeds) > 1:
        raise ConfigurationError(
            f"--series takes one seed a run, got {len(seeds)}; give each seed a series of its own"
        )
    root = Store(store).root  # refuses an unusable store before anything is started
    check_writable(out)
    try:
        with orchestrated(root):
            from flows.outputs import write_record
            from flows.pipeline import pipeline

            records = []
            for seed in seeds:
                folder = out if len(seeds) == 1 else out / f"seed-{seed}"
                seeded = config.model_copy(update={"seed": seed})
                records.append(
                    pipeline(
                        seeded,
                        store=store,
                        out=str(folder),
                        refresh=refresh,
                        until=until,
                        preset=preset,
                        series=series,
                    )
                )
            if len(records) == 1:
                return records[0]
            record = merge_records(records)
            write_record(record, out)
            return record
    except BaseException as error:
        leave_failure(error, out)
        if isinstance(error, KeyboardInterrupt):  # which the command line's library would end without a word
            raise Interrupted(str(error)) from None
        raise


def check_writable(out: Path) -> None:
    """Refuse an output directory that cannot be written, before hours are spent on what goes there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise ConfigurationError(f"--out {out}: not writable")


def merge_records(records: Sequence[RunRecord]) -> RunRecord:
    """One record for runs that differ in their seed alone: metrics averaged, stages in a row."""
    from flows.record import over_seeds

    return records[0].model_copy(
        update={
            "seeds": tuple(seed for record in records for seed in record.seeds),
            "stages": [stage for record in records for stage in record.stages],
            "metrics": over_seeds([record.metrics for record in records]),
            "validation_metrics": over_seeds([record.validation_metrics for record in records]),
            "oracle_metrics": over_seeds([record.oracle_metrics for record in records]),
            "notes": list(dict.fromkeys(note for record in records for note in record.notes)),
        }
    )


@contextmanager
def orchestrated(root: Path) -> Iterator[None]:
    """What runs from the command line need around them: a server, signals as exceptions, progress bars.

    Args:
        root: the store's; a private server keeps its database there.
    """
    with _terminable(), prefect_server(root / ".server", meanwhile=_load_flows), _console(), _progress_bars():
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one, so that the private server is stopped on the way out.

    Whatever then ends the body is that interruption: a library caught in the middle may say something else.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    causes: list[str] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        causes.append("" if number == signal.SIGINT else f"signal {signal.Signals(number).name}")
        raise KeyboardInterrupt(causes[-1])

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception as error:
        if causes:
            raise KeyboardInterrupt(causes[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load_flows() -> None:
    """Import what takes seconds to import, Prefect with it; the server that starts has a core of its own."""
    _keep_log_off_terminal()
    import_module("flows.pipeline")


def _keep_log_off_terminal() -> None:
    """Prefect's log is the server's alone; before prefect is imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")


@contextmanager
def _console() -> Iterator[None]:
    _keep_log_off_terminal()
    try:
        yield
    finally:
        _send_logs()


def _send_logs() -> None:
    """Have Prefect send what it has logged while there is still a server to send it to."""
    import asyncio

    from prefect.logging.handlers import APILogHandler

    asyncio.run(APILogHandler.aflush())


@contextmanager
def _progress_bars() -> Iterator[None]:
    """A bar for every stage that reports progress, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in known or progress.done <= 1:
                known[progress.stage] = bars.add_task(progress.stage, total=progress.total, detail="")
            bars.update(known[progress.stage], completed=progress.done, detail=progress.detail)
            if progress.done >= progress.total:
                bars.remove_task(known.pop(progress.stage))

        with listening(show):
            yield
