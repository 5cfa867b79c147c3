"""The contract between runs: what a run may lose against the last good run of its series.

Accuracies are compared from the register of runs alone; clusters and embeddings are read from the store,
verified, on the nodes that both runs have. What can no longer be read (collected, damaged, another machine)
cannot be compared: that is said, and does not fail the run.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from gcl.errors import NotDefined
from tasks.errors import ArtifactCorrupted
from tasks.regression_config import RegressionConfig
from tasks.runs import RunEntry, Runs
from tasks.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from gcl.evaluation.drift import SharedNodes

logger = logging.getLogger(__name__)


class ComparisonRow(BaseModel):
    """One number, then and now.

    Attributes:
        name: what is compared: ``accuracy (digits-20)``, ``cluster_agreement``, ...
        before: its value in the last good run; None for numbers that are between the two.
        now: its value in this run, or between the two; None where there is none.
        bound: what the configuration allows: the largest drop or drift, the least agreement or overlap.
        passed: whether it holds; what is not comparable passes.
        reason: why, in one line.
        is_comparable: False where nothing could be said; a warning, not a pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    before: float | None
    now: float | None
    bound: float
    passed: bool
    reason: str
    is_comparable: bool = True


class Comparison(BaseModel):
    """A run beside the last good run of its series.

    Attributes:
        series: name of the series.
        run: id of the run that is judged.
        against: id of the last good run; None where this is the first.
        rows: every number that was compared.
        notes: what else differs between the two runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: str
    run: str
    against: str | None
    rows: tuple[ComparisonRow, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(row.passed for row in self.rows)

    @property
    def reason(self) -> str | None:
        """What does not hold, in one line; None where all does."""
        broken = [f"{row.name}: {row.reason}" for row in self.rows if not row.passed]
        return "; ".join([*broken, *self.notes]) if broken else None


class RunRegressed(Exception):
    """A run is worse than the last good run of its series allows; its results are in the store.

    Attributes:
        comparison: every number that was compared.
        store: where the results lie.
    """

    def __init__(self, comparison: Comparison, store: str) -> None:
        self.comparison, self.store = comparison, store
        super().__init__(comparison, store)

    def __str__(self) -> str:
        """What fell, from where to where, what was allowed, and how to accept it."""
        found = self.comparison
        return (
            f"run {found.run} of series {found.series} regressed against {found.against}: {found.reason}; "
            f"its results are kept; accept it with: gclflow store accept {found.run} --store {self.store}"
        )

    def __repr__(self) -> str:
        """Short: Prefect logs it beside the message."""
        return f"{type(self).__name__}({self.comparison.run!r})"

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {"comparison": self.comparison.model_dump(mode="json")}


def compare_with_last_good(runs: Runs, entry: RunEntry, config: RegressionConfig) -> Comparison:
    """Compare a finished run with the last good run of its series.

    Args:
        runs: the register, with the store that both runs' artifacts lie in.
        entry: the run to be judged; need not be recorded yet.
        config: the bounds.

    Raises:
        ArtifactCorrupted: an artifact of the run that is judged is gone or damaged.
    """
    good = runs.last_good(entry.series)
    if good is None or not config.enabled:
        return Comparison(series=entry.series, run=entry.run, against=good.run if good else None)
    notes = _other_settings(good.config, entry.config)
    if _name(good.config, "dataset") != _name(entry.config, "dataset"):
        notes.append("another data set: nothing is compared, the series starts anew")
        return Comparison(series=entry.series, run=entry.run, against=good.run, notes=tuple(notes))
    rows = _accuracy_rows(good, entry, config.max_accuracy_drop)
    rows += _table_rows(runs.store, good, entry, config)
    for row in rows:
        if not row.is_comparable:
            logger.warning("series %s: %s: %s", entry.series, row.name, row.reason)
    if notes:
        rows = [row.model_copy(update={"reason": f"{row.reason} ({'; '.join(notes)})"}) for row in rows]
    return Comparison(
        series=entry.series, run=entry.run, against=good.run, rows=tuple(rows), notes=tuple(notes)
    )


def _other_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that make it another experiment, not another night."""
    return [
        f"{section}.name {then!r} -> {current!r}"
        for section in ("dataset", "method")
        if (then := _name(before, section)) != (current := _name(now, section))
    ]


def _name(config: Mapping[str, Any], section: str) -> Any:
    inner = config.get(section)
    return inner.get("name") if isinstance(inner, Mapping) else None


def _accuracy_rows(good: RunEntry, entry: RunEntry, bound: float | None) -> list[ComparisonRow]:
    if bound is None:
        return []
    before, now = _accuracies(good.metrics), _accuracies(entry.metrics)
    return [_accuracy_row(name, value, now.get(name), bound) for name, value in before.items()]


def _accuracies(metrics: list[dict[str, Any]]) -> dict[str, float]:
    return {
        f"accuracy ({row['protocol']})": float(row["value"])
        for row in metrics
        if (row.get("metric"), row.get("split"), row.get("embedding")) == ("accuracy", "test", "method")
        and isinstance(row.get("value"), int | float)
        and math.isfinite(row["value"])
    }


