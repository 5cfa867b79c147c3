"""The Prefect side of a stage: one task, cached under our key, with its story in log and artifacts."""

import logging
import time
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.transactions import IsolationLevel

from data_contracts.errors import ContractViolation
from gcl.errors import InvalidGraph
from tasks.artifact import Manifest
from tasks.events import contract_violated
from tasks.locks import FlockLockManager
from tasks.prefect_cache import KeyPolicy, Lookup, VerifyingSerializer, current_lookup
from tasks.progress import Progress, listening
from tasks.stage import Stage, StageRequest
from tasks.store import Store

_PROGRESS_SECONDS = 2.0


def call_stage(stage: Stage, request: StageRequest, store: Store, *, reason: str) -> tuple[Manifest, bool]:
    """Run `stage` as a Prefect task; returns its manifest, and whether the task's body was entered.

    Args:
        stage: what to run.
        request: its configuration, inputs and key.
        store: where results are looked up and published.
        reason: why it runs or is cached, for the log.
    """
    policy = KeyPolicy().configure(
        isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=FlockLockManager(store.root / ".locks")
    )

    entered: list[bool] = []  # stays empty where Prefect takes the result from the store

    @task(
        name=stage.name,
        task_run_name=f"{stage.name}-{request.key[:8]}",
        cache_policy=policy,
        persist_result=True,
        result_storage=Path(store.root / ".results"),
        result_serializer=VerifyingSerializer(),
        cache_result_in_memory=False,
        refresh_cache=request.refresh,
    )
    def execute(request: StageRequest) -> Manifest:
        entered.append(True)
        with listening(_ProgressArtifact()):
            return stage.execute(request, store)

    get_run_logger().info("%s: %s", stage.name, reason)
    token = current_lookup.set(Lookup(store, stage.name, request.key))
    try:
        return execute(request), bool(entered)
    except (ContractViolation, InvalidGraph) as violation:
        contract_violated(stage.name, violation)
        raise
    finally:
        current_lookup.reset(token)


class _ProgressArtifact:
    """Mirrors progress into a Prefect artifact, at most every two seconds."""

    def __init__(self) -> None:
        self._id: object = None
        self._next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_SECONDS
        percent = 100.0 * progress.done / max(progress.total, 1)
        try:
            if self._id is None:
                self._id = create_progress_artifact(
                    percent, description=f"{progress.stage} {progress.detail}"
                )
            else:
                update_progress_artifact(self._id, percent, description=f"{progress.stage} {progress.detail}")  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  progress is a courtesy; the work must not fail with it
            logging.getLogger(__name__).debug("progress artifact not written", exc_info=True)
