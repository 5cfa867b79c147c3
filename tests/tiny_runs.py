"""A pipeline small enough for tests: its settings, and a way to run it stage by stage without Prefect."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.config import PipelineConfig, load_config, stages_of
from flows.wiring import STAGES, PipelineState
from tasks.artifact import Artifact, Manifest, artifact_digest, files_below, hash_file
from tasks.store import Store

TINY = (
    "dataset.format=synthetic", "dataset.name=tiny", "dataset.nodes=120", "dataset.features=8",
    "dataset.classes=3", "method.name=dmat_i", "method.embedding_size=8", "train.epochs=2",
    "train.batch_size=64", "cluster.num_clusters=3", "cluster.num_restarts=1", "cluster.num_stability_runs=0",
    "evaluate.num_splits=1", "evaluate.num_clustering_seeds=1", "evaluate.num_restarts=1",
    "evaluate.probe_c=[0.25, 1.0]",
)  # fmt: skip


def tiny(*overrides: str) -> PipelineConfig:
    """The tiny pipeline with some settings changed, as `--set` would change them."""
    return load_config(preset="none", overrides=[*TINY, *overrides])[0]


PLAIN_STAGES = stages_of(tiny())
"""The stages of a run on a graph of one node type."""


@dataclass
class DirectRun:
    """A run without Prefect: which stages were computed, and what came out."""

    state: PipelineState
    ran: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        return {kind: artifact.digest for kind, artifact in self.state.artifacts.items()}


def run_direct(
    config: PipelineConfig,
    store: Path | str,
    *,
    until: str | None = None,
    refresh: Sequence[str] = (),
) -> DirectRun:
    """Run the stages as the flow does, but call them instead of Prefect tasks."""
    run = DirectRun(PipelineState(config, Store(store), refresh=refresh))
    for name in stages_of(config):
        stage, make_request = STAGES[name]
        request = make_request(run.state)
        run.keys[name] = request.key
        if request.refresh or run.state.store.find(name, request.key) is None:
            run.ran.append(name)
        run.state.artifacts.update(stage.execute(request, run.state.store).artifacts)
        if name == until:
            break
    return run


def key_of(text: str) -> str:
    """A key for artifacts that no stage made."""
    return hashlib.sha256(text.encode()).hexdigest()


def describe_folder(
    folder: Path, stage: str, key: str, *, inputs: Mapping[str, str] | None = None
) -> Manifest:
    """The manifest of a folder as a stage would write it."""
    files = {path.relative_to(folder).as_posix(): hash_file(path) for path in files_below(folder)}
    artifacts = {}
    for kind in sorted({name.partition("/")[0] for name in files} - {"volatile"}):
        own = {name.partition("/")[2]: entry for name, entry in files.items() if name.startswith(f"{kind}/")}
        artifacts[kind] = Artifact(
            kind=kind,
            uri=f"{stage}/{key}/{kind}",
            digest=artifact_digest(own),
            num_bytes=sum(entry.num_bytes for entry in own.values()),
            num_rows={},
        )
    identity = {"inputs": dict(inputs or {})}
    return Manifest(stage=stage, key=key, identity=identity, artifacts=artifacts, files=files)


def publish(
    store: Store,
    stage: str,
    key: str,
    files: Mapping[str, bytes],
    *,
    inputs: Mapping[str, str] | None = None,
    replace: bool = False,
) -> Manifest:
    """Publish a folder that holds `files`, by path relative to it."""
    with store.writing(stage, key) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return store.publish(folder, describe_folder(folder, stage, key, inputs=inputs), replace=replace)
