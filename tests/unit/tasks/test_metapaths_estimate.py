"""What the stage metapaths will take, said before it takes it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gcl.hetero_findings import InvalidHetero
from gcl.hetero_graph import HeteroGraph
from gcl.metapath_steps import MetapathPlan, Step
from gcl.metapaths import MetapathsConfig
from tasks import limits
from tasks.hetero_tables import write_hetero
from tasks.limits import DoesNotFit
from tasks.metapaths import METAPATHS, estimate, metapaths
from tasks.store import Store
from tasks.work import Work
from tests.tiny_runs import key_of

BUYS = ("user", "buys", "item")
NUM_USERS, NUM_ITEMS = 1500, 30


class _Inputs(Work):
    """Work whose input is a folder."""

    def input(self, kind: str) -> Path:
        return self.folder / kind


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Users who buy two items each: with so few items, a tenth of all pairs share one."""
    draws = np.random.default_rng(0)
    pairs = np.unique(
        np.stack([np.repeat(np.arange(NUM_USERS), 2), draws.integers(0, NUM_ITEMS, 2 * NUM_USERS)]), axis=1
    )
    graph = HeteroGraph(
        target="user", num_nodes={"user": NUM_USERS, "item": NUM_ITEMS}, edges={BUYS: (pairs[0], pairs[1])}
    )
    work = _Inputs(
        stage="metapaths",
        key=key_of("x"),
        store=Store(tmp_path / "store"),
        folder=tmp_path,
        inputs={},
        facts={},
    )
    plan = MetapathPlan("UIU", (Step(BUYS), Step(BUYS, True)))
    node_ids = {"user": pa.array(np.arange(NUM_USERS)), "item": pa.array(np.arange(NUM_ITEMS))}
    write_hetero(work, graph, node_ids, metapaths=(plan,), notes={})
    return work


@pytest.mark.parametrize("settings", [{}, {"max_fanout": 20}, {"self_loops": "add"}])
def test_it_takes_about_what_was_estimated(settings: dict[str, object], work: Work) -> None:
    config = MetapathsConfig.model_validate(settings)
    estimated = sum(estimate(work, config).memory.values())
    tracemalloc.start()
    try:
        metapaths(work, config)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.3 * estimated < taken < 1.5 * estimated, (taken, estimated)


def test_a_metapath_beyond_its_budget_is_refused_by_the_stage(work: Work) -> None:
    """Not as one that does not fit: the report names it, and what to do."""
    config = MetapathsConfig(max_entries=1000)
    assert not estimate(work, config).memory
    with pytest.raises(InvalidHetero, match="H12"):
        metapaths(work, config)


def test_the_stage_holds_to_memory_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.config import load_config
    from tests.hetero_sources import write_large_shop
    from tests.tiny_runs import run_direct

    write_large_shop(tmp_path, num_users=600)
    monkeypatch.setattr(limits, "anonymous_bytes", lambda: 254 << 20)
    chosen = ["dataset.format=gconstruct", "dataset.name=shop", f"dataset.path={tmp_path}"]
    config = load_config(preset="none", overrides=[*chosen, "memory_limit=256MiB"])[0]
    with pytest.raises(DoesNotFit, match="metapaths: memory .*the largest metapath"):
        run_direct(config, tmp_path / "store", until="metapaths")
    assert METAPATHS.estimate is estimate
