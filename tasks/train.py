"""Train: smoothed rows (or the graph) become a model, its embeddings, and those of the untrained encoder."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from gcl.config import Config, result_fields
from gcl.methods import METHODS, method_class
from gcl.methods.configs import MethodConfig
from gcl.random import numpy_generator
from gcl.trainer_config import TrainConfig, check_processes
from tasks.artifact import canonical_json
from tasks.convert import read_node_ids, write_checks, write_columns, write_matrix
from tasks.limits import Estimate
from tasks.other_inputs import reading_modules
from tasks.stage import Stage
from tasks.work import Work

if TYPE_CHECKING:
    from gcl.checks import CheckFolder
    from gcl.methods.base import Method, TrainingData

# A trained encoder that maps every node onto one line has collapsed; two classes still span more than that.
# Of a handful of nodes, or of fewer than three dimensions, nothing of the kind can be said.
_MIN_EFFECTIVE_RANK = 1.05
_MIN_NODES_TO_JUDGE = 50
# Pairs whose weights are written: enough for a share of false negatives to a few tenths of a per cent.
_ANCHORS, _CANDIDATES = 1024, 128
_ROUNDING = 1e-3  # of cosines in float32
_PROCESS_BYTES = 200 << 20  # Python with torch, measured: 160 MB


class TrainStageConfig(Config):
    """What the stage is configured by: the method and the optimisation."""

    method: MethodConfig = Field(description="the contrastive method")
    train: TrainConfig = Field(description="optimisation")


def train(work: Work, config: TrainStageConfig) -> None:
    """Train, resuming from checkpoints of an interrupted execution under the same key."""
    from gcl.checkpoint import drop_checkpoints, save_weights
    from gcl.checks import CheckFolder, check_epochs
    from gcl.torchrun import SharedWorkspace, train_in_processes
    from gcl.trainer import EpochReport
    from gcl.trainer import train as train_method
    from tasks.training_data import build_for, open_training_data

    in_processes = config.train.num_processes > 1
    if in_processes:
        check_processes(config.method)
    shared = SharedWorkspace(work.scratch()) if in_processes else None
    data = open_training_data(work, config.method, shared=shared)
    num_classes = work.facts.get("num_classes")
    if "labels" in work.inputs:
        num_classes = work.metadata("labels")["num_classes"]
    method = build_for(data, config.method, num_classes=num_classes, seed=work.seed)
    write_embeddings(work, "controls", method.embed(data))

    checkpoints = work.scratch() / "checkpoints"
    checks = CheckFolder(work.scratch() / "checks", check_epochs(config.train))
    if (missing := checks.first_missing()) is not None:  # its epoch must be trained again
        drop_checkpoints(checkpoints, from_epoch=missing)

    def on_epoch(report: EpochReport) -> None:
        if report.epoch in checks.epochs and not in_processes:  # the first of several takes them itself
            checks.keep(report.epoch, method.embed(data))
        work.progress(report.epoch, report.num_epochs, f"loss {report.terms['loss']:.4f}")

    run_training = train_method
    if in_processes:
        run_training = partial(
            train_in_processes, num_classes=num_classes, scratch=work.scratch(), shared=shared, checks=checks
        )
    with _stop_on_signal() as should_stop:
        result = run_training(
            method,
            data,
            config.train,
            seed=work.seed,
            device=work.device,
            checkpoint_dir=checkpoints,
            identity={kind: artifact.digest for kind, artifact in work.inputs.items()},
            on_epoch=on_epoch,
            should_stop=should_stop,
        )
    method.to("cpu")
    write_embeddings(work, "embeddings", method.embed(data))
    _write_checks(work, checks, num_nodes=data.num_nodes, num_epochs=config.train.epochs)
    save_weights(method, work.output("model") / "checkpoint.safetensors")
    (work.output("model") / "config.json").write_bytes(canonical_json(result_fields(config)) + b"\n")
    _write_history(work.output("model") / "history.parquet", result.history)
    _write_negatives(work, method, data)
    notes = method.notes(data)
    work.describe("model", {"epochs": len(result.history), "num_classes": num_classes, "notes": notes})
    work.expect("model.history", num_epochs=config.train.epochs)
    work.volatile("epoch_seconds.json").write_bytes(canonical_json(result.epoch_seconds))


def estimate(work: Work, config: TrainStageConfig) -> Estimate:
    """What the method takes, and its rows and embeddings on disk."""
    from gcl.methods.base import TrainingSize
    from gcl.methods.ensemble import ensemble_class

    graph, smoothed = work.metadata("graph"), work.metadata("smoothed")
    declared, num_nodes = method_class(config.method.name), int(graph["num_nodes"])
    reads_rows = "smoothed" in declared.inputs
    num_features = int(smoothed["num_features"] if reads_rows else graph["num_features"])
    entries: tuple[int, ...] = ()
    if "metapaths" in work.inputs:
        entries = tuple(int(row["num_entries"]) for row in work.metadata("metapaths")["metapaths"])
    size = TrainingSize(num_nodes, int(graph["num_edges"]), num_features, config.train.batch_size, entries)
    num_encoders = int(getattr(config.method, "num_encoders", 1))
    trained = ensemble_class(declared) if num_encoders > 1 else declared
    memory, count = trained.memory_estimate(config.method, size), config.train.num_processes
    if count > 1:  # each reads and augments the whole batch; torchrun is one more
        memory = {what: count * num_bytes for what, num_bytes in memory.items()}
        memory["processes"] = (count + 1) * _PROCESS_BYTES
    embeddings = 4 * num_nodes * config.method.embedding_size * num_encoders
    return Estimate(
        memory=memory,
        disk={
            "rows": 4 * num_nodes * num_features,
            "edges": 16 * size.num_edges * ("graph" in declared.inputs),
            "embeddings and those of the controls": 3 * embeddings,
            "checks": 4 * num_nodes * config.method.embedding_size * config.train.num_checks,
        },
        advice="set method.embedding_size or train.batch_size lower, or take method.name=dmat_i, which "
        "trains on rows alone and needs memory for a batch",
    )


def code_of(config: TrainStageConfig) -> tuple[str, ...]:
    """The modules the chosen method selects, so that editing another method does not re-run this one."""
    chosen = METHODS[config.method.name].partition(":")[0]
    # Started by its name, which no import shows.
    workers = ("gcl.torchrun_worker",) if config.train.num_processes > 1 else ()
    return (chosen, "gcl.trainer", "tasks.training_data", *workers, *reading_modules(config.method.inputs))


def write_embeddings(work: Work, kind: str, z_ND: np.ndarray) -> None:
    """Write an embeddings table with the source's node ids, and what its contract needs to know."""
    node_ids = read_node_ids(work.input("graph"))
    is_judged = kind == "embeddings" and len(z_ND) >= _MIN_NODES_TO_JUDGE and z_ND.shape[1] > 2
    write_matrix(
        work.output(kind) / "embeddings.parquet",
        f"{kind}.embeddings",
        z_ND,
        column="z",
        others={"node": np.arange(len(z_ND)), "node_id": node_ids},
        node_id_type=node_ids.type,
    )
    work.describe(
        kind, {"num_nodes": len(z_ND), "embedding_size": z_ND.shape[1], "graph": work.inputs["graph"].digest}
    )
    work.expect(
        f"{kind}.embeddings",
        num_nodes=len(z_ND),
        embedding_size=z_ND.shape[1],
        min_effective_rank=_MIN_EFFECTIVE_RANK if is_judged else 0.0,
    )


