"""What a name says of a trained model: its settings, and the artifacts that scoring with it opens.

A name is a series (its last good run), the beginning of a run's id, or the beginning of a model's digest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from gcl.clustering.config import ClusterConfig
from gcl.config import Config
from gcl.errors import UnsuitableSetting
from gcl.methods.configs import MethodConfig
from gcl.readers import READERS, AnyDataset
from gcl.smoothing import SmoothingConfig
from gcl.trainer_config import TrainConfig
from tasks.artifact import Artifact, Manifest
from tasks.errors import ArtifactCorrupted, UnknownArtifact
from tasks.runs import RunEntry, Runs, UnknownRun
from tasks.store import Store

_NEEDED, _IF_THERE = ("model", "embeddings"), ("clusters",)


class ModelSettings(Config):
    """The settings of a run that its model depends on, and those of its clusters."""

    dataset: AnyDataset = Field(description="where the graph comes from")
    smooth: SmoothingConfig = Field(description="the graph filter")
    method: MethodConfig = Field(description="the contrastive method")
    train: TrainConfig = Field(description="optimisation")
    cluster: ClusterConfig = Field(description="clustering")


@dataclass(frozen=True)
class TrainedModel:
    """A model of the store.

    Attributes:
        name: what it was asked for by.
        run: id of its run in the register; None where it was found by digest.
        settings: of its run, with the new source in place of the old one.
        artifacts: model and embeddings, and clusters where its run has them; all of them intact.
        seed: of its run.
        memory_limit: of its run, bytes; None: what there is.
    """

    name: str
    run: str | None
    settings: ModelSettings
    artifacts: dict[str, Artifact]
    seed: int
    memory_limit: int | None = None


def find_model(store: Store, name: str, *, path: Path | None = None) -> TrainedModel:
    """The model that `name` says, to be used on another source.

    Args:
        store: where it lies.
        name: a series, the beginning of a run's id or of a model's digest.
        path: the new source, in place of the ``dataset.path`` of its run; None: that of its run.

    Raises:
        UnknownArtifact: nothing has this name, or what it names is gone from the store.
        UnsuitableSetting: its settings are from another version, or do not go with `path`.
    """
    runs = Runs(store)
    try:
        entry = runs.find(name)
    except UnknownRun as unknown:
        if name in runs.series():
            raise
        manifest = _manifest_of(store, name, str(unknown))
        return _model(store, name, _by_digest(store, manifest), path=path)
    return _model(store, name, _by_run(entry), path=path)


@dataclass(frozen=True)
class _Found:
    """What is known of a model before anything is checked."""

    run: str | None
    sections: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    seed: int
    memory_limit: int | None = None


def _by_run(entry: RunEntry) -> _Found:
    return _Found(entry.run, entry.config, entry.artifacts, entry.seed, entry.config.get("memory_limit"))


def _manifest_of(store: Store, digest: str, unknown_run: str) -> Manifest:
    """The manifest of the training whose model (or key) begins so."""
    try:
        if not digest:
            raise UnknownArtifact("the name is empty")
        manifest, artifact = store.locate(digest)
    except UnknownArtifact as unknown:
        raise UnknownArtifact(
            f"there is no model {digest!r} in store {store.address}: {unknown_run}; {unknown}; "
            "gclflow store runs lists the runs, which are those with --series that went through to the "
            "report; the model of any other is named by its digest"
        ) from None
    if "model" not in manifest.artifacts:
        raise UnknownArtifact(
            f"{digest!r} is no model: it is {artifact.kind}, made by stage {manifest.stage}"
        )
    return manifest


def _by_digest(store: Store, trained: Manifest) -> _Found:
    """The settings as the manifests of the stages before and after training have them."""
    inputs, config = trained.identity["inputs"], trained.identity["config"]
    smooth = next(_made(store, "smooth", "smoothed", inputs.get("smoothed")), None)
    ingest = next(_made(store, "ingest", "graph", inputs.get("graph")), None)
    if smooth is None or ingest is None:
        raise UnknownArtifact(
            f"how the graph of model {trained.artifacts['model'].digest[:12]} was made is no longer in the "
            "store: name a run instead, or train again"
        )
    embeddings = trained.artifacts["embeddings"].digest
    clusterings = [
        manifest
        for manifest in store.manifests()
        if manifest.stage == "cluster" and manifest.identity["inputs"].get("embeddings") == embeddings
    ]
    newest = max(clusterings, key=lambda found: store.published_at(found) or 0.0, default=None)
    sections = {
        "dataset": ingest.identity["config"],
        "smooth": smooth.identity["config"],
        "method": config["method"],
        "train": config["train"],
        "cluster": {} if newest is None else newest.identity["config"],
    }
    artifacts = trained.artifacts | ({} if newest is None else newest.artifacts)
    return _Found(None, sections, artifacts, int(trained.identity["facts"].get("seed", 0)))


def _made(store: Store, stage: str, kind: str, digest: str | None) -> Iterator[Manifest]:
    for manifest in store.manifests():
        artifact = manifest.artifacts.get(kind)
        if manifest.stage == stage and artifact is not None and artifact.digest == digest:
            yield manifest


def _model(store: Store, name: str, found: _Found, *, path: Path | None) -> TrainedModel:
    sections = {section: found.sections.get(section, {}) for section in ModelSettings.model_fields}
    sections["dataset"] = _elsewhere(sections["dataset"], path, by_run=found.run is not None)
    try:
        settings = ModelSettings.model_validate(sections)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnsuitableSetting(
            f"the settings of model {name!r} are from another version of gclflow ({where}: {first['msg']}): "
            "train it again"
        ) from None
    wanted = [*_NEEDED, *(kind for kind in _IF_THERE if kind in found.artifacts)]
    artifacts = _opened(store, name, found.artifacts, wanted)
    return TrainedModel(name, found.run, settings, artifacts, found.seed, found.memory_limit)


def _elsewhere(dataset: Mapping[str, Any], path: Path | None, *, by_run: bool) -> dict[str, Any]:
    """The data set's settings with the new source; nothing is held out of what is scored."""
    changed = {**dataset, "edge_holdout": 0.0}
    reader = READERS.get(str(dataset.get("format")))
    reads_files = reader is None or "path" in reader.config.model_fields
    if path is not None and not reads_files:
        raise UnsuitableSetting(
            f"the model's data set is generated (dataset.format={dataset['format']}): it has no --path"
        )
    if path is None and reads_files and not by_run:
        raise UnsuitableSetting("a model that is named by its digest does not know its source: give --path")
    return changed if path is None else {**changed, "path": str(path)}


def _opened(
    store: Store, name: str, artifacts: Mapping[str, Artifact], kinds: list[str]
) -> dict[str, Artifact]:
    """The artifacts of these kinds, verified."""
    opened = {}
    for kind in kinds:
        try:
            if kind not in artifacts:
                raise ArtifactCorrupted(kind, "was not made")
            store.open(artifacts[kind])
        except ArtifactCorrupted as error:
            raise UnknownArtifact(f"the {kind} of {name!r} cannot be used: {error}; run it again") from None
        opened[kind] = artifacts[kind]
    return opened
