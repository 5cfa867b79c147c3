"""Heterogeneous graphs through the whole pipeline, and which stages run again after which change."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.config import ConfigurationError, load_config, stages_of
from flows.wiring import PipelineState, run_stages
from gcl.errors import UnsuitableSetting
from gcl.hetero_findings import InvalidHetero
from tasks.closure import import_closure
from tasks.hetero_tables import read_hetero, read_metapaths, read_plans, read_target_ids
from tasks.store import Store
from tests.hetero_sources import write_large_shop
from tests.tiny_runs import TINY, DirectRun, run_direct, tiny

pytestmark = pytest.mark.slow
AFTER = ["smooth", "train", "uncertainty", "cluster", "evaluate", "report"]


def shop_run(folder: Path, store: Path, *overrides: str, **options: str) -> DirectRun:
    plain = [item for item in TINY if not item.startswith("dataset.")]
    chosen = ["dataset.format=gconstruct", "dataset.name=shop", f"dataset.path={folder}"]
    config = load_config(preset="none", overrides=[*plain, *chosen, *overrides])[0]
    return run_direct(config, store, **options)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, DirectRun]:
    """A source, a store, and the finished run."""
    folder, store = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("store")
    write_large_shop(folder)
    return folder, store, shop_run(folder, store)


def test_a_two_type_graph_goes_through_to_the_report(shop: tuple[Path, Path, DirectRun]) -> None:
    _, _, run = shop
    assert run.ran == ["ingest", "metapaths", *AFTER]
    store, artifacts = run.state.store, run.state.artifacts
    assert {"hetero", "labels", "metapaths", "graph", "smoothed", "embeddings", "report"} <= artifacts.keys()
    embeddings = pq.read_table(store.open(artifacts["embeddings"]) / "embeddings.parquet")
    assert embeddings["node_id"].to_pylist() == [f"u{i}" for i in range(120)]
    metrics = pq.read_table(store.open(artifacts["metrics"]) / "metrics.parquet").to_pandas()
    assert set(metrics.embedding) == {"method", "smoothed", "random_init"}, (
        "the floor stands beside the method"
    )
    report = (store.open(artifacts["report"]) / "report.html").read_text()
    for text in ("user (embedded)", "user/buys/item", "user-item-user", "UIU"):
        assert text in report


def test_tables_give_back_what_was_read(shop: tuple[Path, Path, DirectRun]) -> None:
    folder, _, run = shop
    from gcl.readers.gconstruct import GconstructConfig, open_source

    source = open_source(GconstructConfig(path=folder))
    hetero = run.state.store.open(run.state.artifacts["hetero"])
    graph = read_hetero(hetero)
    assert (graph.target, dict(graph.num_nodes)) == ("user", {"user": 120, "item": 40})
    for relation, edges in source.graph.edges.items():
        np.testing.assert_array_equal(graph.edges[relation], edges)
    for type_, x_NF in source.graph.features.items():
        np.testing.assert_array_equal(graph.features[type_], x_NF)
    assert read_target_ids(hetero).equals(source.node_ids["user"])
    assert read_plans(hetero) == source.metapaths


def test_graph_is_the_union_of_the_metapaths(shop: tuple[Path, Path, DirectRun]) -> None:
    _, _, run = shop
    (metapath,) = read_metapaths(run.state.store.open(run.state.artifacts["metapaths"]))
    graph = run.state.store.open(run.state.artifacts["graph"])
    edges = pq.read_table(graph / "edges.parquet")
    dense = metapath.adjacency_NN.toarray()
    assert (dense.diagonal() == 1).all()
    np.fill_diagonal(dense, 0)
    found = np.zeros_like(dense)
    found[edges["src"].to_numpy(), edges["dst"].to_numpy()] = 1
    np.testing.assert_array_equal(found, dense)
    smoothed = pq.read_table(run.state.store.open(run.state.artifacts["smoothed"]) / "features.parquet")
    assert smoothed.schema.field("x").type.list_size == 2 * 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("metapaths.weight=count", ["metapaths", *AFTER]),
        ("metapaths.max_fanout=5", ["metapaths", *AFTER]),
        ("metapaths.paths=['twice=user-item-user-item-user']", ["metapaths", *AFTER]),
        ("metapaths.max_entries=99999", []),
        ("metapaths.seed=1", ["metapaths"]),
        ("smooth.normalise_input=l2", AFTER),
        ("train.epochs=1", AFTER[1:]),
    ],
)
def test_another_choice_of_metapaths_leaves_ingest_cached(
    override: str, expected: list[str], shop: tuple[Path, Path, DirectRun]
) -> None:
    folder, store, _ = shop
    assert shop_run(folder, store, override, until="evaluate").ran == [s for s in expected if s != "report"]
    assert shop_run(folder, store).ran == []


def test_a_stage_can_be_refreshed_and_be_the_last(shop: tuple[Path, Path, DirectRun], tmp_path: Path) -> None:
    folder, store, run = shop
    again = shop_run(folder, store, refresh=["metapaths"])  # type: ignore[arg-type]
    assert again.ran == ["metapaths"]
    assert again.digests == run.digests
    assert shop_run(folder, tmp_path, until="metapaths").ran == ["ingest", "metapaths"]


def test_a_model_along_metapaths_scores_no_other_nodes(shop: tuple[Path, Path, DirectRun]) -> None:
    """Found by its run in the register, which knows the data set."""
    from flows.score import require_one_graph
    from tasks.trained_model import ModelSettings, TrainedModel

    _, _, run = shop
    config = run.state.config
    sections = {name: getattr(config, name) for name in ModelSettings.model_fields}
    model = TrainedModel("shop", None, ModelSettings(**sections), {}, 0)
    with pytest.raises(UnsuitableSetting, match="dataset.format=gconstruct, and scoring embeds new"):
        require_one_graph(model)


def test_a_broken_source_publishes_nothing(tmp_path: Path) -> None:
    write_large_shop(tmp_path)
    with (tmp_path / "buys.csv").open("a") as file:
        file.write("nobody,i1\n")
    with pytest.raises(InvalidHetero, match="H06 .*user nobody"):
        shop_run(tmp_path, tmp_path / "store")
    assert not list(Store(tmp_path / "store").folders())


def test_a_run_without_node_types_has_no_stage_metapaths(store_copy: Path) -> None:
    assert "metapaths" not in stages_of(tiny())
    for asked in ({"refresh": ("metapaths",)}, {"until": "metapaths"}):
        until = asked.pop("until", None)
        state = PipelineState(tiny(), Store(store_copy), **asked)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="this run has no stage metapaths"):
            run_stages(state, until=until)  # type: ignore[arg-type]


def test_code_of_metapaths_is_no_part_of_a_plain_graphs_keys() -> None:
    """Found by name: editing it must not re-run what cannot use it."""
    for module in ("tasks.ingest", "tasks.smooth", "tasks.train", "gcl.trainer", "tasks.training_data"):
        reached = import_closure([module])
        assert not {"tasks.metapaths", "tasks.hetero_tables", "gcl.metapath_features"} & reached.keys(), (
            module
        )


@pytest.mark.real_data
def test_acm_of_heco_goes_through_to_the_report(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "heco" / "acm"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    plain = [item for item in TINY if not item.startswith(("dataset.", "cluster.num_clusters"))]
    chosen = ["dataset.format=heco", "dataset.name=acm", f"dataset.path={folder}", "metapaths.edges=PAP"]
    config = load_config(preset="none", overrides=[*plain, *chosen, "cluster.num_clusters=classes"])[0]
    run = run_direct(config, tmp_path)
    assert run.ran == ["ingest", "metapaths", *AFTER]
    facts = json.loads(
        (run.state.store.open(run.state.artifacts["metapaths"]) / "metadata.json").read_bytes()
    )
    assert {row["name"]: row["num_entries"] for row in facts["metapaths"]} == {
        "PAP": 57_853,
        "PSP": 4_338_213,
    }
    graph = json.loads((run.state.store.open(run.state.artifacts["graph"]) / "metadata.json").read_bytes())
    assert graph["num_edges"] == 57_853 - 4019, "PAP alone, without the diagonal"
    metrics = pq.read_table(
        run.state.store.open(run.state.artifacts["metrics"]) / "metrics.parquet"
    ).to_pandas()
    floor = metrics[
        (metrics.embedding == "smoothed") & (metrics.metric == "macro_f1") & (metrics.split == "test")
    ]
    assert set(floor.protocol) >= {"heco-20", "heco-40", "heco-60"}
    assert floor[floor.protocol == "heco-60"].value.item() > 0.85