def _accuracy_row(name: str, before: float, now: float | None, bound: float) -> ComparisonRow:
    if now is None:
        reason = "is no longer measured"
        return ComparisonRow(name=name, before=before, now=None, bound=bound, passed=False, reason=reason)
    drop = before - now
    passed = drop <= bound + 1e-12
    change = f"{'fell' if drop > 0 else 'rose' if drop < 0 else 'stayed'} from {before:.4f} to {now:.4f}"
    return ComparisonRow(
        name=name, before=before, now=now, bound=bound, passed=passed,
        reason=f"{change}, {'within' if passed else 'more than'} the drop of {bound:g} that is allowed",
    )  # fmt: skip


def _table_rows(
    store: Store, good: RunEntry, entry: RunEntry, config: RegressionConfig
) -> list[ComparisonRow]:
    """Clusters and embeddings, on the nodes of both."""
    rows = []
    if config.min_cluster_agreement is not None:
        measured = _measured(store, "clusters", good, entry, _clusters)
        rows.append(_row("cluster_agreement", measured, config.min_cluster_agreement, is_least=True))
    if config.max_embedding_drift is None and config.min_neighbour_overlap is None:
        return rows
    both = _measured(store, "embeddings", good, entry, _embeddings)
    drift, overlap = (both, both) if isinstance(both, str) else ((both[0], both[2]), (both[1], both[2]))
    if config.max_embedding_drift is not None:
        rows.append(_row("embedding_drift", drift, config.max_embedding_drift, is_least=False))
    if config.min_neighbour_overlap is not None:
        rows.append(_row("neighbour_overlap", overlap, config.min_neighbour_overlap, is_least=True))
    return rows


def _row(name: str, measured: tuple[Any, ...] | str, bound: float, *, is_least: bool) -> ComparisonRow:
    if isinstance(measured, str):
        return ComparisonRow(
            name=name, before=None, now=None, bound=bound, passed=True, is_comparable=False,
            reason=f"not comparable: {measured}",
        )  # fmt: skip
    value, where = float(measured[0]), str(measured[-1])
    passed = value >= bound if is_least else value <= bound
    limit = f"{'at least' if is_least else 'at most'} {bound:g} is asked for"
    reason = f"is {value:.4f}, {limit}{where}"
    return ComparisonRow(name=name, before=None, now=value, bound=bound, passed=passed, reason=reason)


_Measure = Callable[[Path, Path, int], tuple[Any, ...]]


def _measured(
    store: Store, kind: str, good: RunEntry, entry: RunEntry, measure: _Measure
) -> tuple[Any, ...] | str:
    """What `measure` finds between two artifacts of a kind, or why it cannot be found."""
    if kind not in good.artifacts or kind not in entry.artifacts:
        return f"one of the runs has no {kind}"
    now = store.open(entry.artifacts[kind])
    is_same = good.artifacts[kind].digest == entry.artifacts[kind].digest
    try:
        before = now if is_same else store.open(good.artifacts[kind])
    except (ArtifactCorrupted, OSError) as error:
        return f"the last good {kind} cannot be read: {error}"
    try:
        return measure(before, now, entry.seed)
    except NotDefined as error:
        return str(error)


def _clusters(before: Path, now: Path, seed: int) -> tuple[Any, ...]:
    from gcl.evaluation.drift import cluster_agreement
    from tasks.convert import read_column

    del seed  # nothing is drawn
    tables = before / "clusters.parquet", now / "clusters.parquet"
    shared, where = _shared(*tables)
    first, second = (read_column(table, "cluster") for table in tables)
    return cluster_agreement(first, second, shared), where


def _embeddings(before: Path, now: Path, seed: int) -> tuple[Any, ...]:
    from gcl.evaluation.drift import embedding_drift, neighbour_overlap
    from tasks.convert import read_matrix

    tables = before / "embeddings.parquet", now / "embeddings.parquet"
    shared, where = _shared(*tables)
    first, second = (read_matrix(table, "z") for table in tables)
    drift = embedding_drift(first, second, shared)
    return drift, neighbour_overlap(first, second, shared, seed=seed), where


def _shared(before: Path, now: Path) -> "tuple[SharedNodes, str]":
    """Rows of the nodes of both tables, matched by `node_id`; and words for what was left out."""
    import numpy as np
    import pyarrow.compute as pc

    from gcl.evaluation.drift import SharedNodes

    first, second = _node_ids(before), _node_ids(now)
    if first.type != second.type:
        first, second = first.cast("string"), second.cast("string")
    row_P = pc.index_in(second, value_set=first).to_numpy(zero_copy_only=False)
    after_M = np.flatnonzero(~np.isnan(row_P))
    shared = SharedNodes(row_P[after_M].astype(np.int64), after_M)
    where = f", on the {len(shared)} nodes both have (before {len(first)}, now {len(second)})"
    return shared, "" if len(first) == len(second) == len(shared) else where


def _node_ids(table: Path) -> "pa.Array":
    import pyarrow.parquet as pq

    return pq.read_table(table, columns=["node_id"], use_threads=False).column("node_id").combine_chunks()
