"""Pictures of a run, as PNG bytes that are the same for the same data.

Only matplotlib's object interface is used: no pyplot, no global state, no display. Categories use the
Okabe-Ito colours, which colour-blind readers can tell apart, and markers besides; values use cividis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from gcl.clustering.choice import Evidence
from gcl.random import derive_seed, numpy_generator
from gcl.row_blocks import Matrix, take_rows
from gcl.threads import one_thread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F", "#4D4D4D")
MARKERS = ("o", "^", "s")
INK, _GRID, REST = "#222222", "#DDDDDD", "#BBBBBB"
_DPI = 120
_MEASURE_TITLES = {
    "stability": "Stability across seeds (ARI)",
    "silhouette": "Silhouette",
    "inertia": "Inertia (always falls)",
    "inertia_knee": "Height of the inertia knee",
    "modularity": "Modularity",
    "conductance": "Conductance (less is better)",
}


@dataclass(frozen=True)
class Plot:
    """A picture: file name without ending, title, a caption that says how to read it, PNG bytes."""

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True, eq=False)
class Projection:
    """Two coordinates of a sample of nodes: int64 ids, float64 [S, 2], and how they were made."""

    nodes: np.ndarray
    xy_S2: np.ndarray
    how: str


def project(
    z_ND: Matrix, *, method: Literal["pca", "tsne"] = "pca", seed: int, max_nodes: int | None = None
) -> Projection:
    """Lay embeddings out in the plane, once for all pictures coloured by something.

    PCA takes seconds at any size. t-SNE shows neighbourhoods better and distances not at all; it starts
    from 50 principal components of at most 2,000 nodes unless told otherwise, some ten seconds on one core.

    Args:
        z_ND: float32 embeddings, in memory or read in blocks; of the latter only the sample is kept.
        method: which.
        seed: of the sample, and of t-SNE.
        max_nodes: sample size; 5,000 for PCA, 2,000 for t-SNE by default.
    """
    num_nodes = z_ND.shape[0]
    limit = max_nodes or (5000 if method == "pca" else 2000)
    nodes = np.arange(num_nodes)
    if num_nodes > limit:
        nodes = np.sort(numpy_generator(seed, "projection").choice(num_nodes, limit, replace=False))
    with one_thread():
        z_SD = take_rows(z_ND, nodes).astype(np.float64)
        z_SD -= z_SD.mean(0)
        xy_S2, share = _principal_components(z_SD, 2)
        how = f"PCA, {share:.0%} of the variance"
        if method == "tsne" and len(nodes) > 3:
            xy_S2, how = _tsne(_principal_components(z_SD, 50)[0], seed), "t-SNE: distances are not to scale"
    return Projection(nodes, xy_S2, f"{how}; {len(nodes):,} of {num_nodes:,} nodes")


def _principal_components(z_SD: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Scores on the first components, signs fixed by the largest loading, and their share of the variance."""
    value_D, vector_DD = np.linalg.eigh(z_SD.T @ z_SD)
    top_DC = vector_DD[:, ::-1][:, :count]
    sign_C = np.sign(top_DC[np.abs(top_DC).argmax(0), np.arange(top_DC.shape[1])])
    score_SC = z_SD @ (top_DC * np.where(sign_C == 0, 1, sign_C))
    if score_SC.shape[1] < 2:
        score_SC = np.hstack([score_SC, np.zeros_like(score_SC)])
    total = float(value_D.sum())
    return score_SC, float(value_D[::-1][:count].sum()) / total if total > 0 else 0.0


