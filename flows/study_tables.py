"""A study's results as Markdown: for ``table.md``, the UI, and the results page."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from flows.study_config import AxisValue
from flows.study_coverage import coverage_lines
from flows.study_record import Difference, StudyRecord, SummaryRow

# Metrics between 0 and 1 that are read in percent; everything else is printed as it is.
_SHARES = {
    "accuracy", "macro_f1", "micro_f1", "nmi", "ari", "fmi", "auc", "average_precision", "coverage",
    "false_negative_auc", "false_negative_share", "similarity_auc", "calibrated_accuracy",
}  # fmt: skip
_CONTROLS = {"smoothed": "smoothed features", "random_init": "untrained encoder"}


def study_markdown(record: StudyRecord, *, level: int = 1) -> str:
    """Title, question, a table a data set and figure, how figures scale, what failed.

    Args:
        record: the study's.
        level: of the heading.
    """
    study = record.study
    lines = [f"{'#' * level} {study.title}", "", study.question, ""]
    lines += [f"- {v.name}: {v.about}" for v in study.variants if v.about]
    lines += [
        "",
        *coverage_lines(record),
        "Mean ± sample standard deviation over encoder seeds; differences are paired by "
        f"seed against {_reference(record)}, with how many seeds lie above.",
        "",
    ]
    for dataset in dict.fromkeys(row.dataset for row in record.summary):
        for figure in dict.fromkeys(row.figure for row in record.summary):
            rows = [row for row in record.summary if (row.dataset, row.figure) == (dataset, figure)]
            if rows:
                lines += [
                    f"{'#' * (level + 1)} {dataset}: {title_of(figure)}",
                    "",
                    *_table(rows, _fold_stds(record, dataset, figure)),
                    "",
                ]
    lines += _slope_lines(record, level + 1) + _oracle_lines(record, level + 1)
    lines += _failure_lines(record, level + 1) + _note_lines(record, level + 1)
    return "\n".join(lines).rstrip() + "\n"


def title_of(figure: str) -> str:
    """A figure's name with its unit, for headings and axes."""
    kind, _, rest = figure.partition("/")
    if kind == "seconds":
        return "seconds an epoch" if rest == "epoch" else f"seconds of {rest}"
    if kind == "peak_rss_bytes":
        return f"peak memory of {rest}, MB"
    if kind == "history":
        return f"{rest}, last epoch"
    unit = ", %" if _is_share(figure) else ""
    return f"{kind.replace('_', ' ')} {rest.replace('/', ' ').replace('_', ' ')}{unit}"


def scale_of(figure: str) -> float:
    """What a value is multiplied by for reading: percent, megabytes."""
    if figure.startswith("peak_rss_bytes/"):
        return 2.0**-20
    return 100.0 if _is_share(figure) else 1.0


def point_label(point: dict[str, AxisValue]) -> str:
    """Axis values in a line."""
    return ", ".join(f"{field.rpartition('.')[2]} {value}" for field, value in point.items())


def _is_share(figure: str) -> bool:
    return figure.count("/") == 2 and figure.rpartition("/")[2] in _SHARES


def _reference(record: StudyRecord) -> str:
    point = point_label(record.study.reference_point)
    return f"`{record.study.reference}`" + (f" at {point}" if point else "")


def _fold_stds(record: StudyRecord, dataset: str, figure: str) -> dict[str, float]:
    """By variant and point: the standard deviation over the folds of a run, mean over the seeds.

    That over seeds is another figure: published tables give the one or the other.
    """
    found: dict[str, list[float]] = {}
    for cell in record.cells:
        for metric in cell.metrics if cell.dataset == dataset else []:
            is_figure = f"{metric.task}/{metric.protocol}/{metric.metric}" == figure
            if (
                is_figure
                and metric.embedding == "method"
                and metric.over == "folds"
                and metric.std is not None
            ):
                found.setdefault(_place(cell.variant, cell.point), []).append(metric.std)
    return {place: sum(values) / len(values) for place, values in found.items()}


def _place(variant: str, point: dict[str, AxisValue]) -> str:
    return f"{variant} {point_label(point)}"


