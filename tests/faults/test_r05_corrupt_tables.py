"""R5: truncated and corrupt Parquet, committed or from outside: never a wrong number, never a dead parent.

Run as a program this file reads mutated tables of a stranger under a memory limit:
``python test_r05_corrupt_tables.py COUNT FOLDER``.
"""

import json
import random
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.errors import ArtifactCorrupted
from tasks.store import Store
from tests.faults.injection import program
from tests.sources import own_parquet
from tests.tiny_runs import run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]
MEMORY_BYTES = 1 << 30


@pytest.mark.parametrize("stage", ["ingest", "train", "evaluate"])
def test_a_committed_table_cut_anywhere_is_corrupted(store_copy: Path, stage: str) -> None:
    """At every 64 bytes and at each of the last 16."""
    store = Store(store_copy)
    ((_, key),) = (address for address in store.folders() if address[0] == stage)
    for path in sorted(store.stage_folder(stage, key).glob("*/*.parquet")):
        content = path.read_bytes()
        path.chmod(0o600)
        for end in sorted({*range(0, len(content), 64), *range(len(content) - 16, len(content))}):
            path.write_bytes(content[:end])
            with pytest.raises(ArtifactCorrupted, match=path.name):
                store.verify(stage, key)
        path.write_bytes(content)
    store.verify(stage, key, full=True)


def test_a_run_over_a_cut_table_computes_it_again_and_a_cut_source_is_refused(
    store_copy: Path, tmp_path: Path
) -> None:
    """Derived data come again; of raw input there is no other copy."""
    from tests.faults.test_r17_r20_r27_values import REFUSED, ingest

    before = run_direct(tiny(), store_copy, until="cluster").digests
    (path,) = store_copy.glob("smooth/*/smoothed/features.parquet")
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:-9])
    again = run_direct(tiny(), store_copy, until="cluster")
    assert (again.ran, again.digests) == (["smooth"], before)
    source = own_parquet(tmp_path)
    content = (tmp_path / "nodes.parquet").read_bytes()
    (tmp_path / "nodes.parquet").write_bytes(content[:-9])
    with pytest.raises(REFUSED):
        ingest(source, tmp_path / "store")


def table_of_a_stranger(folder: Path) -> dict[str, str]:
    """200 nodes with ids as text and 16 features: pages, dictionaries and statistics to break."""
    count, draws = 200, np.random.default_rng(0)
    ids = pa.array([f"node-{i}" for i in range(count)])
    x = pa.array(draws.normal(size=(count, 16)).astype(np.float32).tolist(), pa.list_(pa.float32()))
    return own_parquet(folder, id_type="string", id=ids, x=x, edge_source=ids[:-1], edge_target=ids[1:])


def read_mutated(count: int, folder: Path) -> None:
    """Flip, overwrite, cut, repeat; print how the reads ended. Anything but our errors ends this process."""
    from tests.security.test_foreign_tables import REFUSED, read_all

    overrides = table_of_a_stranger(folder)
    read_all(overrides)  # libraries are loaded; what comes on top is limited
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    draws, ended = random.Random(5), {"read": 0, "refused": 0}
    for _ in range(count):
        path = folder / draws.choice(["nodes.parquet", "edges.parquet"])
        original = path.read_bytes()
        content = bytearray(original)
        for _ in range(draws.choice([1, 1, 1, 3])):
            # The footer, where lengths and offsets stand, is small and gets half of the hits.
            low = draws.choice([0, max(0, len(content) - 1500)])
            at = draws.randrange(low, len(content))
            content[at : at + draws.choice([0, 1, 1, 4])] = draws.choice(
                [
                    b"",
                    bytes([content[at] ^ (1 << draws.randrange(8))]),
                    b"\xff\xff\xff\x7f",
                    b"\0",
                    b"\x80" * 4,
                ]
            )
        path.write_bytes(content)
        try:
            read_all(overrides)
            ended["read"] += 1
        except REFUSED:
            ended["refused"] += 1
        path.write_bytes(original)
    print(json.dumps(ended))


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.nightly)])
@pytest.mark.timeout(3600)
def test_a_mutated_table_of_a_stranger_is_read_or_refused_within_a_memory_limit(
    count: int, tmp_path: Path
) -> None:
    ended = json.loads(program(__file__, count, tmp_path, seconds=3500).splitlines()[-1])
    assert sum(ended.values()) == count
    assert ended["refused"] > count / 2


if __name__ == "__main__":
    read_mutated(int(sys.argv[1]), Path(sys.argv[2]))
