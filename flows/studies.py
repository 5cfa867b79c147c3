"""Experiments as a Prefect flow: every cell is a run of the pipeline, a subflow whose stages are cached.

A study that is stopped loses nothing: the cells that are finished are in the store, and the same command
goes on from there.
"""

import ctypes
import gc
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows.config import PipelineConfig
from flows.exit_codes import describe
from flows.orphan import ends_with_worker
from flows.outputs import replace_file
from flows.pipeline import pipeline
from flows.record import machine, versions
from flows.study_config import Cell, Study, cell_configs, read_study, study_cells
from flows.study_plots import study_plots
from flows.study_record import (
    CellRecord,
    StudyCall,
    StudyRecord,
    failed_cell,
    finished_cell,
    write_study,
)
from flows.study_summary import slopes, summarise
from flows.study_tables import study_markdown
from tasks.progress import Progress, report
from tasks.store import Store

logger = logging.getLogger(__name__)


class CellsFailed(Exception):
    """Some cells of a study failed; everything else is finished and written.

    Attributes:
        record: the study's.
    """

    def __init__(self, message: str, record: StudyRecord) -> None:
        super().__init__(message)
        self.record = record


def _run_name() -> str:
    """The study, as its runs are listed in the UI."""
    return f"study-{Path(str(flow_run.parameters.get('name', ''))).stem}"


@flow(name="study", flow_run_name=_run_name, persist_result=False)
@ends_with_worker()
def study(
    name: str,
    data: str | None = None,
    store: str = ".store",
    out: str = "out/study",
    seeds: str | None = None,
    only: tuple[str, ...] = (),
    large: bool = False,
    settings: tuple[str, ...] = (),
) -> StudyRecord:
    """Run the cells of a study, one after another, and compare them.

    Args:
        name: of a study that comes with gclflow, or a TOML file.
        data: folder below which the data sets lie.
        store: directory of the artifacts; what it has is not computed again.
        out: directory for ``study.json``, ``table.md`` and the plots.
        seeds: ``0..9`` or ``0,3,7`` instead of the study's.
        only: ``VARIANT`` or ``VARIANT/DATASET`` patterns; none takes all.
        large: with the cells that are marked large.
        settings: KEY=VALUE applied last, to every cell.

    Raises:
        ConfigurationError: before anything is run, when a cell's configuration does not fit.
        CellsFailed: at the end, when a cell failed; the others are finished and written.
    """
    chosen = read_study(name)
    cells = study_cells(chosen, seeds=seeds, only=only, large=large, settings=settings)
    configs = cell_configs(cells, Path(data) if data is not None else None)
    call = StudyCall(
        seeds=seeds, only=tuple(only), large=large, has_data=data is not None, settings=tuple(settings)
    )
    record = _run_cells(chosen, cells, configs, store=Store(store), out=Path(out), call=call)
    _show(record)
    if record.failed:
        first = record.failed[0]
        raise CellsFailed(
            f"{len(record.failed)} of {len(cells)} cells failed; the first, {first.dataset}, "
            f"{first.variant}, seed {first.seed}: {first.reason}",
            record,
        )
    return record


def _run_cells(
    chosen: Study,
    cells: Sequence[Cell],
    configs: Sequence[PipelineConfig],
    *,
    store: Store,
    out: Path,
    call: StudyCall,
) -> StudyRecord:
    """Run what is not in the store yet; the record is written anew after each cell."""
    record = StudyRecord(
        study=chosen,
        call=call,
        seeds=tuple(dict.fromkeys(cell.seed for cell in cells)),
        num_planned=len(cells),
        settings=call.settings,
        versions=versions(),
        machine=machine(),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "failure.json").unlink(missing_ok=True)
    for number, (cell, config) in enumerate(zip(cells, configs, strict=True)):
        report(Progress("study", number, len(cells), cell.label))
        record = record.model_copy(update={"cells": [*record.cells, _run_cell(cell, config, chosen, store)]})
        write_study(record, out)
    report(Progress("study", len(cells), len(cells)))
    rows = summarise(chosen, record.cells)
    record = record.model_copy(update={"summary": rows, "slopes": slopes(chosen, rows)})
    write_study(record, out)
    replace_file(out / "table.md", study_markdown(record).encode())
    for plot in study_plots(record):
        replace_file(out / f"{plot.name}.png", plot.png)
    return record


def _run_cell(cell: Cell, config: PipelineConfig, chosen: Study, store: Store) -> CellRecord:
    """Run one cell; what goes wrong in it is its own matter, a signal is everybody's."""
    _release_memory()
    preset = None if cell.preset == "none" else cell.preset
    try:
        run = pipeline(config, store=store.address, until=chosen.until, preset=preset)
        return finished_cell(cell, run, store)
    except Exception as error:
        logger.exception("cell %s failed", cell.label)
        return failed_cell(cell, describe(error))


def _show(record: StudyRecord) -> None:
    """The tables in the UI; a server that does not take them must not fail a study whose results are safe."""
    key = re.sub(r"[^a-z0-9]+", "-", f"study-{record.study.name.lower()}").strip("-")
    try:
        create_markdown_artifact(key=key, markdown=study_markdown(record), description=record.study.title)
    except Exception:
        logger.exception("the study's Prefect artifact could not be written")


def _release_memory() -> None:
    """Give what earlier cells have left back to the system, so that it is not counted as the next one's."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
