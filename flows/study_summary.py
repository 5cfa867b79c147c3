"""What the cells of a study come to: means over seeds, and differences to the reference seed by seed.

Differences are paired because the spread between encoder seeds is larger than most effects.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from flows.study_config import AxisValue, Study
from flows.study_record import CellRecord, Difference, Slope, SummaryRow

_METHOD = "method"
Point = tuple[tuple[str, AxisValue], ...]


@dataclass(frozen=True)
class Measured:
    """One figure of one cell: its value, that on validation nodes, and the controls' by name."""

    value: float
    validation: float | None = None
    controls: Mapping[str, float] = field(default_factory=dict)


def measured(cell: CellRecord) -> dict[str, Measured]:
    """Every figure of a cell by name: TASK/PROTOCOL/METRIC, seconds/..., peak_rss_bytes/..., history/..."""
    held = {
        f"{m.task}/{m.protocol}/{m.metric}": m.value
        for m in cell.validation_metrics
        if m.embedding == _METHOD
    }
    values: dict[str, dict[str, float]] = {}
    for metric in cell.metrics:
        if metric.value is not None:
            name = f"{metric.task}/{metric.protocol}/{metric.metric}"
            values.setdefault(name, {}).setdefault(metric.embedding, metric.value)
    found = {
        name: Measured(by[_METHOD], held.get(name), {k: v for k, v in by.items() if k != _METHOD})
        for name, by in values.items()
        if _METHOD in by
    }
    others = {f"seconds/{stage}": value for stage, value in cell.seconds.items()}
    others |= {f"peak_rss_bytes/{stage}": float(value) for stage, value in cell.peak_rss_bytes.items()}
    others |= {f"history/{term}": value for term, value in cell.history.items() if value is not None}
    return found | {name: Measured(value) for name, value in others.items() if math.isfinite(value)}


def summarise(study: Study, cells: Iterable[CellRecord]) -> list[SummaryRow]:
    """One row a figure, data set, point and variant over the finished seeds, figures as the study lists."""
    groups: dict[tuple[str, Point, str], dict[int, dict[str, Measured]]] = {}
    for cell in cells:
        if cell.state == "finished":
            place = (cell.dataset, tuple(cell.point.items()), cell.variant)
            groups.setdefault(place, {})[cell.seed] = measured(cell)
    names = dict.fromkeys(name for seeds in groups.values() for found in seeds.values() for name in found)
    rows = []
    for figure in _chosen(study.figures, list(names)):
        for (dataset, point, variant), seeds in groups.items():
            own = {seed: found[figure] for seed, found in seeds.items() if figure in found}
            if not own:
                continue
            place = reference_place(study, dataset, dict(point))
            is_reference = place == (dataset, point, variant)
            other = {s: found[figure] for s, found in groups.get(place, {}).items() if figure in found}
            rows.append(_row(figure, dataset, variant, dict(point), own, {} if is_reference else other))
    return rows


def reference_place(study: Study, dataset: str, point: Mapping[str, AxisValue]) -> tuple[str, Point, str]:
    """Which group a point is compared with."""
    return dataset, tuple((dict(point) | study.reference_point).items()), study.reference


def slopes(study: Study, rows: Sequence[SummaryRow]) -> list[Slope]:
    """How the figures grow over the first axis, for studies drawn with both scales logarithmic."""
    if study.plot != "loglog":
        return []
    axis = study.axes[0].field
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        x = row.point.get(axis)
        if isinstance(x, int | float) and x > 0 and row.mean > 0:
            others = "".join(f", {name}={value}" for name, value in row.point.items() if name != axis)
            name = (row.figure, row.dataset, row.variant + others)
            lines.setdefault(name, []).append((math.log(x), math.log(row.mean)))
    return [
        Slope(
            figure=figure,
            dataset=dataset,
            variant=variant,
            exponent=_slope(line),
            last=_slope(sorted(line)[-2:]),
            n=len(line),
        )
        for (figure, dataset, variant), line in lines.items()
        if len({x for x, _ in line}) > 1
    ]


def _slope(line: Sequence[tuple[float, float]]) -> float:
    return round(statistics.linear_regression(*zip(*line, strict=True)).slope, 4)


def _chosen(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    matches = (name for pattern in patterns for name in names if fnmatchcase(name, pattern))
    return list(dict.fromkeys(matches))


def _row(
    figure: str,
    dataset: str,
    variant: str,
    point: dict[str, AxisValue],
    own: Mapping[int, Measured],
    other: Mapping[int, Measured],
) -> SummaryRow:
    values = {seed: found.value for seed, found in own.items()}
    held = {seed: found.validation for seed, found in own.items() if found.validation is not None}
    held_other = {seed: found.validation for seed, found in other.items() if found.validation is not None}
    controls = dict.fromkeys(name for found in own.values() for name in found.controls)
    return SummaryRow(
        figure=figure,
        dataset=dataset,
        variant=variant,
        point=point,
        mean=statistics.fmean(values.values()),
        std=_std(list(values.values())),
        n=len(values),
        values=values,
        validation_mean=statistics.fmean(held.values()) if held else None,
        validation_std=_std(list(held.values())),
        controls={
            name: statistics.fmean(f.controls[name] for f in own.values() if name in f.controls)
            for name in controls
        },
        difference=_difference(values, {seed: found.value for seed, found in other.items()}),
        validation_difference=_difference(held, held_other),
    )


def _difference(own: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    paired = [value - other[seed] for seed, value in own.items() if seed in other]
    if not paired:
        return None
    above = sum(value > 0 for value in paired)
    return Difference(mean=statistics.fmean(paired), std=_std(paired), n=len(paired), num_above=above)


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
