"""Running a study from the command line: server, progress bars, what is left behind when it fails."""

from collections.abc import Sequence
from pathlib import Path

from flows.config import ConfigurationError
from flows.exit_codes import Interrupted, write_failure
from flows.running import check_writable, orchestrated
from flows.study_config import cell_configs, read_study, study_cells
from flows.study_record import StudyRecord
from tasks.store import Store


def run_study(
    name: str,
    *,
    store: str,
    out: Path,
    data: Path | None = None,
    seeds: str | None = None,
    only: Sequence[str] = (),
    large: bool = False,
    settings: Sequence[str] = (),
) -> StudyRecord:
    """Run a study; see `flows.studies.study` for the arguments.

    Returns:
        The record; cells that failed are in it.

    Raises:
        ConfigurationError: the study, its selection or the data folder, before anything is started.
        Interrupted: stopped by a signal; the same command goes on.
    """
    chosen = read_study(name)
    cells = study_cells(chosen, seeds=seeds, only=only, large=large, settings=settings)
    if data is not None and not data.is_dir():
        raise ConfigurationError(f"--data {data}: there is no such folder")
    cell_configs(cells, data)
    root = Store(store).root  # refuses an unusable store before anything is started
    check_writable(out)
    try:
        with orchestrated(root):
            from flows.studies import CellsFailed, study

            try:
                return study(
                    name,
                    data=None if data is None else str(data),
                    store=store,
                    out=str(out),
                    seeds=seeds,
                    only=tuple(only),
                    large=large,
                    settings=tuple(settings),
                )
            except CellsFailed as failed:
                return failed.record
    except BaseException as error:
        write_failure(error, out)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(str(error)) from None
        raise
