"""Narrow blocks of columns take less memory than wide ones in this process too: they are kept in files."""

from pathlib import Path

from tests.programs import reported

PROGRAM = """
import json, sys
from pathlib import Path

import numpy as np

from gcl.feature_rows import FeatureRows
from gcl.graph import Graph
from gcl.smoothing import NUM_BUFFERS, SmoothingConfig, smooth_features
from gcl.workspace import Workspace
from tests.programs import Growth

NUM_NODES, WIDTH, COLUMNS, ROWS = 400_000, 192, 8, 20_000
generator = np.random.default_rng(0)
src_E = np.arange(NUM_NODES)
graph = Graph(NUM_NODES, src_E, (src_E + 1) % NUM_NODES)
block_BF = generator.standard_normal((ROWS, WIDTH), dtype=np.float32)
rows = FeatureRows((NUM_NODES, WIDTH), lambda: (block_BF for _ in range(NUM_NODES // ROWS)))
workspace = Workspace(Path(sys.argv[1]), in_memory_bytes=32 << 20)

def smooth():
    limit = NUM_BUFFERS * 4 * NUM_NODES * COLUMNS + (64 << 20)
    return smooth_features(graph, SmoothingConfig(num_steps=2), seed=0, attributes=rows, workspace=workspace,
                           memory_limit=limit, held_bytes=32 << 20)

growth = Growth()
found = smooth()
widths = [last - first for first, last in found.blocks.ranges]
print(json.dumps({"grew": growth.num_bytes, "widths": widths, "features": 4 * NUM_NODES * WIDTH}))
"""


def test_what_all_blocks_hold_together_lies_in_files(tmp_path: Path) -> None:
    found = reported(PROGRAM, tmp_path)
    assert len(found["widths"]) > 10
    assert all(width * 4 * 400_000 <= 32 << 20 for width in found["widths"]), "each would fit in memory"
    assert found["grew"] < 0.6 * found["features"]
