"""Which nodes of a new graph are scored, and which of them training has seen, by the source's own ids."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.errors import one_line
from gcl.errors import UnsuitableSetting
from tasks.convert import read_node_ids
from tasks.source_digests import unchanged
from tasks.work import Work

WantedNodes = Literal["new", "all", "listed"]
_SHOWN = 10


def training_rows(work: Work) -> np.ndarray:
    """Of each node of the new graph, its row among the training embeddings; -1 for a new one. int64 [N].

    Raises:
        UnsuitableSetting: ids of another type than the training's.
    """
    path = work.input("embeddings") / "embeddings.parquet"
    trained = pq.read_table(path, columns=["node_id"]).column(0).combine_chunks()
    found = read_node_ids(work.input("graph"))
    if found.type != trained.type:
        raise UnsuitableSetting(
            f"ids of the new data are {found.type}, those of the model's graph {trained.type}: write the new "
            "data as the old"
        )
    return np.asarray(pc.fill_null(pc.index_in(found, value_set=trained), -1).to_numpy().astype(np.int64))


def wanted_nodes(wanted: WantedNodes, file: Path | None, node_ids: pa.Array, row_N: np.ndarray) -> np.ndarray:
    """The nodes to score, int64, ascending.

    Args:
        wanted: which.
        file: of ids, where they are listed.
        node_ids: of the new graph, in node order.
        row_N: as of `training_rows`.

    Raises:
        UnsuitableSetting: ids that no node has; the first ten are named.
        SourceUnreadable: the file has changed since its digest was taken.
    """
    if wanted == "new":
        return np.flatnonzero(row_N < 0)
    if wanted == "all":
        return np.arange(len(row_N))
    if file is None:
        raise ValueError("nodes=listed needs nodes_file")
    listed: dict[Any, None]
    with unchanged([file]):
        listed = dict.fromkeys(_lines(file))
    if pa.types.is_integer(node_ids.type):
        _refuse([line for line in listed if not _is_int64(line)], f"of {file} are not integers")
        listed = dict.fromkeys(int(line) for line in listed)  # 7 and 007 are one node
    ids = pa.array(list(listed), node_ids.type)
    place = pc.index_in(ids, value_set=node_ids)
    _refuse(ids.filter(place.is_null()).to_pylist(), f"of {file} are not in the new data")
    return np.sort(place.to_numpy().astype(np.int64))


def _lines(file: Path) -> Iterator[str]:
    """The ids of a text file, blank lines left out."""
    try:
        with file.open(encoding="utf-8-sig", newline=None) as lines:
            yield from (line for raw in lines if (line := raw.rstrip("\n")))
    except (OSError, UnicodeDecodeError) as error:
        raise UnsuitableSetting(f"--nodes {file}: not a readable text file: {error}") from None


def _is_int64(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,19}", text) is not None and -(2**63) <= int(text) < 2**63


def _refuse(ids: list[Any], why: str) -> None:
    if ids:
        shown = ", ".join(one_line(_visible(str(one)))[:80] for one in ids[:_SHOWN])
        raise UnsuitableSetting(f"{len(ids)} ids {why}; first: {shown}")


def _visible(text: str) -> str:
    """The text, in quotes where it has blanks, which nobody sees at its end."""
    return repr(text) if any(letter.isspace() for letter in text) else text
