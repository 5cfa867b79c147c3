"""Time and peak memory of one HSAN step, ours beside dense plain torch, at the size of Cora.

    python benchmarks/losses_hsan.py                       # writes benchmarks/results/losses_hsan.json
    python benchmarks/losses_hsan.py --nodes 7650 --features 745 --embedding-size 500 --no-keep

A step is forward, backward and Adam, weighted as between two refreshes; every contender starts from the
same weights and the same refresh. "dense" is plain torch in float32 with autograd's own memory: 2N x 2N
similarities of full-width embeddings, the mask, the exponentials and the weights as matrices, a dense
adjacency. "ours" runs in float32, and with matrix products in bfloat16 (train.precision). Each contender runs
in a process of its own with one thread; they take turns, and the ratios are of the least processor time of
all turns, which neighbours on a busy machine disturb least. Data are random.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from losses import ROOT, machine, memory

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "losses_hsan.json"
CONTENDERS = ("ours", "ours-bfloat16", "dense")
NUM_CLUSTERS, CONFIDENT_RATE, POWER = 7, 0.9, 1.0


def prepare(options: argparse.Namespace) -> tuple[Any, Any]:
    """An untrained method that has refreshed once, and its batch of all nodes."""
    import numpy as np
    import torch
    from smoothing import random_graph

    from gcl.methods.base import TrainingData
    from gcl.methods.configs.hsan import HsanConfig
    from gcl.methods.hsan import Hsan

    graph = random_graph(options.nodes, options.edges, options.features, seed=0)
    config = HsanConfig(
        embedding_size=options.embedding_size,
        num_clusters=NUM_CLUSTERS,
        confident_rate=CONFIDENT_RATE,
        focus_power=POWER,
        activation=options.activation,
    )
    method = Hsan(config, num_features=options.features, num_classes=None, num_nodes=graph.num_nodes, seed=0)
    generator = np.random.default_rng(0)
    clusters_N = generator.integers(0, NUM_CLUSTERS, graph.num_nodes)
    is_confident_N = generator.random(graph.num_nodes) < CONFIDENT_RATE
    method.training_state.refresh(method.named_parameters(), clusters_N, is_confident_N)
    data = TrainingData(graph.num_nodes, np.ascontiguousarray(graph.x_NF), graph)
    return method, data.batch(torch.arange(graph.num_nodes))


def dense_similarity(method: Any, x_NF: Any, adjacency_NN: Any) -> Any:
    """S over all 2N (node, view) pairs."""
    import torch
    from torch.nn.functional import linear, normalize

    z, e = [], []
    for encoder, structure in zip(method.attribute_encoders, method.structure_encoders, strict=True):
        z_ND = encoder(x_NF)
        z.append(normalize(z_ND.sigmoid() if method.config.activation == "sigmoid" else z_ND))
        e.append(normalize(linear(adjacency_NN, structure.weight_ND.T, structure.bias_D)))
    z, e = torch.cat(z), torch.cat(e)
    return method.alpha * (z @ z.T) + (1 - method.alpha) * (e @ e.T)


def dense_weights(method: Any, similarity: Any) -> Any:
    """M over all 2N (node, view) pairs."""
    import torch

    scaled = (similarity - similarity.min()) / (similarity.max() - similarity.min())
    cluster = method.training_state.cluster_N.repeat(2)
    confident = method.training_state.is_confident_N.repeat(2)
    weight = (torch.eq(cluster[:, None], cluster).float() - scaled).abs() ** POWER
    return torch.where(confident[:, None] & confident, weight, torch.ones_like(weight))


def dense_loss(similarity: Any, weight: Any) -> Any:
    """The mean over all rows of -log of the positive's share."""
    import torch

    logit = weight * similarity
    num_nodes = len(logit) // 2
    share = torch.exp(logit)
    total = (share * (1 - torch.eye(len(logit)))).sum(dim=1)
    positive = torch.cat([share.diagonal(num_nodes), share.diagonal(-num_nodes)])
    return -torch.log(positive / total).mean()


def make_step(contender: str, options: argparse.Namespace) -> Callable[[], float]:
    """Forward, backward and Adam once; returns the loss before the step."""
    import torch

    method, batch = prepare(options)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-6)
    if contender == "dense":
        adjacency_NN = torch.from_numpy(batch.graph.adjacency_NN().toarray())
        with torch.no_grad():
            weight = dense_weights(method, dense_similarity(method, batch.x_BF, adjacency_NN))

    def step() -> float:
        optimizer.zero_grad()
        if contender == "dense":
            loss = dense_loss(dense_similarity(method, batch.x_BF, adjacency_NN), weight)
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=contender == "ours-bfloat16"):
                loss = method.training_loss(batch, epoch=1, step=0, seed=0)["loss"]
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def measure(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process; the first step, which makes the weights of pairs, is not timed."""
    import torch

    torch.set_num_threads(1)
    step = make_step(contender, options)
    loss = step()
    runs = []
    for _ in range(options.steps):
        started, processor = time.perf_counter(), time.process_time()
        step()
        runs.append((time.perf_counter() - started, time.process_time() - processor))
    return {
        "loss": loss,
        "seconds": min(seconds for seconds, _ in runs),
        "processor_seconds": min(seconds for _, seconds in runs),
        "peak_bytes": memory("VmHWM"),
    }


def in_child(contender: str, arguments: list[str]) -> dict[str, Any]:
    """`measure` in a fresh process with one thread."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
    }
    command = [sys.executable, __file__, "--measure", contender, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"  {contender:14s} {result['seconds']:7.2f} s  {result['processor_seconds']:7.2f} processor s  "
        f"peak {result['peak_bytes'] / 1e9:5.2f} GB  loss {result['loss']:.6f}",
        flush=True,
    )
    return result


def compare(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """All contenders, in turns; the ratios dense / ours."""
    turns = [{name: in_child(name, arguments) for name in CONTENDERS} for _ in range(options.turns)]
    best = {
        name: {key: min(turn[name][key] for turn in turns) for key in turns[0][name]} for name in CONTENDERS
    }
    ratios = {
        name: {key: best["dense"][key] / best[name][key] for key in ("processor_seconds", "peak_bytes")}
        for name in CONTENDERS
        if name != "dense"
    }
    for name, ratio in ratios.items():
        print(f"  dense / {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in ratio.items()))
    return {"turns": turns, "dense_over": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2708)
    parser.add_argument("--edges", type=int, default=10_556, help="directed edges stored")
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--embedding-size", type=int, default=1500)
    parser.add_argument("--activation", choices=["identity", "sigmoid"], default="identity")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a process")
    parser.add_argument("--turns", type=int, default=2, help="processes a contender")
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return
    result = compare(options, sys.argv[1:])
    if not options.no_keep:
        kept = {"machine": machine(), "arguments": vars(options), **result}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
