"""Scoring as a Prefect flow: new nodes are embedded by the model of an earlier run, without training."""

import json
import logging
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from flows.config import ConfigurationError
from flows.exit_codes import failures_left_in
from flows.orphan import ends_with_worker
from flows.outputs import replace_file
from flows.record import stage_entry, versions
from flows.score_running import RESULT_FILES
from gcl.errors import UnsuitableSetting
from gcl.evaluation.embedding_shift import ShiftConfig
from gcl.propagation import resolve_backend
from gcl.readers import reader_of
from tasks.artifact import Artifact
from tasks.convert import read_rows
from tasks.ingest import INGEST, source_digests
from tasks.maintenance import open_store
from tasks.prefect_artifacts import show_run
from tasks.score import SCORE, ScoreStageConfig, export_scores, require_inductive
from tasks.scored_nodes import WantedNodes
from tasks.source_digests import digest_sources
from tasks.stage import StageReport, StageRequest
from tasks.store import Store
from tasks.train import TrainStageConfig, code_of
from tasks.trained_model import TrainedModel, find_model
from tasks.work import read_metadata

logger = logging.getLogger(__name__)


class ShiftRow(BaseModel):
    """One measure of the model on the new data; no value where it was not judged, no bound for any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    value: float | None
    bound: float | None


class ScoreRecord(BaseModel):
    """``score.json``.

    Attributes:
        model: what the model was asked for by.
        run: id of its run in the register of runs.
        model_digest: of the model artifact.
        dataset: name of the data set.
        method: name of the method.
        nodes: which were asked for: ``new``, ``all`` or ``listed``.
        num_nodes: count of nodes of the new data.
        num_known: count of those that training has seen.
        num_new: count of those it has not.
        num_missing: count of training nodes that the new data lack.
        num_scored: count of nodes that were asked for.
        num_outliers: count of those that lie farther out than 99 % of the training nodes.
        shift: the measures with their bounds.
        notes: what a reader must know.
        stages: what ran and what was cached.
        store: where it all lies.
        versions: of gclflow and what results depend on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    run: str | None
    model_digest: str
    dataset: str
    method: str
    nodes: str
    num_nodes: int
    num_known: int
    num_new: int
    num_missing: int
    num_scored: int
    num_outliers: int
    shift: tuple[ShiftRow, ...]
    notes: tuple[str, ...]
    stages: tuple[dict[str, Any], ...]
    store: str
    versions: dict[str, str]


def _run_name() -> str:
    """Data set, method, model and which nodes; their number replaces that once it is known."""
    given = flow_run.parameters
    model, nodes = str(given.get("model")), str(given.get("nodes", "new"))
    try:
        path = given.get("path")
        found = find_model(open_store(str(given.get("store", ".store"))), model, path=path and Path(path))
    except Exception:  # the run itself says what is wrong
        return f"score-{model}-{Path(nodes).name}"
    return f"{_named(found)}-{Path(nodes).name}"


@flow(name="score", flow_run_name=_run_name, persist_result=False)
@ends_with_worker()
def score(
    model: str = "nightly",
    path: str | None = None,
    nodes: str = "new",
    store: str = ".store",
    out: str | None = None,
    bounds: ShiftConfig = ShiftConfig(),  # noqa: B008  frozen
    refresh: bool = False,
) -> ScoreRecord:
    """Embed nodes that came after training with the model of an earlier run; nothing is trained.

    Args:
        model: a series (its last good run), the beginning of a run's id, or of a model's digest.
        path: the source with the new nodes, in the format of the model's data set; none takes that data set's
            own path, for a source that grows.
        nodes: ``new`` (those that training has not seen), ``all``, or a text file of ids, one a line.
        store: directory of the artifacts; it must hold the model.
        out: directory for ``scores.parquet`` and ``score.json``; none writes none. A run that fails leaves
            ``failure.json`` there, in their place.
        bounds: how far the model may have drifted from the new data.
        refresh: compute the scores again even if they are known.

    Returns:
        What happened, and how well the model still fits.

    Raises:
        UnknownArtifact: there is no such model.
        UnsuitableSetting: its method or preparation knows no new nodes, or nodes are asked for that are not
            there.
        ContractViolation: the model has drifted beyond its bounds; the scores are in the quarantine.
    """
    with failures_left_in(out, instead_of=RESULT_FILES):
        opened = open_store(store)
        found = find_model(opened, model, path=None if path is None else Path(path))
        require_one_graph(found)
        require_inductive(found.settings.method, found.settings.smooth)
        which = _which(nodes)
        reports: list[StageReport] = []
        artifacts: dict[str, Artifact] = dict(found.artifacts)
        try:
            reports.append(INGEST.run(request_ingest(opened, found), opened))
            artifacts["graph"] = reports[-1].artifacts["graph"]
            request = request_score(opened, found, artifacts["graph"], nodes, bounds, refresh=refresh)
            reports.append(SCORE.run(request, opened))
            artifacts["scores"] = reports[-1].artifacts["scores"]
        except Exception as error:
            show_run(opened, artifacts, reports, error=error)
            raise
        record = _record(opened, found, artifacts["scores"], reports, nodes=which)
        if out is not None:
            _export(opened.path(artifacts["scores"]), record, Path(out))
            get_run_logger().info("results in %s", Path(out).resolve())
        show_run(opened, artifacts, reports)
        _show(record, found)
        return record


