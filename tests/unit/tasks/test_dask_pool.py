"""Blocks on a Dask cluster of this machine: order, bytes, errors, nothing left behind."""

import operator
import os

import numpy as np
import psutil
import pytest

from gcl.graph import Graph
from gcl.smoothing import SmoothingConfig, smooth_features
from tasks.dask_pool import SchedulerLost, WorkerLost, dask_map

pytestmark = pytest.mark.slow


def children() -> set[int]:
    # Python's resource tracker stays for the life of the process whatever started it.
    processes = psutil.Process().children(recursive=True)
    return {process.pid for process in processes if "resource_tracker" not in " ".join(process.cmdline())}


@pytest.fixture(scope="module")
def pool():
    with dask_map(num_workers=2) as map_blocks:
        yield map_blocks


def random_graph(num_nodes: int, num_features: int) -> Graph:
    generator = np.random.default_rng(0)
    keys = np.unique(generator.integers(0, num_nodes**2, num_nodes * 5))
    x_NF = generator.standard_normal((num_nodes, num_features)).astype(np.float32)
    return Graph(num_nodes, keys // num_nodes, keys % num_nodes, x_NF=x_NF, is_undirected=False)


def test_results_come_in_the_order_of_the_blocks(pool):
    assert pool(operator.neg, [3, 1, 2]) == [-3, -1, -2]
    assert pool(operator.neg, []) == []


def test_equal_blocks_run_each_by_itself(pool):
    assert len({*pool(os.urandom, [8, 8])}) == 2


def test_error_of_the_function_comes_as_it_is(pool):
    with pytest.raises(TypeError, match="unary"):
        pool(operator.neg, ["text", 1])


def test_threads_of_a_worker_are_as_asked(pool):
    assert pool(os.getenv, ["OMP_NUM_THREADS"]) == ["1"]


def test_smoothing_has_the_same_bytes_with_one_worker_two_workers_and_none(pool, tmp_path):
    graph = random_graph(2000, 20)
    direct = smooth_features(graph, SmoothingConfig(), seed=0)
    config = SmoothingConfig(backend="dask", block_columns=6)
    pooled = smooth_features(graph, config, seed=0, map_blocks=pool, scratch=tmp_path)
    assert pooled.x_NF.tobytes() == direct.x_NF.tobytes()
    with dask_map(num_workers=1, threads_per_worker=2, folder=tmp_path) as single:
        assert single(os.getenv, ["OMP_NUM_THREADS"]) == ["2"]
        assert (
            smooth_features(graph, config, seed=0, map_blocks=single).x_NF.tobytes() == direct.x_NF.tobytes()
        )


def test_nothing_runs_on_after_the_context_ends_or_fails():
    before = children()
    with pytest.raises(ZeroDivisionError):
        with dask_map(num_workers=2):
            assert len(children() - before) >= 2
            raise ZeroDivisionError
    assert children() <= before


def test_unreachable_scheduler_is_named():
    with pytest.raises(SchedulerLost, match="tcp://127.0.0.1:9"):
        with dask_map(address="tcp://127.0.0.1:9", connect_seconds=1):
            pytest.fail("connected to nothing")


@pytest.mark.fault
def test_block_that_kills_its_workers_is_named(pool):
    with pytest.raises(WorkerLost, match="77") as caught:
        pool(os._exit, [77])
    assert caught.value.block == "77"
    assert pool(operator.neg, [1]) == [-1]
