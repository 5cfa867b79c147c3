"""Pictures of several runs: values over a setting, and variants beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl.plots import COLOURS, INK, MARKERS, Plot, finished_plot, styled_figure

_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Series:
    """One line: a mean and a standard deviation (None: one value only) at each place of the x axis."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float | None]


@dataclass(frozen=True)
class Dots:
    """One row: the values of single runs, their mean is drawn over them."""

    label: str
    values: Sequence[float]


def plot_series(
    series: Sequence[Series],
    *,
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    ticks: Sequence[str] = (),
    is_log: bool = False,
) -> Plot:
    """Means over a setting, with bars of one standard deviation.

    Args:
        series: the lines; more than 8 share colours and differ in marker and dash.
        name: of the plot.
        title: of the plot.
        x_label: what varies.
        y_label: what is measured, with unit.
        ticks: names of the places 0, 1, ... when they are no numbers.
        is_log: both scales logarithmic; values of 0 or less are left out.
    """
    figure, axes = styled_figure(7.4, 4.4)
    for place, line in enumerate(series):
        x, mean = np.array(line.x, float), np.array(line.mean, float)
        std = np.array([value or 0.0 for value in line.std])
        kept = (x > 0) & (mean > 0) if is_log else np.ones(len(x), bool)
        order = np.flatnonzero(kept)[np.argsort(x[kept], kind="stable")]
        axes.errorbar(
            x[order],
            mean[order],
            yerr=np.minimum(std, 0.999 * mean)[order] if is_log else std[order],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[(place // len(COLOURS)) % len(MARKERS)],
            linestyle=_STYLES[(place // len(COLOURS)) % len(_STYLES)],
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=3,
            label=line.label,
        )
    if is_log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    if ticks:
        axes.set_xticks(np.arange(len(ticks)), list(ticks))
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    if len(series) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return finished_plot(figure, name, title, "Mean over seeds; bars: one standard deviation between seeds.")


def plot_dots(
    rows: Sequence[Dots], *, name: str, title: str, x_label: str, reference: float | None = None
) -> Plot:
    """Single runs and their means, a row a variant.

    Args:
        rows: from top to bottom.
        name: of the plot.
        title: of the plot.
        x_label: what is measured, with unit.
        reference: mean of the variant that the others are compared with, drawn as a line.
    """
    figure, axes = styled_figure(7.4, 1.1 + 0.36 * max(len(rows), 1))
    if reference is not None:
        axes.axvline(reference, color=COLOURS[3], linewidth=1.2, linestyle="--", zorder=1)
    for place, row in enumerate(rows):
        axes.scatter(row.values, [place] * len(row.values), s=16, c=COLOURS[5], linewidths=0, alpha=0.8)
        axes.scatter([float(np.mean(row.values))], [place], s=90, c=INK, marker="|", linewidths=2, zorder=3)
    axes.set_yticks(np.arange(len(rows)), [row.label for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(x_label, fontsize=10)
    caption = "One dot a seed; the bar is the mean; the dashed line is the reference's mean."
    return finished_plot(figure, name, title, caption)