def _tsne(z_SC: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    model = TSNE(
        init="pca",
        perplexity=min(30.0, (len(z_SC) - 1) / 3),
        max_iter=500,
        random_state=derive_seed(seed, "tsne") % 2**32,
        n_jobs=1,
    )
    return np.asarray(model.fit_transform(z_SC), dtype=np.float64)


def plot_categories(
    projection: Projection, category_N: np.ndarray, *, name: str, title: str, labels: Sequence[str] = ()
) -> Plot:
    """Projection coloured by cluster or class; -1 is grey, and so are categories beyond the 16 largest.

    Args:
        projection: of the same nodes.
        category_N: int ids of all N nodes, -1 where there is none.
        name: of the plot.
        title: of the plot.
        labels: a name a category; ``cluster k`` when empty.
    """
    figure, axes = styled_figure(7.4, 4.8)
    xy_S2, category_S = projection.xy_S2, category_N[projection.nodes]
    ids, count = np.unique(category_S[category_S >= 0], return_counts=True)
    shown = np.sort(ids[np.argsort(-count, kind="stable")[:16]])
    rest_S = ~np.isin(category_S, shown)
    if rest_S.any():
        other = "no class" if (category_S[rest_S] < 0).all() else f"{len(ids) - len(shown)} smaller"
        axes.scatter(xy_S2[rest_S, 0], xy_S2[rest_S, 1], s=9, c=REST, linewidths=0, label=other)
    for place, category in enumerate(shown):
        own_S = category_S == category
        axes.scatter(
            xy_S2[own_S, 0],
            xy_S2[own_S, 1],
            s=11,
            c=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place // len(COLOURS)],
            linewidths=0,
            alpha=0.75,
            label=str(labels[category]) if labels else f"cluster {category}",
        )
    _plane(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, markerscale=2)
    return finished_plot(figure, name, title, f"{projection.how}. One dot a node.")


def plot_values(projection: Projection, value_N: np.ndarray, *, name: str, title: str, label: str) -> Plot:
    """Projection coloured by a value a node, 2nd to 98th percentile; NaN is grey, the highest lie on top."""
    figure, axes = styled_figure(7.4, 4.8)
    xy_S2, value_S = projection.xy_S2, value_N[projection.nodes].astype(np.float64)
    missing_S = ~np.isfinite(value_S)
    axes.scatter(xy_S2[missing_S, 0], xy_S2[missing_S, 1], s=9, c=REST, linewidths=0)
    order = np.flatnonzero(~missing_S)[np.argsort(value_S[~missing_S], kind="stable")]
    low, high = np.percentile(value_S[order], [2, 98]) if len(order) else (0.0, 1.0)
    dots = axes.scatter(
        xy_S2[order, 0],
        xy_S2[order, 1],
        s=11,
        c=value_S[order],
        cmap="cividis",
        linewidths=0,
        vmin=low,
        vmax=high,
    )
    bar = figure.colorbar(dots, ax=axes, pad=0.02, shrink=0.8)
    bar.set_label(label, fontsize=10, color=INK)
    bar.outline.set_visible(False)
    _plane(axes)
    grey = f" {int(missing_S.sum())} nodes not scored (grey)." if missing_S.any() else ""
    return finished_plot(figure, name, title, f"{projection.how}. Brighter is larger.{grey}")


def plot_losses(epochs: np.ndarray, terms: Mapping[str, np.ndarray]) -> Plot:
    """Loss terms over epochs, a panel a term: their scales seldom agree."""
    figure, panels = _panels(len(terms))
    for panel, (term, values) in zip(panels, terms.items(), strict=False):
        panel.plot(epochs, values, color=COLOURS[0], linewidth=1.5)
        panel.set_title(term, fontsize=10, color=INK, loc="left")
        panel.set_xlabel("epoch", fontsize=9)
    caption = "Every term of the training loss by epoch; the scale differs from panel to panel."
    return finished_plot(figure, "losses", "Training loss", caption)


def plot_cluster_sizes(cluster_N: np.ndarray) -> Plot:
    """Bars of cluster sizes, in the order of the ids, that is, of size."""
    size_K = np.bincount(cluster_N[cluster_N >= 0])
    figure, axes = styled_figure(7.4, 3.4)
    axes.bar(np.arange(len(size_K)), size_K, color=COLOURS[0], width=0.8)
    if len(size_K) <= 20:
        axes.set_xticks(np.arange(len(size_K)))
        for k, size in enumerate(size_K):
            axes.annotate(f"{size:,}", (k, size), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xlabel("cluster", fontsize=10)
    axes.set_ylabel("nodes", fontsize=10)
    axes.grid(axis="x", visible=False)
    return finished_plot(
        figure, "cluster_sizes", "Cluster sizes", "Nodes in each cluster; ids run from large to small."
    )


def plot_evidence(evidence: Sequence[Evidence], chosen: int) -> Plot:
    """Each measure over the numbers of clusters tried, the chosen one marked."""
    from matplotlib.ticker import MaxNLocator

    table: dict[str, list[tuple[int, float]]] = {}
    for item in evidence:
        table.setdefault(item.measure, []).append((item.num_clusters, item.value))
    measures = [name for name in _MEASURE_TITLES if name in table]
    figure, panels = _panels(len(measures))
    for panel, measure in zip(panels, measures, strict=False):
        k, value = np.array(sorted(table[measure])).T
        panel.axvline(chosen, color=COLOURS[3], linewidth=1.5, linestyle="--", zorder=1)
        panel.plot(k, value, color=COLOURS[0], linewidth=1.5, marker="o", markersize=4, zorder=2)
        panel.set_title(_MEASURE_TITLES[measure], fontsize=10, color=INK, loc="left")
        panel.set_xlabel("number of clusters", fontsize=9)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = f"No labels were used. Dashed: the {chosen} clusters chosen, stable first, then best mean rank."
    return finished_plot(figure, "cluster_evidence", "How many clusters", caption)


def plot_risk_coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Plot | None:
    """Error rate of the surest share of test nodes, a line an ordering; None without such curves."""
    prefix = "risk_coverage_"
    found = {name.removeprefix(prefix): curve for name, curve in curves.items() if name.startswith(prefix)}
    if not found:
        return None
    figure, axes = styled_figure(7.4, 4.2)
    for place, (name, (coverage, risk)) in enumerate(found.items()):
        label = {"confidence": "by the probe's confidence", "uncertainty": "by label-free uncertainty"}.get(
            name, name
        )
        style = ("-", "--", ":")[place % 3]
        axes.plot(
            coverage, risk, color=COLOURS[(0, 3, 2)[place % 3]], linestyle=style, linewidth=2, label=label
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage: share of test nodes answered, surest first", fontsize=10)
    axes.set_ylabel("error rate among them", fontsize=10)
    legend_above(axes, len(found))
    caption = "A useful uncertainty keeps the line low on the left; a useless one is flat."
    return finished_plot(figure, "risk_coverage", "Risk against coverage", caption)


def plot_reliability(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Plot | None:
    """Accuracy against confidence on test nodes, before and after calibration; None without such curves."""
    named = {"reliability_uncalibrated": "before calibration", "reliability": "after calibration"}
    found = {label: curves[name] for name, label in named.items() if name in curves}
    if not found:
        return None
    figure, axes = styled_figure(5.4, 5.2)
    axes.plot([0, 1], [0, 1], color=REST, linewidth=1.5, linestyle=":", label="perfect")
    for place, (label, (confidence, accuracy)) in enumerate(found.items()):
        colour, marker = ((COLOURS[3], "^"), (COLOURS[0], "o"))[place]
        axes.plot(confidence, accuracy, color=colour, marker=marker, markersize=5, linewidth=1.5, label=label)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence", fontsize=10)
    axes.set_ylabel("share that is right", fontsize=10)
    legend_above(axes, len(found) + 1)
    caption = "Test nodes in bins of confidence; above the diagonal the probe is surer than it says."
    return finished_plot(figure, "reliability", "Reliability of the probe's confidence", caption)


def plot_stage_times(seconds: Mapping[str, float], cached: Sequence[str] = ()) -> Plot:
    """Bars of the stages' wall-clock seconds, in pipeline order; stages served from the store are pale."""
    figure, axes = styled_figure(7.4, 0.9 + 0.42 * max(len(seconds), 1))
    places = np.arange(len(seconds))
    colours = [COLOURS[5] if stage in cached else COLOURS[0] for stage in seconds]
    axes.barh(places, list(seconds.values()), color=colours, height=0.65)
    for place, (stage, value) in zip(places, seconds.items(), strict=True):
        text = f"{value:.2f} s" + (", cached" if stage in cached else "")
        axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, list(seconds), fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max([*seconds.values(), 1e-3]))
    axes.set_xlabel("seconds", fontsize=10)
    axes.grid(axis="y", visible=False)
    return finished_plot(
        figure, "stage_times", "Time per stage", "Wall-clock seconds of each stage of this run."
    )


def styled_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of one panel in our style; inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _dress(axes)
    return figure, axes


def _panels(count: int) -> tuple["Figure", list["Axes"]]:
    """A figure of `count` panels, three a row."""
    from matplotlib.figure import Figure

    columns = min(3, max(count, 1))
    rows = -(-max(count, 1) // columns)
    figure = Figure(figsize=(max(4.5, 2.9 * columns), 0.5 + 2.3 * rows), dpi=_DPI, layout="constrained")
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for panel in panels:
        _dress(panel)
    return figure, panels


def _dress(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(labelsize=9, colors=INK, color="#888888")
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _plane(axes: "Axes") -> None:
    """A projection's axes mean nothing by themselves: no ticks, no grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend_above(axes: "Axes", columns: int) -> None:
    """The legend over the panel, where it hides no line."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, fontsize=9)


def finished_plot(figure: "Figure", name: str, title: str, caption: str) -> Plot:
    """The figure with its title, as PNG bytes that are the same for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    buffer = BytesIO()
    FigureCanvasAgg(figure)
    # Without metadata: the default names the matplotlib version, which is not the picture's business.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return Plot(name, title, caption, buffer.getvalue())
