"""R14: too little memory ends a stage cleanly; blocks of any size give what the whole gives."""

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.injection import fork

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def limit_memory(num_bytes: int) -> None:
    """Let this process grow by so much address space and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, used + num_bytes))


@pytest.mark.usefixtures("quick")
def test_smooth_survives_too_little_memory(tmp_path: Path) -> None:
    """200,000 rows of 64 columns in 20 MB: 51 MB a block, too much for what earlier tests have freed."""
    import dgl  # noqa: F401  loaded before the limit, which is about the data
    import torch

    from tasks.store import Store
    from tests.tiny_runs import run_direct, tiny

    config = tiny("dataset.nodes=200000", "dataset.features=64", "dataset.average_degree=2")
    store = tmp_path / "store"
    ingested = run_direct(config, store, until="ingest")
    torch.set_num_threads(1)

    def starved() -> None:
        limit_memory(20 << 20)
        with pytest.raises((MemoryError, RuntimeError), match="(?i)alloc|memory"):
            run_direct(config, store, until="smooth")

    assert fork(starved) == 0
    assert [stage for stage, _ in Store(store).folders()] == ["ingest"]
    assert not list((store / ".tmp").iterdir())
    again = run_direct(config, store, until="smooth")
    assert again.ran == ["smooth"]
    assert again.digests["graph"] == ingested.digests["graph"]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 64), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_smoothing_in_blocks_of_any_size_gives_the_same_bytes(
    num_nodes: int, num_features: int, block_columns: int, seed: int
) -> None:
    from gcl.graph import Graph
    from gcl.smoothing import SmoothingConfig, smooth_features

    draws = np.random.default_rng(seed)
    keys = np.unique(draws.integers(0, num_nodes**2, 3 * num_nodes))
    x_NF = draws.standard_normal((num_nodes, num_features)).astype(np.float32)
    graph = Graph(num_nodes, keys // num_nodes, keys % num_nodes, x_NF=x_NF, is_undirected=False)
    whole = smooth_features(graph, SmoothingConfig(), seed=0)
    chunked = smooth_features(graph, SmoothingConfig(block_columns=block_columns), seed=0)
    assert chunked.x_NF.tobytes() == whole.x_NF.tobytes()


@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_a_loss_in_blocks_of_any_size_is_the_whole_loss(num_nodes: int, block_size: int, seed: int) -> None:
    import torch

    from gcl.losses.grouped import views_tuplet_loss

    z_VBD = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, num_nodes, 5)))
    whole = views_tuplet_loss(z_VBD, temperature=0.5).loss.item()
    chunked = views_tuplet_loss(z_VBD, temperature=0.5, block_size=block_size).loss.item()
    assert chunked == pytest.approx(whole, rel=1e-10)
