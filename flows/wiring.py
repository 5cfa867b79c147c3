"""How the stages are wired: each is handed its configuration and the artifacts it opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flows.config import ConfigurationError, PipelineConfig, StageName, stages_of
from gcl.errors import UnsuitableSetting
from gcl.propagation import resolve_backend
from tasks.artifact import Artifact
from tasks.cluster import CLUSTER
from tasks.evaluate import EVALUATE
from tasks.identity import resolve_device
from tasks.ingest import INGEST, source_digests
from tasks.ingest import code_of as ingest_code_of
from tasks.metapaths import METAPATHS
from tasks.report import REPORT, ReportConfig, templates_digest
from tasks.smooth import METAPATH_MODULES, SMOOTH
from tasks.stage import Stage, StageReport, StageRequest
from tasks.store import Store
from tasks.train import TRAIN, TrainStageConfig, asks_for_classes, code_of, opens_labels
from tasks.uncertainty import UNCERTAINTY
from tasks.work import read_metadata


@dataclass
class PipelineState:
    """What a running pipeline knows: its configuration, store, and the artifacts so far.

    Attributes:
        refresh: stages to compute again even if their results are known.
    """

    config: PipelineConfig
    store: Store
    refresh: Sequence[str] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)

    def opened(self, *kinds: str) -> dict[str, Artifact]:
        """The artifacts of these kinds."""
        return {kind: self.artifacts[kind] for kind in kinds}

    def opened_if_there(self, *kinds: str) -> dict[str, Artifact]:
        """Those of these artifacts that the run has: not every method and configuration makes them."""
        return {kind: self.artifacts[kind] for kind in kinds if kind in self.artifacts}

    def refreshes(self, stage: Stage) -> bool:
        """Whether this stage is to be computed again."""
        return stage.name in self.refresh


def request_ingest(state: PipelineState) -> StageRequest:
    """Source files -> graph, labels."""
    dataset = state.config.dataset
    return INGEST.request(
        dataset,
        store=state.store,
        inputs={},
        sources=source_digests(dataset, state.store),
        modules=ingest_code_of(dataset),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(INGEST),
    )


def request_metapaths(state: PipelineState) -> StageRequest:
    """Hetero -> metapaths, graph."""
    return METAPATHS.request(
        state.config.metapaths,
        store=state.store,
        inputs=state.opened("hetero"),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(METAPATHS),
    )


def request_smooth(state: PipelineState) -> StageRequest:
    """Graph, metapaths where there are any -> smoothed."""
    metapaths = state.opened_if_there("metapaths")
    return SMOOTH.request(
        state.config.smooth,
        store=state.store,
        inputs=state.opened("graph") | metapaths,
        facts={"backend": resolve_backend("auto", "cpu")},
        modules=METAPATH_MODULES if metapaths else (),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(SMOOTH),
    )


def request_train(state: PipelineState) -> StageRequest:
    """Smoothed, graph (labels where the method declares it) -> model, embeddings, controls, checks if asked.

    Raises:
        UnsuitableSetting: clustering will need checks and training is to take none.
    """
    config = _train_config(state)
    if state.config.cluster.algorithm == "consensus" and not config.train.num_checks:
        raise UnsuitableSetting(
            "cluster.algorithm=consensus needs checks of the training run; set train.num_checks, for example "
            "to 20"
        )
    labels = ("labels",) if opens_labels(config) else ()
    return TRAIN.request(
        config,
        store=state.store,
        inputs=state.opened("graph", "smoothed", *labels) | _other_inputs(state),
        facts={"seed": state.config.seed, "device": resolve_device(state.config.device)}
        | ({"num_classes": _num_classes(state)} if asks_for_classes(config) else {}),
        modules=code_of(config),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(TRAIN),
    )


def request_uncertainty(state: PipelineState) -> StageRequest:
    """Embeddings, smoothed, graph, model -> uncertainty."""
    needs_number = state.config.uncertainty.method != "affinity"
    embeds_views = state.config.uncertainty.method == "augmentation"
    return UNCERTAINTY.request(
        state.config.uncertainty,
        store=state.store,
        inputs=state.opened("embeddings", "smoothed", "graph", "model")
        | (_other_inputs(state) if embeds_views else {}),
        facts={"seed": state.config.seed} | (_known_number(state) if needs_number else {}),
        modules=code_of(_train_config(state)) if embeds_views else (),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(UNCERTAINTY),
    )


def request_cluster(state: PipelineState) -> StageRequest:
    """Embeddings, graph (checks for a consensus) -> clusters.

    Of the labels, only the number of classes, and only if asked for.
    """
    asked = state.config.cluster.num_clusters == "classes"
    checks = state.opened_if_there("checks") if state.config.cluster.algorithm == "consensus" else {}
    return CLUSTER.request(
        state.config.cluster,
        store=state.store,
        inputs=state.opened("embeddings", "graph") | checks,
        facts={"seed": state.config.seed} | ({"num_classes": _num_classes(state)} if asked else {}),
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(CLUSTER),
    )


def request_evaluate(state: PipelineState) -> StageRequest:
    """Everything so far, and the labels -> metrics, predictions."""
    return EVALUATE.request(
        state.config.evaluate,
        store=state.store,
        inputs=state.opened(
            "labels", "graph", "smoothed", "embeddings", "controls", "clusters", "uncertainty"
        )
        | state.opened_if_there("negatives", "checks"),
        facts={"seed": state.config.seed},
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(EVALUATE),
    )


def request_report(state: PipelineState) -> StageRequest:
    """All of them -> report."""
    return REPORT.request(
        ReportConfig(
            title=f"{state.config.dataset.name}, {state.config.method.name}, seed {state.config.seed}"
        ),
        store=state.store,
        inputs=state.opened(*sorted(state.artifacts)),
        facts={"templates": templates_digest()},
        memory_limit=state.config.memory_limit,
        refresh=state.refreshes(REPORT),
    )


def _other_inputs(state: PipelineState) -> dict[str, Artifact]:
    """What the method reads beside graph and smoothed rows."""
    declared = [kind for kind in ("metapaths", "collection") if kind in state.config.method.inputs]
    return state.opened_if_there(*declared)


def _train_config(state: PipelineState) -> TrainStageConfig:
    return TrainStageConfig(method=state.config.method, train=state.config.train)


def _num_classes(state: PipelineState) -> int | None:
    found: int | None = read_metadata(state.store.open(state.artifacts["labels"]))["num_classes"]
    return found


def _known_number(state: PipelineState) -> dict[str, int | None]:
    """The number of clusters, where the configuration settles it before clustering."""
    number = state.config.cluster.num_clusters
    if number == "classes":
        return {"num_clusters": _num_classes(state)}
    return {"num_clusters": number} if isinstance(number, int) else {}


STAGES: dict[StageName, tuple[Stage, Callable[[PipelineState], StageRequest]]] = {
    "ingest": (INGEST, request_ingest),
    "metapaths": (METAPATHS, request_metapaths),
    "smooth": (SMOOTH, request_smooth),
    "train": (TRAIN, request_train),
    "uncertainty": (UNCERTAINTY, request_uncertainty),
    "cluster": (CLUSTER, request_cluster),
    "evaluate": (EVALUATE, request_evaluate),
    "report": (REPORT, request_report),
}


def run_stages(state: PipelineState, *, until: StageName | None = None) -> PipelineState:
    """Run the stages in order, up to and including `until`; each as a Prefect task of the current flow.

    Raises:
        as `tasks.stage.Stage.execute`, SourceUnreadable for missing source files, and ConfigurationError for
            a stage that this run does not have.
    """
    stages = stages_of(state.config)
    for name in (*state.refresh, *([until] if until else [])):
        if name not in stages:
            raise ConfigurationError(
                f"this run has no stage {name}: dataset.format={state.config.dataset.format} has one node "
                f"type; its stages are: {', '.join(stages)}"
            )
    for name in stages:
        stage, make_request = STAGES[name]
        report = stage.run(make_request(state), state.store)
        state.artifacts.update(report.artifacts)
        state.reports.append(report)
        if name == until:
            break
    return state
