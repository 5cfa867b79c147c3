"""A kept run as the results page reads it: what it is called, its protocols and its figures."""

from collections.abc import Iterator
from typing import Any

METRICS = {
    "node_classification": ("accuracy", "macro_f1"),
    "graph_classification": ("accuracy", "macro_f1"),
    "clustering": ("accuracy", "nmi", "ari", "macro_f1"),
    "link_prediction": ("auc", "average_precision"),
}
TITLES = {
    "accuracy": "accuracy", "macro_f1": "macro-F1", "nmi": "NMI", "ari": "ARI", "auc": "AUC",
    "average_precision": "AP",
}  # fmt: skip
CONTROLS = {"smoothed": "smoothed features", "random_init": "untrained encoder"}
Record = dict[str, Any]

# What weighs the negatives makes another method of it: with uniform weights nothing of the metric is left.
_NML_METRICS = {
    "uniform": "InfoNCE (uniform weights)",
    "cosine": "nml_gcl, weights from the cosine",
    "free_form": "nml_gcl, metric in closed form",
    "network": "nml_gcl, metric network",
}


def title(run: Record) -> str:
    """The method as it was configured, and what the run's name adds to data set and method."""
    dataset, method = run["config"]["dataset"]["name"], run["config"]["method"]
    rest = run["name"].removeprefix(f"{dataset}-").removeprefix(method["name"]).strip("-_ ")
    words = rest.replace("-", ", ").replace("_", " ")
    if run.get("chosen_with_labels"):
        words = f"{words}, chosen with labels".removeprefix(", ")
    return _described(method) + (f" ({words})" if words else "")


def _described(method: Record) -> str:
    name = _NML_METRICS[method["metric"]] if method["name"] == "nml_gcl" else method["name"]
    count = method.get("num_encoders") or 1
    return name + (f", {count} encoders" if count > 1 else "")


def has_raw_controls(run: Record) -> bool:
    """Whether there are controls clustered as they are."""
    return any(row["protocol"] == "kmeans-raw" and row["embedding"] != "method" for row in run["metrics"])


def clusters_raw_rows(run: Record) -> bool:
    """Whether the run's own clustering takes rows as they are, and not scaled to length 1."""
    return not run["config"].get("cluster", {}).get("normalise", True)


def with_raw_controls(run: Record, measured: Record) -> Record:
    """A run from before its own clustering had controls in its own geometry, with those measured since.

    Args:
        run: as it is kept.
        measured: `benchmarks/results/raw_controls.json`, by data set.
    """
    dataset = run["config"]["dataset"]["name"]
    found = measured.get(dataset) if run.get("preset") == f"{dataset}-clustering" else None
    has_final = any(row["protocol"] == "kmeans-final" for row in run["metrics"])
    if found is None or not has_final or has_raw_controls(run) or found["seeds"] != run["seeds"]:
        return run
    rows = [row for row in found["controls"] if row["protocol"] == "kmeans-raw"]
    note = f"the controls under kmeans-raw were measured later, without training: `{found['command']}`"
    return {**run, "metrics": [*run["metrics"], *rows], "notes": [*run["notes"], note]}


def group(metric: Record) -> str:
    """Clustering protocols share a table, whose rows name them; the others have one each."""
    return "clustering" if metric["task"] == "clustering" else str(metric["protocol"])


def scores(
    run: Record, task: str, protocol: str, metric: str, *, embedding: str = "method"
) -> Iterator[tuple[str, Record]]:
    """Rows of a metric by protocol; the pipeline's own clusters repeat those of kmeans-final."""
    for row in run["metrics"]:
        is_it = (row["task"], group(row), row["embedding"], row["metric"]) == (
            task,
            protocol,
            embedding,
            metric,
        )
        if is_it and row["value"] is not None and row["protocol"] != "clusters-artifact":
            yield row["protocol"], row


def spread(metric: Record | None) -> str:
    """Mean and deviation in percent, or a dash."""
    if metric is None or metric["value"] is None:
        return "-"
    text = f"{100 * metric['value']:.2f}"
    return text if metric["n"] == 1 else f"{text} ± {100 * (metric['std'] or 0):.2f}"
