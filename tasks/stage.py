"""Stage: a cached, contracted unit of work, run as one Prefect task.

    open inputs (verify) -> convert -> one call into gcl -> convert -> check the contract -> publish

`Stage.execute` is that line, without Prefect. `Stage.run` wraps it in a Prefect task whose cache is the
store, and reports what happened.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializeAsAny

from data_contracts.errors import ContractViolation
from data_contracts.validate import ContractResult, check_table, require_contract
from tasks.artifact import (
    VOLATILE,
    Artifact,
    ContractSummary,
    FileEntry,
    Manifest,
    artifact_digest,
    canonical_json,
    files_below,
    hash_file,
)
from tasks.convert import num_rows, read_schema
from tasks.identity import explain_change, most_similar, stage_identity, stage_key
from tasks.limits import Estimate, require_fit
from tasks.memory import PeakMemory
from tasks.store import Store
from tasks.work import Work

logger = logging.getLogger(__name__)
_COMPARED_RUNS = 20  # the last ones, of which the most similar explains why a stage runs


class StageRequest(BaseModel):
    """What a stage's Prefect task is called with; small, and readable in the UI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    store: str
    config: SerializeAsAny[BaseModel]
    inputs: dict[str, Artifact]
    facts: dict[str, Any]
    identity: dict[str, Any]
    refresh: bool = False
    memory_limit: int | None = None


class StageReport(BaseModel):
    """What became of a stage in a run, as in ``run.json``.

    Attributes:
        state: ``ran`` or ``cached``.
        reason: why, in one line.
        seconds: wall time of this run's part of it.
        peak_rss_bytes: peak anonymous memory of the process tree while it ran.
        opened: kinds of the artifacts it was made from.
        notes: what a reader of the run must know of this stage, and no artifact says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    state: Literal["ran", "cached"]
    reason: str
    key: str
    seconds: float
    peak_rss_bytes: int
    artifacts: dict[str, Artifact]
    contracts: ContractSummary
    opened: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: its name, also its folder in the store.
        version: raised when the output changes for a reason the sources do not show.
        body: reads ``work.input``, computes, writes ``work.output``.
        tables: the contracted tables every run must write, as ``kind.table``.
        libraries: distributions whose versions join the key.
        modules: where its code starts; the body's module unless said otherwise.
        estimate: what it will take, from its inputs' metadata and its configuration; None where that cannot
            be known beforehand.
    """

    name: str
    version: int
    body: Callable[[Work, Any], None]
    tables: tuple[str, ...]
    libraries: tuple[str, ...]
    modules: tuple[str, ...] = field(default=())
    estimate: Callable[[Work, Any], Estimate] | None = None

    def request(
        self,
        config: BaseModel,
        *,
        store: Store,
        inputs: Mapping[str, Artifact],
        sources: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
        modules: Iterable[str] = (),
        refresh: bool = False,
        memory_limit: int | None = None,
    ) -> StageRequest:
        """Describe one execution, with its key.

        Args:
            config: the stage's configuration.
            store: where it reads and publishes.
            inputs: the artifacts it opens, by kind.
            sources: digests of source files by role, for a stage that reads files.
            facts: seed, device, and the like.
            modules: more code that this configuration selects, beside the stage's own.
            refresh: compute again even if the result is known.
            memory_limit: bytes of memory it may take; not part of the key. None: what there is.
        """
        identity = stage_identity(
            stage=self.name,
            version=self.version,
            config=config,
            inputs={**inputs, **(sources or {})},
            modules=[*(self.modules or (self.body.__module__,)), *modules],
            libraries=self.libraries,
            facts=facts or {},
        )
        return StageRequest(
            stage=self.name,
            key=stage_key(identity),
            store=store.address,
            config=config,
            inputs=dict(inputs),
            facts=dict(facts or {}),
            identity=identity,
            refresh=refresh,
            memory_limit=memory_limit,
        )

    def execute(self, request: StageRequest, store: Store) -> Manifest:
        """Compute, check and publish; or return what is published already. Needs no Prefect.

        Raises:
            ContractViolation: an output breaks its contract; it is kept in the quarantine.
            ContractNotEvaluated: a contract could not be evaluated.
            ArtifactCorrupted: an input is gone or damaged.
            DoesNotFit: it would take more memory or disk than there is.
            StoreFull: there is no room for the output.
        """
        if not request.refresh and (known := store.find(self.name, request.key)):
            return known
        if request.refresh:  # computed again means from the start, not from a checkpoint that was left behind
            store.discard_scratch(self.name, request.key)
        started = time.monotonic()
        with store.writing(self.name, request.key) as folder, PeakMemory() as memory:
            work = Work(
                stage=self.name,
                key=request.key,
                store=store,
                folder=folder,
                inputs=request.inputs,
                facts=request.facts,
                memory_limit=request.memory_limit,
            )
            checked = _check_inputs(work)
            if self.estimate is not None:
                estimate = self.estimate(work, request.config)
                require_fit(self.name, estimate, memory_limit=request.memory_limit, folder=folder)
            try:
                self.body(work, request.config)
            except (FileNotFoundError, FileExistsError):
                # Unfinished work is shared by all that compute a key; the first to publish removes it, and a
                # folder that goes while another makes it is reported as one that exists and is none.
                if not request.refresh and (winner := store.find(self.name, request.key)):
                    return winner
                raise
            try:
                results = _check_outputs(work, self.tables)
            except ContractViolation as violation:
                store.quarantine(folder, str(violation))
                raise
            checked += sum(result.passed for result in results)
            _write_timing(work, seconds=time.monotonic() - started, peak_bytes=memory.num_bytes)
            manifest = _manifest(work, request.identity, ContractSummary(passed=checked))
            return store.publish(folder, manifest, replace=request.refresh)

    def run(self, request: StageRequest, store: Store) -> StageReport:
        """Run as a Prefect task, cached by the store, and report.

        Raises:
            as `execute`.
        """
        from tasks.orchestrate import call_stage

        was_there = store.is_there(self.name, request.key)
        known = store.find(self.name, request.key)
        state: Literal["ran", "cached"] = "ran" if known is None or request.refresh else "cached"
        reason = self._reason(request, store, known=known, was_there=was_there)
        started = time.monotonic()
        with PeakMemory() as memory:
            manifest, was_entered = call_stage(self, request, store, reason=reason)
        if state == "ran" and not was_entered:  # it waited for the lock of a run that was computing the same
            state, reason = "cached", "another run has computed it meanwhile"
        return StageReport(
            stage=self.name,
            state=state,
            reason=reason,
            key=request.key,
            seconds=round(time.monotonic() - started, 3),
            peak_rss_bytes=memory.num_bytes,
            artifacts=manifest.artifacts,
            contracts=manifest.contracts,
            opened=tuple(request.inputs),
            notes=self._exceeded(request, memory.num_bytes) if state == "ran" else (),
        )

    def _exceeded(self, request: StageRequest, peak_bytes: int) -> tuple[str, ...]:
        """A note, and a warning, where it has taken more memory than it was to take."""
        limit = request.memory_limit
        if limit is None or peak_bytes <= limit:
            return ()
        note = (
            f"stage {self.name} took {peak_bytes / 1e6:,.0f} MB of memory at its peak, and memory_limit "
            f"allows {limit / 1e6:,.0f} MB"
        )
        logger.warning("%s", note)
        return (note,)

    def _reason(self, request: StageRequest, store: Store, *, known: Manifest | None, was_there: bool) -> str:
        if request.refresh:
            return "refresh was asked for"
        if known is not None:
            return f"key {request.key[:12]} is in the store, intact"
        if was_there:
            return "its artifact was damaged; that is in the quarantine now"
        if store.record_path(self.name, request.key).exists():
            return "its artifact was missing"
        recent = [manifest.identity for manifest in store.recent(self.name, _COMPARED_RUNS)]
        nearest = most_similar(request.identity, recent)
        if nearest is None:
            return "first run of this stage in this store"
        which = "the last run" if nearest == 0 else "the most similar run"
        return f"changed since {which}: {explain_change(request.identity, recent[nearest])}"


