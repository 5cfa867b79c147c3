"""A study's pictures: one a data set and figure."""

import re
from collections.abc import Sequence

from flows.study_record import StudyRecord, SummaryRow
from flows.study_summary import reference_place
from flows.study_tables import point_label, scale_of, title_of
from gcl.plots import Plot
from gcl.plots_series import Dots, Series, plot_dots, plot_series


def study_plots(record: StudyRecord) -> list[Plot]:
    """Rows of dots for variants, lines over the first axis otherwise."""
    places = dict.fromkeys((row.dataset, row.figure) for row in record.summary)
    plots = []
    for dataset, figure in places:
        rows = [row for row in record.summary if (row.dataset, row.figure) == (dataset, figure)]
        draw = _dots if record.study.plot == "variants" else _lines
        plots.append(draw(record, rows, name=_file_name(dataset, figure)))
    return plots


def _dots(record: StudyRecord, rows: Sequence[SummaryRow], *, name: str) -> Plot:
    scale = scale_of(rows[0].figure)
    place = reference_place(record.study, rows[0].dataset, rows[0].point)
    means = [row.mean for row in rows if (row.dataset, tuple(row.point.items()), row.variant) == place]
    labelled = (" ".join(filter(None, (row.variant, point_label(row.point)))) for row in rows)
    return plot_dots(
        [
            Dots(label, [scale * value for value in row.values.values()])
            for label, row in zip(labelled, rows, strict=True)
        ],
        name=name,
        title=f"{record.study.title}: {rows[0].dataset}",
        x_label=title_of(rows[0].figure),
        reference=scale * means[0] if means else None,
    )


def _lines(record: StudyRecord, rows: Sequence[SummaryRow], *, name: str) -> Plot:
    scale, axis = scale_of(rows[0].figure), record.study.axes[0]
    lines: dict[str, list[SummaryRow]] = {}
    for row in rows:
        others = {field: value for field, value in row.point.items() if field != axis.field}
        lines.setdefault(" ".join(filter(None, (row.variant, point_label(others)))), []).append(row)
    known = list(dict.fromkeys(row.point[axis.field] for row in rows))
    is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    place = {value: float(value) if is_numeric else float(i) for i, value in enumerate(known)}
    return plot_series(
        [
            Series(
                label,
                [place[row.point[axis.field]] for row in own],
                [scale * row.mean for row in own],
                [None if row.std is None else scale * row.std for row in own],
            )
            for label, own in lines.items()
        ],
        name=name,
        title=f"{record.study.title}: {rows[0].dataset}",
        x_label=axis.field,
        y_label=title_of(rows[0].figure),
        ticks=() if is_numeric else [str(value) for value in known],
        is_log=record.study.plot == "loglog" and is_numeric,
    )


def _file_name(dataset: str, figure: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{dataset}-{figure}")
