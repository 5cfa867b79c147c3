"""A stage without Prefect: checked inputs, checked outputs, published or quarantined."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import ContractIncompatible, ContractViolation
from gcl.config import Config
from gcl.errors import NonFiniteLoss
from tasks.convert import write_matrix
from tasks.stage import Stage, StageRequest
from tasks.store import Store
from tasks.work import Work
from tests.tiny_runs import run_direct, tiny

RUNS: list[str] = []


class Nothing(Config):
    """A stage without settings."""


def write_rows(work: Work, value: float = 0.5, *, table: str = "smoothed.features") -> None:
    RUNS.append(work.key)
    x_NF = np.full((4, 2), value, np.float32)
    write_matrix(work.output("smoothed") / "features.parquet", table, x_NF, others={"node": np.arange(4)})
    work.expect("smoothed.features", num_nodes=4, num_features=2)


def body(work: Work, config: Nothing) -> None:
    write_rows(work)


def broken_body(work: Work, config: Nothing) -> None:
    write_rows(work, np.nan)


def forgetful_body(work: Work, config: Nothing) -> None:
    work.describe("smoothed", {})


def failing_body(work: Work, config: Nothing) -> None:
    write_rows(work)
    raise NonFiniteLoss(1, "loss")


def checkpointing_body(work: Work, config: Nothing) -> None:
    """Notes how many executions shared its scratch folder, and fails the first time."""
    note = work.scratch() / "note"
    resumed = note.exists()
    note.write_text("")
    work.describe("smoothed", {})
    if not resumed and not work.facts["refresh"]:
        raise NonFiniteLoss(1, "loss")
    write_rows(work)
    work.volatile("resumed.json").write_text(json.dumps(resumed))


def stage(function: object) -> Stage:
    return Stage(
        name="smooth",
        version=1,
        body=function,
        tables=("smoothed.features",),
        libraries=(),
        modules=("tasks.work",),
    )  # type: ignore[arg-type]


def request(function: object, store: Store, **options: object) -> StageRequest:
    return stage(function).request(Nothing(), store=store, inputs={}, **options)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    RUNS.clear()
    return Store(tmp_path / "store")


def nothing_left(store: Store) -> bool:
    return not list(store.folders()) and not list((store.root / ".tmp").iterdir())


def test_a_stage_publishes_what_it_wrote_with_docs_and_times(store: Store) -> None:
    manifest = stage(body).execute(request(body, store), store)
    folder = store.open(manifest.artifacts["smoothed"])
    assert manifest.artifacts["smoothed"].num_rows == {"features": 4}
    assert manifest.contracts.passed > 3
    assert manifest.contracts.failed == 0
    assert (folder.parent / "volatile" / "data_docs" / "index.html").exists()
    assert json.loads((folder.parent / "volatile" / "timing.json").read_text())["seconds"] > 0
    assert manifest.identity["stage"] == "smooth"


def test_a_known_key_is_not_computed_again_unless_refreshed(store: Store) -> None:
    first = stage(body).execute(request(body, store), store)
    assert stage(body).execute(request(body, store), store) == first
    assert len(RUNS) == 1
    assert stage(body).execute(request(body, store, refresh=True), store) == first
    assert len(RUNS) == 2


def test_a_violation_is_quarantined_with_its_docs(store: Store) -> None:
    with pytest.raises(ContractViolation, match=r"smoothed\.features"):
        stage(broken_body).execute(request(broken_body, store), store)
    assert nothing_left(store)
    (kept,) = (path for path in (store.root / ".quarantine").iterdir() if path.is_dir())
    assert (kept / "smoothed" / "features.parquet").exists()
    assert "smoothed.features" in (kept / "volatile" / "data_docs" / "index.html").read_text()
    assert "smoothed.features" in kept.with_name(f"{kept.name}.json").read_text()


def test_a_required_table_that_was_not_written_fails_the_stage(store: Store) -> None:
    with pytest.raises(FileNotFoundError, match=r"smooth has not written its table smoothed\.features"):
        stage(forgetful_body).execute(request(forgetful_body, store), store)
    assert nothing_left(store)


def test_a_failing_body_publishes_nothing(store: Store) -> None:
    with pytest.raises(NonFiniteLoss):
        stage(failing_body).execute(request(failing_body, store), store)
    assert nothing_left(store)
    assert not list((store.root / ".quarantine").iterdir())


def test_an_interrupted_stage_resumes_and_a_refreshed_one_does_not(store: Store) -> None:
    def run(*, refresh: bool, facts_refresh: bool = False) -> bool:
        asked = request(checkpointing_body, store, facts={"refresh": facts_refresh}, refresh=refresh)
        manifest = stage(checkpointing_body).execute(asked, store)
        folder = store.stage_folder("smooth", manifest.key)
        return bool(json.loads((folder / "volatile" / "resumed.json").read_text()))

    with pytest.raises(NonFiniteLoss):
        run(refresh=False)
    assert run(refresh=False), "it found its scratch folder"
    (
        store.scratch("smooth", request(checkpointing_body, store, facts={"refresh": True}).key) / "note"
    ).write_text("")
    assert not run(refresh=True, facts_refresh=True), "what was left behind is not resumed from"


def test_a_consumer_refuses_tables_of_another_contract(store: Store, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from tests.tiny_runs import publish

    made = stage(body).execute(request(body, store), store)
    path = store.open(made.artifacts["smoothed"]) / "features.parquet"
    table = pq.read_table(path)
    for key in table.schema.metadata:
        assert key.startswith((b"contract", b"gclflow", b"num", b"ARROW")) or key
    stripped = tmp_path / "features.parquet"
    pq.write_table(table.replace_schema_metadata(None), stripped)
    foreign = publish(store, "ingest", "f" * 64, {"smoothed/features.parquet": stripped.read_bytes()})
    consumer = Stage(name="train", version=1, body=body, tables=(), libraries=(), modules=("tasks.work",))  # type: ignore[arg-type]
    asked = consumer.request(Nothing(), store=store, inputs=foreign.artifacts)
    with pytest.raises(ContractIncompatible):
        consumer.execute(asked, store)


def test_only_what_a_stage_declares_enters_its_key(store: Store) -> None:
    keys = {
        request(body, store).key,
        request(body, store, facts={"seed": 1}).key,
        request(body, store, sources={"source:x": "1"}).key,
        request(body, store, modules=["gcl.random"]).key,
    }
    assert len(keys) == 4
    assert request(body, store, refresh=True).key in keys


@pytest.mark.slow
def test_nothing_that_is_volatile_reaches_a_digest(finished_store: Path, tmp_path: Path) -> None:
    """A second run elsewhere, later, with other times and run ids, gives the same digests."""
    expected = {a.kind: a.digest for m in Store(finished_store).manifests() for a in m.artifacts.values()}
    assert run_direct(tiny(), tmp_path / "elsewhere").digests == expected


def test_a_result_of_another_run_that_was_waited_for_counts_as_cached(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.orchestrate

    computed = stage(body)
    request = computed.request(Nothing(), store=store, inputs={})

    def other_run_is_faster(*_: object, **__: object) -> tuple[object, bool]:
        return computed.execute(request, store), False

    monkeypatch.setattr(tasks.orchestrate, "call_stage", other_run_is_faster)
    report = computed.run(request, store)
    assert (report.state, report.reason) == ("cached", "another run has computed it meanwhile")


def test_a_store_of_many_data_sets_explains_a_run_by_the_most_similar_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.orchestrate

    computed = stage(body)

    def call(_stage: object, request: StageRequest, *_: object, **__: object) -> tuple[object, bool]:
        return computed.execute(request, store), True

    def reason(**facts: object) -> str:
        asked = computed.request(Nothing(), store=store, inputs={}, facts=facts)
        return computed.run(asked, store).reason

    monkeypatch.setattr(tasks.orchestrate, "call_stage", call)
    assert reason(seed=0, data="one") == "first run of this stage in this store"
    assert reason(seed=1, data="one") == "changed since the last run: facts.seed 0 -> 1"
    assert "facts.extra absent -> 5" in reason(seed=0, data="two", extra=5)
    assert reason(seed=2, data="one") == "changed since the most similar run: facts.seed 1 -> 2"


@pytest.mark.parametrize(("limit", "is_told"), [(50_000_000, True), (10**12, False), (None, False)])
def test_a_stage_that_took_more_than_its_limit_says_so(
    limit: int | None,
    is_told: bool,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import tasks.orchestrate

    computed = stage(body)
    request = computed.request(Nothing(), store=store, inputs={}, memory_limit=limit)

    def call(*_: object, **__: object) -> tuple[object, bool]:
        return computed.execute(request, store), True

    monkeypatch.setattr(tasks.orchestrate, "call_stage", call)
    report = computed.run(request, store)
    assert len(report.notes) == is_told
    for note in report.notes:
        took = round(report.peak_rss_bytes / 1e6)
        assert note == f"stage smooth took {took:,} MB of memory at its peak, and memory_limit allows 50 MB"
        assert note in caplog.text
    again = computed.run(request, store)
    assert (again.state, again.notes) == ("cached", ()), "it computed nothing"


@pytest.mark.parametrize(
    ("kind", "num_nodes", "is_judged"),
    [("embeddings", 50, True), ("embeddings", 49, False), ("controls", 50, False)],
)
def test_only_trained_embeddings_of_enough_nodes_are_judged_for_collapse(
    kind: str, num_nodes: int, is_judged: bool, store: Store, tmp_path: Path
) -> None:
    from tasks.train import write_embeddings

    ingested = run_direct(tiny(f"dataset.nodes={num_nodes}"), store.root, until="ingest")
    folder = tmp_path / "written"
    folder.mkdir()
    inputs = {"graph": ingested.state.artifacts["graph"]}
    work = Work(stage="train", key="k", store=store, folder=folder, inputs=inputs, facts={})
    write_embeddings(work, kind, np.ones((num_nodes, 4), np.float32))
    assert (work.expectations[f"{kind}.embeddings"]["min_effective_rank"] > 0) is is_judged


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_who_loses_its_scratch_to_a_winner_takes_what_that_has_published(
    error: type[OSError], store: Store
) -> None:
    """The winner removes the unfinished work that both share: a file is gone, or goes while it is made."""

    def overtaken(work: object, config: object) -> None:
        stage(body).execute(request(body, store), store)
        raise error

    published = stage(overtaken).execute(request(overtaken, store), store)
    assert store.find("smooth", published.key) == published
    with pytest.raises(error):  # without a winner it is what it says
        stage(alone_with(error)).execute(request(body, store, facts={"seed": 1}), store)


def alone_with(error: type[OSError]) -> object:
    def fails(work: object, config: object) -> None:
        raise error

    return fails