def require_one_graph(model: TrainedModel) -> None:
    """Refuse a model whose rows are not the nodes of a plain graph.

    Raises:
        UnsuitableSetting: its data have several node types, or are many graphs.
    """
    dataset = model.settings.dataset
    if reader_of(dataset.format).holds != "graph":
        raise UnsuitableSetting(
            f"model {model.name} is of data with dataset.format={dataset.format}, and scoring embeds new "
            "nodes of one graph of one node type: run the pipeline on the new data"
        )


def request_ingest(store: Store, model: TrainedModel) -> StageRequest:
    """The new source -> graph, labels; the labels are left alone."""
    dataset = model.settings.dataset
    return INGEST.request(
        dataset,
        store=store,
        inputs={},
        sources=source_digests(dataset, store),
        memory_limit=model.memory_limit,
    )


def request_score(
    store: Store,
    model: TrainedModel,
    graph: Artifact,
    nodes: str,
    bounds: ShiftConfig,
    *,
    refresh: bool,
) -> StageRequest:
    """New graph, model, embeddings, clusters of training -> scores."""
    settings = model.settings
    which = _which(nodes)
    files = {"nodes": Path(nodes)} if which == "listed" else {}
    config = ScoreStageConfig(
        smooth=settings.smooth,
        normalise=settings.cluster.normalise,
        nodes=which,
        nodes_file=files.get("nodes"),
        shift=bounds,
    )
    return SCORE.request(
        config,
        store=store,
        inputs={"graph": graph, **model.artifacts},
        sources={f"source:{role}": digest for role, digest in digest_sources(files, None).items()},
        facts={"seed": model.seed, "backend": resolve_backend("auto", "cpu")},
        modules=code_of(TrainStageConfig(method=settings.method, train=settings.train)),
        memory_limit=model.memory_limit,
        refresh=refresh,
    )


def _which(nodes: str) -> WantedNodes:
    """What `nodes` asks for.

    Raises:
        ConfigurationError: neither a known word nor a file.
    """
    if nodes in ("new", "all"):
        return "new" if nodes == "new" else "all"
    try:
        is_file = Path(nodes).is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_file = False
    if not is_file:
        raise ConfigurationError(f"--nodes takes new, all, or a file of ids, one a line: got {nodes!r:.80}")
    return "listed"


def _record(
    store: Store, model: TrainedModel, scores: Artifact, reports: list[StageReport], *, nodes: str
) -> ScoreRecord:
    folder = store.open(scores)
    facts = read_metadata(folder)
    return ScoreRecord(
        model=model.name,
        run=model.run,
        model_digest=model.artifacts["model"].digest,
        dataset=model.settings.dataset.name,
        method=model.settings.method.name,
        nodes=nodes,
        **{name: facts[name] for name in ScoreRecord.model_fields if name.startswith("num_")},
        shift=tuple(ShiftRow.model_validate(row) for row in read_rows(folder / "shift.parquet")),
        notes=(*facts["notes"], *(note for report in reports for note in report.notes)),
        stages=tuple(stage_entry(report) for report in reports),
        store=store.address,
        versions=versions(),
    )


def _export(scores: Path, record: ScoreRecord, out: Path) -> None:
    """Write ``scores.parquet``, then ``score.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "failure.json").unlink(missing_ok=True)
    export_scores(scores, out / "scores.parquet")
    text = json.dumps(record.model_dump(mode="json"), indent=1) + "\n"
    replace_file(out / "score.json", text.encode())


def _named(model: TrainedModel) -> str:
    return f"{model.settings.dataset.name}-{model.settings.method.name}-{model.name}"


def _show(record: ScoreRecord, model: TrainedModel) -> None:
    """The measures as an artifact, and the number of nodes in the run's name; failing to is logged."""
    log = get_run_logger()
    for note in record.notes:
        log.info("%s", note)
    try:
        rows = [row.model_dump() | {"nodes scored": record.num_scored} for row in record.shift]
        create_table_artifact(key="shift", table=rows, description="How well the model fits the new data")
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=f"{_named(model)}-{record.num_scored}-nodes")
    except Exception:
        logger.exception("the shift could not be shown")