def _write_checks(work: Work, checks: "CheckFolder", *, num_nodes: int, num_epochs: int) -> None:
    """Write the checks artifact; a run without checks has none."""
    if not checks.epochs:
        return
    first = next(iter(checks))
    num_components = first.z_NK.shape[1]
    kept_shares: list[float] = []

    def rows() -> Iterator[tuple[int, np.ndarray]]:
        for check in checks:
            kept_shares.append(check.kept_share)
            yield check.epoch, check.z_NK

    write_checks(work.output("checks") / "checks.parquet", rows(), width=num_components)
    work.describe(
        "checks",
        {
            "num_nodes": num_nodes,
            "epochs": list(checks.epochs),
            "num_components": num_components,
            "kept_share": kept_shares,
            "graph": work.inputs["graph"].digest,
        },
    )
    work.expect(
        "checks.checks",
        num_rows=num_nodes * len(checks.epochs),
        num_nodes=num_nodes,
        num_epochs=num_epochs,
        num_checks=len(checks.epochs),
        num_components=num_components,
    )


def _write_negatives(work: Work, method: "Method", data: "TrainingData") -> None:
    """How the method weighs a sample of pairs as negatives, for methods that weigh them at all.

    It is written without labels; whether false negatives weigh less is for evaluation to say.
    """
    generator = numpy_generator(work.seed, "negatives")
    anchors_A = np.sort(generator.permutation(data.num_nodes)[:_ANCHORS])
    num_candidates = min(_CANDIDATES, data.num_nodes - 1)
    candidates_AM = generator.integers(1, data.num_nodes, (len(anchors_A), num_candidates))
    candidates_AM = (anchors_A[:, None] + candidates_AM) % data.num_nodes  # never the anchor itself
    pairs = method.negative_weights(data, anchors_A, candidates_AM, seed=work.seed)
    if pairs is None:
        return
    write_columns(
        work.output("negatives") / "pairs.parquet",
        "negatives.pairs",
        {
            "anchor": np.repeat(anchors_A, num_candidates),
            "candidate": candidates_AM.ravel(),
            "similarity": pairs.similarity_AM.ravel(),
            "weight": pairs.weight_AM.ravel(),
        },
    )
    bound = pairs.bound * (1 + _ROUNDING)
    work.expect("negatives.pairs", num_nodes=data.num_nodes, min_similarity=-bound, max_similarity=bound)


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    terms = [name for name in history[0] if name != "epoch"]
    columns = {name: np.array([row[name] for row in history]) for name in terms}
    columns["epoch"] = np.array([row["epoch"] for row in history], np.int32)
    write_columns(path, "model.history", columns, extra_columns=terms)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], str | None]]:
    """Turn SIGTERM and Ctrl-C into a request to stop after a checkpoint, then let them have their way.

    Signals can only be caught in the main thread; elsewhere whoever runs the thread must see to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: f"signal {signal.Signals(received[0]).name} received" if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            os.kill(os.getpid(), received[0])


TRAIN = Stage(
    name="train",
    version=1,
    body=train,
    tables=("model.history", "embeddings.embeddings", "controls.embeddings"),
    libraries=("numpy", "pyarrow", "safetensors", "scipy", "torch"),
    estimate=estimate,
)


def asks_for_classes(config: TrainStageConfig) -> bool:
    """Whether the method wants to know how many classes the labels declare, and nothing else of them."""
    return getattr(config.method, "num_clusters", None) == "classes"


def opens_labels(config: TrainStageConfig) -> bool:
    """Whether the method declares that it uses labels; told by the configuration, without importing torch."""
    return config.method.uses_labels
