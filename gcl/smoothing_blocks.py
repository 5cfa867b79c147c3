"""The filter's work in blocks of columns: in memory, or over files that any process can open.

A block needs nothing of the others and writes a file of its own, so blocks run in any order, on any worker,
and again after a lost one; the bytes are the same.

Shape legend: N nodes, F features, L steps, c columns of one block.
"""

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features
from gcl.propagation import Csr, Propagation


@dataclass(frozen=True)
class Plan:
    """What every block is to do.

    Attributes:
        weights: w_0..w_L.
        convolution: r.
        backend: resolved propagation backend, ``dgl`` or ``torch``.
        device: torch device.
    """

    weights: tuple[float, ...]
    convolution: float
    backend: Literal["dgl", "torch"]
    device: str


@dataclass(frozen=True)
class Block:
    """Columns first..last-1 of the work laid out in `folder`; small enough to send to any worker."""

    folder: str
    first: int
    last: int


MapBlocks = Callable[[Callable[[Block], str], Sequence[Block]], Sequence[str]]


def map_in_process(function: Callable[[Block], str], blocks: Sequence[Block]) -> list[str]:
    """Run the blocks one after the other here, with all of torch's threads."""
    return [function(block) for block in blocks]


def smooth_in_memory(x_NF: Features, csr: Csr, plan: Plan, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Smooth the column ranges one after the other; returns float32 N x F."""
    indptr, indices, weight_E = csr
    propagation = Propagation(indptr, indices, weight_E=weight_E, backend=plan.backend, device=plan.device)
    columns = x_NF if isinstance(x_NF, np.ndarray) else x_NF.tocsc()
    out_NF = np.empty(x_NF.shape, np.float32)
    for first, last in ranges:
        block = columns[:, first:last]
        x_Nc = block.toarray(order="C") if sp.issparse(block) else np.array(block, np.float32, order="C")
        out_NF[:, first:last] = _filter_block(propagation, x_Nc, plan)
    return out_NF


def smooth_in_files(
    x_NF: Features,
    csr: Csr,
    plan: Plan,
    ranges: Sequence[tuple[int, int]],
    folder: Path,
    map_blocks: MapBlocks,
) -> np.ndarray:
    """Lay the work out in `folder`, have it done, and put the blocks together."""
    for name, array in zip(("indptr", "indices", "edge_weight"), csr, strict=True):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    is_sparse = not isinstance(x_NF, np.ndarray)
    if not isinstance(x_NF, np.ndarray):
        columns = x_NF.tocsc()
        for name in ("data", "indices", "indptr"):
            np.save(folder / f"x_{name}.npy", getattr(columns, name))
    else:
        # A file a block: a worker that read its columns from one large file would read all of it.
        for first, last in ranges:
            np.save(folder / f"x_{first}.npy", np.ascontiguousarray(x_NF[:, first:last], np.float32))
    layout = {"plan": asdict(plan), "is_sparse": is_sparse, "is_weighted": csr[2] is not None}
    (folder / "plan.json").write_text(json.dumps(layout))
    blocks = [Block(str(folder), first, last) for first, last in ranges]
    names = map_blocks(smooth_block, blocks)
    out_NF = np.empty(x_NF.shape, np.float32)
    for block, name in zip(blocks, names, strict=True):
        out_NF[:, block.first : block.last] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    return out_NF


def smooth_block(block: Block) -> str:
    """Smooth the columns of one block, from and to files of its folder; safe to run again, also at once.

    Returns:
        Name of the file written: float32 N x c.
    """
    folder = Path(block.folder)
    layout = json.loads((folder / "plan.json").read_text())
    plan = Plan(**layout["plan"])
    weight_E = _mapped(folder / "edge_weight.npy") if layout["is_weighted"] else None
    propagation = Propagation(
        _mapped(folder / "indptr.npy"),
        _mapped(folder / "indices.npy"),
        weight_E=weight_E,
        backend=plan.backend,
        device=plan.device,
    )
    if layout["is_sparse"]:
        x_Nc = _sparse_columns(folder, block, propagation.num_nodes)
    else:
        x_Nc = np.load(folder / f"x_{block.first}.npy", allow_pickle=False)
    out_Nc = _filter_block(propagation, x_Nc, plan)
    name = f"out_{block.first}.npy"
    partial = folder / f"{name}.{os.getpid()}-{uuid.uuid4().hex}.partial"
    with partial.open("wb") as stream:
        np.save(stream, out_Nc)
    partial.replace(folder / name)
    return name


def _mapped(path: Path) -> np.ndarray:
    # Copy on write: torch refuses to promise that it leaves a read-only array alone.
    return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]


def _sparse_columns(folder: Path, block: Block, num_nodes: int) -> np.ndarray:
    indptr = _mapped(folder / "x_indptr.npy")[block.first : block.last + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    rows = _mapped(folder / "x_indices.npy")[entries]
    parts = (_mapped(folder / "x_data.npy")[entries], rows, indptr - indptr[0])
    columns = sp.csc_matrix(parts, shape=(num_nodes, block.last - block.first))
    return np.asarray(columns.toarray(order="C"))


def _filter_block(propagation: Propagation, x_Nc: np.ndarray, plan: Plan) -> np.ndarray:
    """D^r (sum_l w_l T^l) D^-r x, in place of `x_Nc`, which is used up."""
    import torch

    with torch.inference_mode():
        walked_Nc = torch.from_numpy(x_Nc).to(propagation.device)
        if plan.convolution != 0:
            walked_Nc.mul_(propagation.degree_scaling(-plan.convolution))
        out_Nc = walked_Nc * plan.weights[0]
        summed_Nc = torch.empty_like(walked_Nc)
        walk_scaling_N1 = propagation.degree_scaling(-1.0)
        for weight in plan.weights[1:]:
            propagation.neighbour_sum(walked_Nc, out_Nc=summed_Nc)
            # addcmul rounds alike in vector code and in what is left over at the end of a thread's share, so
            # the bytes do not depend on the number of threads; the tests hold it to that.
            if weight != 0:
                out_Nc.addcmul_(summed_Nc, walk_scaling_N1, value=weight)
            summed_Nc.mul_(walk_scaling_N1)
            walked_Nc, summed_Nc = summed_Nc, walked_Nc
        if plan.convolution != 0:
            out_Nc.mul_(propagation.degree_scaling(plan.convolution))
        return out_Nc.cpu().numpy()
