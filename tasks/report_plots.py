"""The plots of a run, made from its artifacts."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gcl.clustering.choice import Evidence
from gcl.plots import (
    Plot,
    plot_categories,
    plot_cluster_sizes,
    plot_evidence,
    plot_losses,
    plot_reliability,
    plot_risk_coverage,
    plot_values,
    project,
)
from tasks.convert import read_column, read_labels, read_rows
from tasks.parquet_rows import ParquetRows
from tasks.work import Work

_SEED = 0  # of the projection: a picture must not change with the run's seed alone


def run_plots(work: Work) -> list[Plot]:
    """Every plot the artifacts of this run give, in the order of the report."""
    clusters = work.input("clusters")
    plots: list[Plot | None] = [
        *_projections(work),
        plot_cluster_sizes(read_column(clusters / "clusters.parquet", "cluster")),
        _evidence(clusters),
        _losses(work.input("model") / "history.parquet"),
        *_curves(work.input("predictions") / "curves.parquet"),
    ]
    return [plot for plot in plots if plot is not None]


def _projections(work: Work) -> list[Plot]:
    """The embedding in the plane, coloured by cluster, class and uncertainty."""
    z_ND = ParquetRows(work.input("embeddings") / "embeddings.parquet", "z")
    projection = project(z_ND, method="tsne", seed=_SEED)
    cluster_N = read_column(work.input("clusters") / "clusters.parquet", "cluster")
    plots = [plot_categories(projection, cluster_N, name="embedding_clusters", title="Embedding by cluster")]
    labels = read_labels(work.input("labels"))
    if labels is not None:
        plots.append(
            plot_categories(
                projection,
                labels.y_N,
                name="embedding_classes",
                title="Embedding by class",
                labels=labels.class_names,
            )
        )
    table = work.input("uncertainty") / "uncertainty.parquet"
    uncertainty_N = read_column(table, "uncertainty")
    method = str(work.metadata("uncertainty")["method"])
    plots.append(
        plot_values(
            projection,
            uncertainty_N,
            name="embedding_uncertainty",
            title="Embedding by uncertainty",
            label=f"uncertainty ({method})",
        )
    )
    return plots


def _evidence(clusters: Path) -> Plot | None:
    path = clusters / "evidence.parquet"
    if not path.exists():
        return None
    evidence = [Evidence(row["num_clusters"], row["measure"], row["value"]) for row in read_rows(path)]
    chosen = int(read_column(clusters / "clusters.parquet", "cluster").max()) + 1
    return plot_evidence(evidence, chosen)


def _losses(history: Path) -> Plot:
    table = pq.read_table(history)
    terms = {name: table.column(name).to_numpy() for name in table.column_names if name != "epoch"}
    return plot_losses(table.column("epoch").to_numpy(), terms)


def _curves(path: Path) -> list[Plot | None]:
    if not path.exists():
        return []
    table = pq.read_table(path)
    name = table.column("curve").to_numpy(zero_copy_only=False)
    x, y = table.column("x").to_numpy(), table.column("y").to_numpy()
    curves = {str(curve): (x[name == curve], y[name == curve]) for curve in np.unique(name.astype(str))}
    return [plot_risk_coverage(curves), plot_reliability(curves)]
