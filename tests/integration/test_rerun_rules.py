"""Which stages run again after which change: exactly those the change can reach, and no others."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.config import load_config
from flows.wiring import STAGES
from tasks import closure
from tasks.closure import import_closure
from tasks.store import Store
from tests.tiny_runs import PLAIN_STAGES, TINY, DirectRun, run_direct, tiny

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
AFTER_TRAIN = ["train", "uncertainty", "cluster", "evaluate", "report"]


def stale(config, store: Path) -> list[str]:  # type: ignore[no-untyped-def]
    """The stages that would run again; all but the report, which takes seconds, do."""
    run = run_direct(config, store, until="evaluate")
    stage, make_request = STAGES["report"]
    key = make_request(run.state).key
    return run.ran + ["report"] * (Store(store).find("report", key) is None)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.seed=1", list(PLAIN_STAGES)),
        ("smooth.alpha=0.3", ["smooth", *AFTER_TRAIN]),
        ("train.epochs=1", AFTER_TRAIN),
        ("method.temperature=0.7", AFTER_TRAIN),
        ("uncertainty.estimator=entropy", ["uncertainty", "evaluate", "report"]),
        ("cluster.membership_temperature=2.0", ["cluster", "report"]),
        ("evaluate.target_risk=0.2", ["evaluate", "report"]),
        ("dataset.name=renamed", ["report"]),
        ("seed=1", AFTER_TRAIN),
        ("device=cpu", []),
        ("train.checkpoint_every=1", []),
        ("smooth.block_columns=3", []),
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it(
    store_copy: Path, override: str, expected: list[str]
) -> None:
    found = stale(tiny(override), store_copy)
    if override.startswith("cluster"):  # evaluate opens clusters; the assignment itself has not changed
        expected = ["cluster", "evaluate", "report"]
    assert found == expected
    assert stale(tiny(), store_copy) == [], "the results before the change are still there"


def test_a_rebuilt_stage_with_the_same_bytes_leaves_the_rest_cached(store_copy: Path) -> None:
    """More restarts find the same clusters here; a tolerance of scipy's, say, might as well."""
    assert stale(tiny("cluster.max_iterations=299"), store_copy) == ["cluster"]
    assert stale(tiny("smooth.time=4.0"), store_copy) == ["smooth"], "the ppr filter does not read time"


def test_a_forced_run_of_every_stage_gives_the_same_bytes(store_copy: Path) -> None:
    before = run_direct(tiny(), store_copy)
    again = run_direct(tiny(), store_copy, refresh=PLAIN_STAGES)
    assert again.ran == list(PLAIN_STAGES)
    assert again.digests == before.digests
    assert not list((store_copy / ".quarantine").iterdir()), "no byte was different"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources that keys are made from: a copy, so that it can be edited."""
    for package in closure.PACKAGES:
        shutil.copytree(
            REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.setattr(closure, "_package_folder", lambda package: tmp_path / package)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "reached", "not_reached"),
    [
        ("gcl/readers/synthetic.py", "ingest", "smooth"),
        ("gcl/smoothing_blocks.py", "smooth", "train"),
        ("gcl/losses/tuplet.py", "train", "cluster"),
        ("gcl/uncertainty/affinity.py", "uncertainty", "cluster"),
        ("gcl/clustering/leiden.py", "cluster", "train"),
        ("gcl/evaluation/conformal.py", "evaluate", "train"),
        ("gcl/methods/dmt.py", None, "train"),
        ("tasks/smooth.py", "smooth", "ingest"),
        ("data_contracts/predicates.py", "ingest", None),
    ],
)
def test_an_edited_source_file_reruns_the_stages_that_reach_it(
    store_copy: Path, packages: Path, file: str, reached: str | None, not_reached: str | None
) -> None:
    with (packages / file).open("a") as source:
        source.write("# one more line\n")
    module = file.removesuffix(".py").replace("/", ".")
    reaching = [name for name in PLAIN_STAGES if module in closure_of(name)]
    assert (reached is None and not reaching) or reached in reaching
    assert not_reached not in reaching
    assert stale(tiny(), store_copy) == reaching, "and the same bytes came out, so nothing else"


def closure_of(stage: str) -> set[str]:
    chosen = ["gcl.methods.dmat_i", "gcl.trainer", "tasks.training_data"] if stage == "train" else []
    return set(import_closure([STAGES[stage][0].body.__module__, *chosen]))  # type: ignore[index]


def test_an_edited_template_reruns_the_report(store_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.report

    original = tasks.report._resource
    monkeypatch.setattr(tasks.report, "_resource", lambda name: original(name) + " " * (name == "report.css"))
    assert stale(tiny(), store_copy) == ["report"]


def own_graph(folder: Path, *, value: str = "0.5", blank: str = "", label: str = "a") -> list[str]:
    """A graph of 60 nodes as CSV; returns the overrides that read it."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    nodes = "".join(f"n{i},{'abc'[i % 3]},{draws.normal() + i % 3},{draws.normal()}\n" for i in range(1, 60))
    edges = "".join(f"n{i},n{(i + step) % 60}\n" for i in range(60) for step in (1, 3))
    (folder / "nodes.csv").write_text(f"id,label,u,v\nn0,{label},{value},1\n{nodes}{blank}")
    (folder / "edges.csv").write_text(f"source,target\n{edges}")
    (folder / "graph.toml").write_text(
        '[nodes]\nfile = "nodes.csv"\nid = "id"\nid_type = "string"\nlabel = "label"\nfeatures = ["u", "v"]\n'
        '[edges]\nfile = "edges.csv"\nsource = "source"\ntarget = "target"\n'
    )
    return ["dataset.format=csv", f"dataset.path={folder}", "dataset.name=own"]


def run_own(store: Path, folder: Path, **changes: str) -> DirectRun:
    plain = [item for item in TINY if not item.startswith("dataset.")]
    config = load_config(preset="none", overrides=[*plain, *own_graph(folder, **changes)])[0]
    return run_direct(config, store, until="evaluate")


def test_a_byte_of_a_source_file_counts_and_its_place_does_not(tmp_path: Path) -> None:
    store, everything = tmp_path / "store", list(PLAIN_STAGES[:-1])
    before = run_own(store, tmp_path / "a")
    assert before.ran == everything
    assert run_own(store, tmp_path / "b").ran == [], "the same files elsewhere"
    blank = run_own(store, tmp_path / "a", blank="\n")
    assert blank.ran == ["ingest"], "other bytes, the same graph"
    assert blank.digests == before.digests
    assert run_own(store, tmp_path / "a", value="0.6").ran == everything
    relabelled = run_own(store, tmp_path / "a", label="b")
    assert relabelled.ran == ["ingest", "evaluate"], "a label reaches the evaluation alone"
    assert relabelled.digests["embeddings"] == before.digests["embeddings"]
