"""What orchestration costs: `gclflow run` against the same gcl calls in a plain script, both from scratch.

    python benchmarks/orchestration.py --set dataset.format=planetoid --set dataset.path=DIR ...

Both run in a process of their own, one after the other, `--repeats` times; the medians and their ratio
are printed. The plain script reads, smooths, trains, scores, clusters, evaluates and draws with the same
functions of gcl and writes nothing; the pipeline adds Parquet, contracts, the store, Prefect and its server.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = "--plain"


def plain(overrides: list[str]) -> None:
    """The same work without orchestration."""
    import numpy as np

    from flows.config import load_config
    from gcl.clustering.fit import cluster_embeddings
    from gcl.edges import canonical_edges
    from gcl.evaluation.evaluate import evaluate_embeddings
    from gcl.evaluation.results import EvaluationInputs
    from gcl.graph import Graph, Labels
    from gcl.methods import build_method
    from gcl.methods.base import TrainingData
    from gcl.plots import (
        plot_categories,
        plot_cluster_sizes,
        plot_losses,
        plot_reliability,
        plot_risk_coverage,
        plot_values,
        project,
    )
    from gcl.readers import edge_policy, open_source
    from gcl.smoothing import smooth_features
    from gcl.trainer import train
    from gcl.uncertainty import UncertaintyInputs, score_uncertainty

    config, _ = load_config(overrides=overrides)
    source = open_source(config.dataset)
    with tempfile.TemporaryDirectory() as scratch:
        edges = list(
            canonical_edges(
                source.edge_chunks(),
                num_nodes=source.num_nodes,
                policy=edge_policy(config.dataset, source),
                scratch=Path(scratch),
            )
        )
    blocks = list(source.feature_chunks()) if source.feature_chunks else []
    graph = Graph(
        source.num_nodes,
        np.concatenate([chunk.src for chunk in edges]),
        np.concatenate([chunk.dst for chunk in edges]),
        blocks[0],
    )
    labels = (
        Labels(np.concatenate(list(source.label_chunks())), source.class_names)
        if source.label_chunks
        else None
    )
    smoothed = smooth_features(graph, config.smooth, seed=0)
    data = TrainingData(num_nodes=graph.num_nodes, x_NF=smoothed.x_NF)
    method = build_method(config.method, num_features=smoothed.x_NF.shape[1], seed=config.seed)
    untrained_ND = method.embed(data)
    result = train(method, data, config.train, seed=config.seed)
    z_ND = method.embed(data)
    num_classes = labels.num_classes if labels else None
    uncertainty_N = score_uncertainty(
        UncertaintyInputs(z_ND, graph=graph, num_clusters=num_classes), config.uncertainty, seed=config.seed
    )
    clustering = cluster_embeddings(
        z_ND, config.cluster, seed=config.seed, num_classes=num_classes, graph=graph
    )
    evaluation = evaluate_embeddings(
        EvaluationInputs(
            {"method": z_ND, "smoothed": smoothed.x_NF, "random_init": untrained_ND},
            graph,
            labels,
            source.splits,
            cluster_N=clustering.cluster_N,
            uncertainty_N=uncertainty_N,
        ),
        config.evaluate,
        seed=config.seed,
    )
    projection = project(z_ND, method="tsne", seed=0)
    plot_categories(projection, clustering.cluster_N, name="clusters", title="clusters")
    if labels:
        plot_categories(projection, labels.y_N, name="classes", title="classes")
    plot_values(projection, uncertainty_N, name="uncertainty", title="uncertainty", label="uncertainty")
    plot_cluster_sizes(clustering.cluster_N)
    terms = [name for name in result.history[0] if name != "epoch"]
    epochs = np.array([row["epoch"] for row in result.history])
    plot_losses(epochs, {name: np.array([row[name] for row in result.history]) for name in terms})
    plot_risk_coverage(evaluation.curves)
    plot_reliability(evaluation.curves)


def timed(command: list[str]) -> float:
    """Wall seconds of a process that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - started


def main() -> None:
    """Run both, print medians and ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument(PLAIN, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain(options.overrides)
        return
    settings = [part for override in options.overrides for part in ("--set", override)]
    seconds: dict[str, list[float]] = {"plain": [], "pipeline": []}
    for _ in range(options.repeats):
        seconds["plain"].append(timed([sys.executable, __file__, PLAIN, *settings]))
        folder = tempfile.mkdtemp()
        try:
            gclflow = [str(Path(sys.executable).with_name("gclflow")), "run", *settings]
            seconds["pipeline"].append(
                timed([*gclflow, "--store", f"{folder}/store", "--out", f"{folder}/out"])
            )
        finally:
            shutil.rmtree(folder)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    allowed = 1.25 * medians["plain"] + 20
    print(f"plain script {medians['plain']:.1f} s, pipeline with its own server {medians['pipeline']:.1f} s")
    verdict = "kept" if medians["pipeline"] <= allowed else "NOT kept"
    print(f"allowed: 1.25 x plain + 20 s = {allowed:.1f} s: {verdict}")
    if options.json:
        from flows.record import machine, versions

        found = {"seconds": seconds, "medians": medians, "allowed": allowed}
        command = " ".join(["python benchmarks/orchestration.py", *settings])
        document = {"command": command, "versions": versions(), "machine": machine(), **found}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
