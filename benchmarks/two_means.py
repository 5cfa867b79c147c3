"""How fast the anchors' similarities are parted: all rows at once, beside one scikit-learn KMeans an anchor.

    python benchmarks/two_means.py --json two_means.json

Both part the same float32 rows of cosines, 128 anchors against each number of candidates; one KMeans run
from one k-means++ start is the cheapest scikit-learn offers, and finds the best cut only mostly. Fastest of
interleaved repeats on one thread, in processor seconds, which other work on the machine hardly touches; the
sums of squares are compared first.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from gcl.two_means import two_means

TARGET_RATIO = 50


def cosines(num_anchors: int, num_candidates: int) -> torch.Tensor:
    """Cosines between points of four overlapping Gaussian clouds."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 4, num_candidates)
    z_MD = np.eye(4, 64)[label] + 0.15 * generator.standard_normal((num_candidates, 64))
    z_MD /= np.linalg.norm(z_MD, axis=1, keepdims=True)
    return torch.from_numpy((z_MD[:num_anchors] @ z_MD.T).astype(np.float32))


def one_by_one(rows: np.ndarray) -> float:
    """Total sum of squares over the rows."""
    return sum(KMeans(2, n_init=1, random_state=0).fit(row[:, None]).inertia_ for row in rows)


def measure(num_anchors: int, num_candidates: int, repeats: int) -> dict[str, float]:
    value_BM = cosines(num_anchors, num_candidates)
    rows = value_BM.numpy()
    cost, their_cost = float(two_means(value_BM).cost_B.sum()), one_by_one(rows)
    if cost > their_cost * (1 + 1e-5):
        raise SystemExit(f"not the best cut: {cost} against {their_cost}")
    ours, theirs = [], []
    for _ in range(repeats):
        started = time.process_time()
        two_means(value_BM)
        ours.append(time.process_time() - started)
        started = time.process_time()
        one_by_one(rows)
        theirs.append(time.process_time() - started)
    seconds, their_seconds = min(ours), min(theirs)
    return {
        "num_anchors": num_anchors,
        "num_candidates": num_candidates,
        "processor_seconds": seconds,
        "scikit_learn_processor_seconds": their_seconds,
        "ratio": their_seconds / seconds,
        "excess_cost_of_scikit_learn": their_cost / cost - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anchors", type=int, default=128)
    parser.add_argument("--candidates", type=int, nargs="+", default=[128, 2048, 13_752])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        cases = [measure(arguments.anchors, count, arguments.repeats) for count in arguments.candidates]
    for case in cases:
        print(
            f"{case['num_anchors']} x {case['num_candidates']:6d}: "
            f"{1e3 * case['processor_seconds']:8.2f} ms, "
            f"scikit-learn {1e3 * case['scikit_learn_processor_seconds']:8.1f} ms, "
            f"ratio {case['ratio']:6.1f} (target {TARGET_RATIO}), "
            f"scikit-learn's cost {100 * case['excess_cost_of_scikit_learn']:.4f} % above the best"
        )
    if arguments.json:
        versions = {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
        record = {
            "threads": 1,
            "machine": platform.machine(),
            "versions": versions,
            "cases": cases,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