def _table(rows: Sequence[SummaryRow], fold_stds: Mapping[str, float]) -> list[str]:
    """The columns that any row has something for."""
    scale = scale_of(rows[0].figure)
    shown = _formatter(rows[0].figure)
    controls = dict.fromkeys(name for row in rows for name in row.controls)
    fields = list(rows[0].point)
    columns: list[tuple[str, Callable[[SummaryRow], str]]] = [("variant", lambda row: row.variant)]
    columns += [(field, _point_cell(field)) for field in fields]
    columns.append(("value", lambda row: _spread(row.mean, row.std, scale, shown)))
    if fold_stds:
        columns.append(("std over folds", lambda row: _fold_cell(row, fold_stds, scale, shown)))
    columns.append(("difference", lambda row: _difference(row.difference, scale, shown)))
    if any(row.validation_mean is not None for row in rows):
        columns.append(
            ("on validation", lambda row: _spread(row.validation_mean, row.validation_std, scale, shown))
        )
        columns.append(
            ("difference, validation", lambda row: _difference(row.validation_difference, scale, shown))
        )
    columns += [(_CONTROLS.get(name, name), _control_cell(name, scale, shown)) for name in controls]
    columns.append(("seeds", lambda row: str(row.n)))
    return markdown_table([name for name, _ in columns], ([cell(row) for _, cell in columns] for row in rows))


def _point_cell(field: str) -> Callable[[SummaryRow], str]:
    return lambda row: str(row.point.get(field, "-"))


def _fold_cell(
    row: SummaryRow, fold_stds: Mapping[str, float], scale: float, shown: Callable[[float], str]
) -> str:
    place = _place(row.variant, row.point)
    return shown(scale * fold_stds[place]) if place in fold_stds else "-"


def _control_cell(name: str, scale: float, shown: Callable[[float], str]) -> Callable[[SummaryRow], str]:
    return lambda row: shown(scale * row.controls[name]) if name in row.controls else "-"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; what markdown or HTML would make of a cell's text is escaped."""
    lines = [header, ["---"] * len(header), *([plain_text(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def plain_text(text: str) -> str:
    """Text that stays text in markdown: no elements, no links, no end of a table's cell."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\\[\]|])", r"\\\1", " ".join(escaped.split("\n")))


def _formatter(figure: str) -> Callable[[float], str]:
    if _is_share(figure):
        return lambda value: f"{value:.2f}"
    if figure.startswith("peak_rss_bytes/"):
        return lambda value: f"{value:,.0f}"
    return lambda value: f"{value:.4g}"


def _spread(mean: float | None, std: float | None, scale: float, shown: Callable[[float], str]) -> str:
    if mean is None:
        return "-"
    return shown(scale * mean) + ("" if std is None else f" ± {shown(scale * std)}")


def _difference(found: Difference | None, scale: float, shown: Callable[[float], str]) -> str:
    if found is None:
        return "-"
    sign = "+" if found.mean > 0 else ""
    return f"{sign}{_spread(found.mean, found.std, scale, shown)} ({found.num_above} of {found.n})"


def _slope_lines(record: StudyRecord, level: int) -> list[str]:
    if not record.slopes:
        return []
    axis = record.study.axes[0].field
    rows = [
        [title_of(s.figure), s.dataset, s.variant, f"{s.exponent:.2f}", f"{s.last:.2f}", str(s.n)]
        for s in record.slopes
    ]
    header = ["figure", "data set", "variant", "exponent", "of the largest two", "points"]
    text = f"Exponent b of figure ~ {axis}^b, by least squares on the logarithms; 1 is linear."
    return [f"{'#' * level} How it grows", "", text, "", *markdown_table(header, rows), ""]


def _oracle_lines(record: StudyRecord, level: int) -> list[str]:
    """What the labels would have chosen; apart from the results, and said so."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for cell in record.cells:
        place = (cell.dataset, " ".join(filter(None, (cell.variant, point_label(cell.point)))))
        for metric in cell.oracle_metrics:
            if metric.value is not None and metric.metric in _SHARES:
                groups.setdefault((*place, metric.protocol, metric.metric), []).append(metric.value)
    if not groups:
        return []
    rows = [[*name, f"{100 * sum(v) / len(v):.2f}", str(len(v))] for name, v in groups.items()]
    header = ["data set", "variant", "protocol", "metric", "mean, %", "seeds"]
    heading = f"{'#' * level} Chosen with labels: not a result"
    return [heading, "", *markdown_table(header, rows), ""]


def _failure_lines(record: StudyRecord, level: int) -> list[str]:
    if not record.failed:
        return []
    rows = [[c.dataset, c.variant, point_label(c.point), str(c.seed), c.reason or ""] for c in record.failed]
    header = ["data set", "variant", "point", "seed", "reason"]
    return [f"{'#' * level} Cells that failed", "", *markdown_table(header, rows), ""]


def _note_lines(record: StudyRecord, level: int) -> list[str]:
    notes: dict[str, set[str]] = {}
    for cell in record.cells:
        for note in cell.notes:
            notes.setdefault(note, set()).add(f"{cell.dataset}/{cell.variant}")
    if not notes:
        return []
    return [
        f"{'#' * level} Notes of the runs",
        "",
        *(f"- {plain_text(note)} ({_few(sorted(places))})" for note, places in notes.items()),
        "",
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", and {len(names) - 4} more" if len(names) > 4 else "")