def _check_inputs(work: Work) -> int:
    checked = 0
    for kind in work.inputs:
        for path in sorted(work.input(kind).glob("*.parquet")):
            require_contract(read_schema(path), f"{kind}.{path.stem}")
            checked += 1
    return checked


def _check_outputs(work: Work, required: Iterable[str]) -> list[ContractResult]:
    """Check every Parquet table written, in the order of their names, and write Data Docs beside them."""
    from data_contracts.docs import write_data_docs

    written = {f"{path.parent.name}.{path.stem}": path for path in sorted(work.folder.glob("*/*.parquet"))}
    for table in required:
        if table not in written:
            raise FileNotFoundError(f"stage {work.stage} has not written its table {table}")
    results: list[ContractResult] = []
    try:
        for table, path in written.items():
            results.append(check_table(path, table, context=work.expectations.get(table, {})))
    except ContractViolation as violation:
        if violation.result is not None:
            results.append(violation.result)
        raise
    finally:
        write_data_docs(work.volatile("data_docs"), results)
    return results


def _write_timing(work: Work, *, seconds: float, peak_bytes: int) -> None:
    work.volatile("timing.json").write_bytes(
        canonical_json({"seconds": seconds, "peak_rss_bytes": peak_bytes})
    )


def _manifest(work: Work, identity: dict[str, Any], contracts: ContractSummary) -> Manifest:
    files = {path.relative_to(work.folder).as_posix(): hash_file(path) for path in files_below(work.folder)}
    kinds = sorted({name.partition("/")[0] for name in files} - {VOLATILE})
    return Manifest(
        stage=work.stage,
        key=work.key,
        identity=identity,
        artifacts={kind: _artifact(work, kind, files) for kind in kinds},
        files=files,
        contracts=contracts,
    )


def _artifact(work: Work, kind: str, files: Mapping[str, FileEntry]) -> Artifact:
    own = {name.partition("/")[2]: entry for name, entry in files.items() if name.startswith(f"{kind}/")}
    return Artifact(
        kind=kind,
        uri=f"{work.stage}/{work.key}/{kind}",
        digest=artifact_digest(own),
        num_bytes=sum(entry.num_bytes for entry in own.values()),
        num_rows={path.stem: num_rows(path) for path in sorted((work.folder / kind).glob("*.parquet"))},
    )
