"""``study.json``: every cell of a study with its figures, and what they come to."""

import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flows.record import Metric, RunRecord
from flows.study_config import AxisValue, Cell, Study
from tasks.convert import read_rows
from tasks.store import Store


class CellRecord(BaseModel):
    """One run of a study.

    Attributes:
        state: ``finished``, or ``failed`` with the reason; a cell that has not run yet is not recorded.
        overrides: its settings as after ``--set``, without the path of the data.
        oracle_metrics: what the labels would have chosen; never a result.
        history: last value of each term of training.
        seconds: by stage, of the run that computed it; cached stages keep theirs. ``epoch``: the median.
        peak_rss_bytes: by stage, likewise.
        num_rows: rows of the tables, by ``kind.table``.
        num_cached: stages that were in the store already.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    variant: str
    point: dict[str, AxisValue]
    seed: int
    state: Literal["finished", "failed"]
    reason: str | None = None
    preset: str
    overrides: tuple[str, ...]
    device: str | None = None
    metrics: list[Metric] = []
    validation_metrics: list[Metric] = []
    oracle_metrics: list[Metric] = []
    history: dict[str, float | None] = {}
    seconds: dict[str, float] = {}
    peak_rss_bytes: dict[str, int] = {}
    num_rows: dict[str, int] = {}
    num_cached: int = 0
    notes: list[str] = []


class Difference(BaseModel):
    """A variant minus the reference, seed by seed; seeds that either lacks are left out.

    Attributes:
        mean: of the differences.
        std: sample standard deviation; None for fewer than two seeds.
        n: seeds.
        num_above: seeds in which the variant is above.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float | None
    n: int
    num_above: int


class SummaryRow(BaseModel):
    """One figure of one variant at one point, over seeds.

    Attributes:
        std: sample standard deviation over seeds; None for fewer than two.
        n: seeds with a value.
        values: by seed.
        validation_mean, validation_std: the same figure on validation nodes, where there is one.
        controls: means of the untrained controls of the same cells.
        difference: to the reference; None for the reference itself.
    """

    model_config = ConfigDict(frozen=True)

    figure: str
    dataset: str
    variant: str
    point: dict[str, AxisValue]
    mean: float
    std: float | None
    n: int
    values: dict[int, float]
    validation_mean: float | None = None
    validation_std: float | None = None
    controls: dict[str, float] = {}
    difference: Difference | None = None
    validation_difference: Difference | None = None


class Slope(BaseModel):
    """How a figure grows over the first axis: y ~ x^exponent, least squares on logarithms of means.

    Attributes:
        last: the exponent between the two largest values alone, where what is there from the start (the
            interpreter's memory, say) weighs least.
        n: values of the axis.
    """

    model_config = ConfigDict(frozen=True)

    figure: str
    dataset: str
    variant: str
    exponent: float
    last: float
    n: int


class StudyCall(BaseModel):
    """What a study was called with, so that the same call can be made again.

    Attributes:
        seeds: instead of the study's, as given; None for the study's own.
        only: patterns of variants and data sets.
        large: with the cells that are marked large.
        has_data: whether a folder of data sets was given; which one is nobody else's business.
        settings: given for every cell.
    """

    model_config = ConfigDict(frozen=True)

    seeds: str | None = None
    only: tuple[str, ...] = ()
    large: bool = False
    has_data: bool = False
    settings: tuple[str, ...] = ()

    def command(self, name: str) -> str:
        """The call as a line for a shell, with ``DIR`` for the folder of the data sets."""
        words = ["gclflow", "study", name, *(["--data", "DIR"] if self.has_data else [])]
        words += ["--seeds", self.seeds] if self.seeds else []
        words += [word for pattern in self.only for word in ("--only", pattern)]
        words += [word for setting in self.settings for word in ("--set", setting)]
        return shlex.join([*words, *(["--large"] if self.large else [])])


class StudyRecord(BaseModel):
    """``study.json``.

    Attributes:
        call: what it was called with; None in records from before that was kept.
        seeds: that were asked for.
        num_planned: cells of this call; fewer are recorded when it was stopped.
        settings: given for this call, for every cell.
    """

    model_config = ConfigDict(frozen=True)

    study: Study
    call: StudyCall | None = None
    seeds: tuple[int, ...]
    num_planned: int
    settings: tuple[str, ...] = ()
    versions: dict[str, str]
    machine: dict[str, Any]
    cells: list[CellRecord] = []
    summary: list[SummaryRow] = []
    slopes: list[Slope] = []

    @property
    def failed(self) -> list[CellRecord]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.state == "failed"]


def finished_cell(cell: Cell, run: RunRecord, store: Store) -> CellRecord:
    """The record of a cell from that of its run."""
    keys = {stage["stage"]: stage["key"] for stage in run.stages}
    folders = {stage: store.stage_folder(stage, key) for stage, key in keys.items()}
    timing = {stage: _read(folder / "volatile" / "timing.json") for stage, folder in folders.items()}
    seconds = {stage: round(float(found["seconds"]), 3) for stage, found in timing.items() if found}
    epochs = _read(folders["train"] / "volatile" / "epoch_seconds.json") if "train" in folders else None
    if epochs:
        seconds["epoch"] = round(statistics.median(epochs), 5)
    return CellRecord(
        **_identity(cell),
        state="finished",
        device=run.device,
        metrics=run.metrics,
        validation_metrics=run.validation_metrics,
        oracle_metrics=run.oracle_metrics,
        history=_last_epoch(folders["train"] / "model" / "history.parquet") if "train" in folders else {},
        seconds=seconds,
        peak_rss_bytes={stage: int(found["peak_rss_bytes"]) for stage, found in timing.items() if found},
        num_rows=_num_rows(store, keys),
        num_cached=sum(stage["state"] == "cached" for stage in run.stages),
        notes=run.notes,
    )


def failed_cell(cell: Cell, reason: str) -> CellRecord:
    """The record of a cell that failed."""
    return CellRecord(**_identity(cell), state="failed", reason=reason)


def write_study(record: StudyRecord, out: Path) -> None:
    """Write ``study.json``; it appears whole or not at all."""
    from flows.outputs import replace_file

    replace_file(out / "study.json", (record.model_dump_json(indent=1) + "\n").encode())


def _identity(cell: Cell) -> dict[str, Any]:
    return {
        "dataset": cell.dataset,
        "variant": cell.variant,
        "point": dict(cell.point),
        "seed": cell.seed,
        "preset": cell.preset,
        "overrides": cell.overrides,
    }


def _read(path: Path) -> Any:
    """What a volatile file holds; None where it is gone, since nothing vouches for such files."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _last_epoch(path: Path) -> dict[str, float | None]:
    rows: Sequence[dict[str, Any]] = read_rows(path)
    return {name: value for name, value in rows[-1].items() if name != "epoch"} if rows else {}


def _num_rows(store: Store, keys: dict[str, str]) -> dict[str, int]:
    found = {stage: store.find(stage, key) for stage, key in keys.items() if stage in ("ingest", "train")}
    artifacts = [a for manifest in found.values() if manifest for a in manifest.artifacts.values()]
    return {f"{a.kind}.{table}": rows for a in artifacts for table, rows in a.num_rows.items()}
