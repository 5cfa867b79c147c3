"""The Prefect side of a stage: one task, cached under our key, with its story in log and artifacts."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.transactions import IsolationLevel

from data_contracts.errors import ContractViolation
from gcl.errors import InvalidGraph
from tasks.artifact import Manifest
from tasks.events import contract_violated
from tasks.locks import FlockLockManager
from tasks.prefect_cache import KeyPolicy, Lookup, VerifyingSerializer, current_lookup, drop_foreign_record
from tasks.prefect_progress import ProgressArtifact, ProgressLog
from tasks.progress import listening
from tasks.stage import Stage, StageRequest
from tasks.store import Store


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
        with listening(ProgressArtifact()), listening(ProgressLog(get_run_logger())):
            return stage.execute(request, store)

    get_run_logger().info("%s: %s", stage.name, reason)
    drop_foreign_record(store.record_path(stage.name, request.key))
    token = current_lookup.set(Lookup(store, stage.name, request.key))
    try:
        return execute(request), bool(entered)
    except (ContractViolation, InvalidGraph) as violation:
        contract_violated(stage.name, violation)
        raise
    finally:
        current_lookup.reset(token)
