"""Every malformed source is refused by its reader, or passes on what the contracts must see."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from pydantic import TypeAdapter

from gcl.edges import canonical_edges
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers import AnyDataset, GraphSource, edge_policy, open_source
from tests.malformed import MALFORMED, MARKER

ADAPTER = TypeAdapter(AnyDataset)
# Well-formed, finite in number, and for the contracts to refuse once they are tables.
LEFT_TO_CONTRACTS = {
    "planetoid_nan_feature", "npz_nan_feature", "npy_infinite_feature", "csv_nan_feature", "csv_huge_feature",
    "csv_empty_feature", "csv_duplicate_id", "parquet_duplicate_id", "npy_empty_graph", "csv_no_nodes",
}  # fmt: skip


def read_all(overrides: dict[str, str]) -> tuple[GraphSource, list[np.ndarray]]:
    """Drive a reader as ingest does."""
    config = ADAPTER.validate_python(overrides)
    source = open_source(config)
    blocks = [] if source.feature_chunks is None else list(source.feature_chunks())
    if source.label_chunks is not None:
        assert sum(map(len, source.label_chunks())) == source.num_nodes
    if source.num_nodes:
        with tempfile.TemporaryDirectory() as scratch:
            edges = canonical_edges(
                source.edge_chunks(),
                num_nodes=source.num_nodes,
                policy=edge_policy(config, source),
                scratch=Path(scratch),
            )
            list(edges)
    return source, [block.data if sp.issparse(block) else block for block in blocks]


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - LEFT_TO_CONTRACTS))
def test_malformed_source_is_refused_with_its_kind_of_error(name: str, tmp_path: Path) -> None:
    malformed = MALFORMED[name]
    overrides = malformed.build(tmp_path)
    expected = {3: InvalidGraph, 4: SourceUnreadable}[malformed.exit_code]
    with pytest.raises(expected, match=malformed.match):
        read_all(overrides)
    assert not list(tmp_path.rglob(MARKER))


@pytest.mark.parametrize("name", sorted(LEFT_TO_CONTRACTS))
def test_source_left_to_the_contracts_shows_its_flaw(name: str, tmp_path: Path) -> None:
    assert MALFORMED[name].exit_code == 3
    source, blocks = read_all(MALFORMED[name].build(tmp_path))
    if name.endswith("_id"):
        ids = source.node_ids.to_pylist()
        assert len(set(ids)) < len(ids)
    elif name.endswith("feature"):
        assert not all(np.isfinite(block).all() for block in blocks)
    else:
        assert source.num_nodes == 0


def test_malformed_table_is_long_and_its_patterns_compile() -> None:
    assert len(MALFORMED) >= 45
    for malformed in MALFORMED.values():
        re.compile(malformed.match)
        assert malformed.exit_code in (3, 4)
