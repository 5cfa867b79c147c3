"""Smoothing some rows stays below a limit: the ball lies in files, and a step and narrow blocks in memory."""

from pathlib import Path

from tests.programs import reported

PROGRAM = """
import json, sys
from pathlib import Path

import numpy as np

import gcl.smoothing_rows as module
from gcl.feature_rows import FeatureRows
from gcl.graph import Graph
from gcl.smoothing import SmoothingConfig
from gcl.workspace import Workspace
from tests.programs import Growth

NUM_NODES, WIDTH, ROWS, STEPS, NEAR, COLUMNS = 400_000, 128, 20_000, 10, 5, 16
workspace = Workspace(Path(sys.argv[1]))
# A ring whose nodes know NEAR on each side; the ball around the wanted rows is a little less than its half.
src_E = np.repeat(np.arange(NUM_NODES), 2 * NEAR)
dst_E = (src_E + np.tile(np.r_[-NEAR:0, 1 : NEAR + 1], NUM_NODES)) % NUM_NODES
order = np.lexsort((dst_E, src_E))
graph = Graph(NUM_NODES, src_E[order], dst_E[order])
rows_R = np.arange(100, 190_000, 100)
block_BF = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
attributes = FeatureRows((NUM_NODES, WIDTH), lambda: (block_BF for _ in range(NUM_NODES // ROWS)))
module.smooth_features = None  # the ball is all that may be smoothed

growth = Growth()
ball = NUM_NODES // 2
edges = ball * (2 * NEAR + 1)
graph_bytes = 2 * 4 * (NUM_NODES * (2 * NEAR + 2) + 1)
limit = graph_bytes + module.STEP_EDGE_BYTES * edges + module.NUM_COPIES * 4 * ball * COLUMNS
held = 16 * NUM_NODES
found = module.smooth_rows(graph, SmoothingConfig(num_steps=STEPS), rows_R, attributes=attributes,
                           workspace=workspace, memory_limit=limit + held, held_bytes=held)
print(json.dumps({"grew": growth.num_bytes, "limit": limit + held, "features": 4 * ball * WIDTH,
                  "shape": found.shape}))
"""


def test_a_ball_of_half_the_graph_stays_below_the_limit(tmp_path: Path) -> None:
    found = reported(PROGRAM, tmp_path)
    assert found["shape"] == [1899, 128]
    assert found["grew"] < found["limit"]
