"""Checks, the consensus over them, and the label oracle that stays out of every result."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import show
from flows.outputs import run_record
from flows.wiring import STAGES
from gcl.errors import TrainingInterrupted, UnsuitableSetting
from tasks.convert import read_checks, read_matrix
from tasks.evaluate import EmbeddingsOfAnotherGraph
from tests.integration.test_label_safety import masked_graph
from tests.tiny_runs import DirectRun, run_direct, tiny

pytestmark = pytest.mark.slow
CHECKED = ("train.epochs=4", "train.num_checks=2", "train.checkpoint_every=1")
CONSENSUS = (*CHECKED, "cluster.algorithm=consensus")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> DirectRun:
    return run_direct(tiny(*CONSENSUS), tmp_path_factory.mktemp("store"))


def folder(run: DirectRun, kind: str) -> Path:
    return run.state.store.path(run.state.artifacts[kind])


def test_the_last_check_is_the_published_embedding(run: DirectRun) -> None:
    checks = dict(read_checks(folder(run, "checks") / "checks.parquet", num_nodes=120))
    assert list(checks) == [2, 4]
    z_ND = read_matrix(folder(run, "embeddings") / "embeddings.parquet", "z")
    np.testing.assert_array_equal(checks[4], z_ND)  # narrow enough not to be compressed
    assert not np.array_equal(checks[2], z_ND)


def test_checks_change_nothing_that_is_trained(run: DirectRun, tmp_path: Path) -> None:
    plain = run_direct(tiny("train.epochs=4"), tmp_path / "store", until="train")
    assert "checks" not in plain.state.artifacts
    for kind in ("embeddings", "controls"):
        assert plain.digests[kind] == run.digests[kind]
    history = [folder(one, "model") / "history.parquet" for one in (plain, run)]
    assert history[0].read_bytes() == history[1].read_bytes()


def test_only_a_consensus_and_the_evaluation_open_the_checks(run: DirectRun, tmp_path: Path) -> None:
    other = run_direct(tiny(*CHECKED), tmp_path / "store", until="evaluate")
    opened = {
        name
        for name in ("uncertainty", "cluster", "evaluate")
        if "checks" in STAGES[name][1](run.state).inputs
    }
    assert opened == {"cluster", "evaluate"}
    assert "checks" not in STAGES["cluster"][1](other.state).inputs
    rows = pq.read_table(folder(other, "metrics") / "metrics.parquet").to_pylist()
    assert "clusters-artifact" in {row["protocol"] for row in rows}
    assert (folder(other, "metrics") / "oracle.parquet").exists()


def test_the_oracle_stays_out_of_results_tables_and_report(
    run: DirectRun, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_record(run.state, preset=None)
    assert {metric.protocol for metric in record.oracle_metrics} == {"kmeans-oracle"}
    assert {metric.split for metric in record.oracle_metrics} == {"oracle"}
    results = [*record.metrics, *record.validation_metrics]
    assert "consensus-final" in {metric.protocol for metric in results}
    assert not [metric for metric in results if "oracle" in f"{metric.protocol} {metric.split}"]
    report = (folder(run, "report") / "report.html").read_text()
    before, box = report.split('<aside class="oracle">')
    box, after = box.split("</aside>")
    assert "Chosen with labels: not a result" in box and "kmeans-oracle" in box
    assert "kmeans-oracle" not in before + after
    show.run(record, out=Path("out"))
    printed = capsys.readouterr().out
    assert printed.index("consensus-final") < printed.index("Chosen with labels, not a result")
    assert printed.index("Chosen with labels, not a result") < printed.index("kmeans-oracle")


def test_a_run_without_checks_has_no_oracle_anywhere(tmp_path: Path) -> None:
    run = run_direct(tiny(), tmp_path / "store")
    assert run_record(run.state, preset=None).oracle_metrics == []
    assert "Chosen with labels" not in (folder(run, "report") / "report.html").read_text()


def test_consensus_without_checks_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableSetting, match=r"set train\.num_checks"):
        run_direct(tiny("cluster.algorithm=consensus"), tmp_path / "store")
    assert not (tmp_path / "store" / "train").exists()


def test_checks_of_another_graph_are_refused(run: DirectRun, tmp_path: Path) -> None:
    held_out = run_direct(tiny("dataset.edge_holdout=0.1", *CHECKED), tmp_path / "store", until="cluster")
    full = run_direct(tiny(*CHECKED), tmp_path / "store", until="train")
    held_out.state.artifacts["checks"] = full.state.artifacts["checks"]
    stage, make_request = STAGES["evaluate"]
    with pytest.raises(EmbeddingsOfAnotherGraph, match="checks were made from graph"):
        stage.execute(make_request(held_out.state), held_out.state.store)


def interrupted(store: Path, monkeypatch: pytest.MonkeyPatch, *, after: int) -> Path:
    """Stop the training after some epochs; the folder of its unfinished work."""
    from gcl import trainer

    asked: list[int] = []

    def stop_reason(*_: object) -> object:
        return lambda: "asked to stop" if asked.append(1) or len(asked) > 2 * after else None

    with monkeypatch.context() as patch:  # 120 nodes in batches of 64 are two steps an epoch
        patch.setattr(trainer, "_stop_reason", stop_reason)
        with pytest.raises(TrainingInterrupted, match=f"{after} of 4 epochs"):
            run_direct(tiny(*CONSENSUS), store, until="train")
    (scratch,) = (store / ".scratch").iterdir()
    return scratch


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_run_gives_the_same_checks(
    run: DirectRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    scratch = interrupted(tmp_path, monkeypatch, after=after)
    assert len(list((scratch / "checks").glob("*"))) == (after >= 2)
    resumed = run_direct(tiny(*CONSENSUS), tmp_path, until="train")
    for kind in ("checks", "embeddings", "model"):
        assert resumed.digests[kind] == run.digests[kind]


@pytest.mark.parametrize("damage", ["gone", "cut", "altered"])
def test_a_lost_check_is_trained_for_again(
    run: DirectRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    (check,) = (interrupted(tmp_path, monkeypatch, after=3) / "checks").iterdir()
    content = check.read_bytes()
    if damage == "gone":
        check.unlink()
    else:
        check.write_bytes(content[:-9] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    resumed = run_direct(tiny(*CONSENSUS), tmp_path, until="train")
    assert resumed.digests["checks"] == run.digests["checks"]


def test_permuted_labels_change_neither_checks_nor_consensus(tmp_path: Path) -> None:
    settings = ("train.num_checks=2", "cluster.algorithm=consensus")
    one, two = (
        run_direct(
            masked_graph(tmp_path / name, *settings, labels_seed=seed),
            tmp_path / f"s{name}",
            until="evaluate",
        )
        for name, seed in (("a", None), ("b", 1))
    )
    differing = {kind for kind in one.digests if one.digests[kind] != two.digests[kind]}
    assert differing == {"labels", "metrics", "predictions"}


def test_facts_of_the_checks_stand_beside_them(run: DirectRun) -> None:
    facts = json.loads((folder(run, "checks") / "metadata.json").read_text())
    assert (facts["epochs"], facts["num_components"], facts["kept_share"]) == ([2, 4], 8, [1.0, 1.0])


def test_wide_embeddings_keep_64_components(tmp_path: Path) -> None:
    wide = run_direct(tiny(*CHECKED, "method.embedding_size=80"), tmp_path / "store", until="train")
    facts = json.loads((folder(wide, "checks") / "metadata.json").read_text())
    assert facts["num_components"] == 64
    assert all(0.9 < share <= 1 for share in facts["kept_share"])
