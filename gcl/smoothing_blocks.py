"""The filter's work in blocks of columns: in memory, or over files that any process can open.

A block needs nothing of the others and writes a file of its own, so blocks run in any order, on any worker,
and again after a lost one; the bytes are the same.

Shape legend: N nodes, F features, L steps, c columns of one block.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gcl.feature_rows import FeatureRows
from gcl.graph import Features
from gcl.propagation import Csr, Propagation, effective_degrees, out_degrees
from gcl.workspace import Workspace, row_slices


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


class ColumnBlocks:
    """A matrix of N rows cut into blocks of columns, each an array by itself.

    Args:
        ranges: first and last + 1 column of each block, in order.
        arrays: float32 [N, c] each.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], arrays: Sequence[np.ndarray]) -> None:
        self.ranges, self.arrays = tuple(ranges), list(arrays)

    def fill(self, rows: FeatureRows) -> float:
        """Write rows into the blocks; returns the largest magnitude met."""
        start, largest = 0, 0.0
        for x_BF in rows.blocks():
            for dense_BF in _dense_blocks(x_BF):
                part = slice(start, start + len(dense_BF))
                for (first, last), array_Nc in zip(self.ranges, self.arrays, strict=True):
                    array_Nc[part] = dense_BF[:, first:last]
                largest = max(largest, float(dense_BF.max(initial=0)), -float(dense_BF.min(initial=0)))
                start = part.stop
        return largest

    def row_blocks(self) -> Iterator[np.ndarray]:
        """The matrix as float32 [B, F] blocks of rows, of at most 32 MiB each."""
        width = self.ranges[-1][1] if self.ranges else 0
        for rows in row_slices(len(self.arrays[0]) if self.arrays else 0, 4 * width):
            yield np.concatenate([array_Nc[rows] for array_Nc in self.arrays], axis=1)


def _dense_blocks(x_BF: Features) -> Iterator[np.ndarray]:
    """A block as dense blocks of bounded size."""
    if isinstance(x_BF, np.ndarray):
        yield x_BF
        return
    for rows in row_slices(x_BF.shape[0], 4 * x_BF.shape[1]):
        yield np.asarray(x_BF[rows].toarray(order="C"), np.float32)


def column_blocks(ranges: Sequence[tuple[int, int]], num_rows: int, workspace: Workspace) -> ColumnBlocks:
    """Uninitialised blocks, cut from one array: what they hold together decides where it lies.

    Args:
        ranges: first and last + 1 column of each block, in order.
        num_rows: of each.
        workspace: where the array is put.
    """
    whole = workspace.empty((num_rows * (ranges[-1][1] if ranges else 0),))
    parts = [whole[num_rows * first : num_rows * last] for first, last in ranges]
    widths = [last - first for first, last in ranges]
    return ColumnBlocks(
        ranges, [part.reshape(num_rows, width) for part, width in zip(parts, widths, strict=True)]
    )


def map_in_process(function: Callable[[Block], str], blocks: Sequence[Block]) -> list[str]:
    """Run the blocks one after the other here, with all of torch's threads."""
    return [function(block) for block in blocks]


def smooth_in_process(
    rows: FeatureRows, csr: Csr, plan: Plan, ranges: Sequence[tuple[int, int]], workspace: Workspace
) -> tuple[ColumnBlocks, float]:
    """Smooth the column ranges one after the other, in place.

    Memory: the graph, and three times the widest block.

    Returns:
        The smoothed blocks, and the largest magnitude of what was smoothed.
    """
    indptr, indices, weight_E = csr
    blocks = column_blocks(ranges, rows.shape[0], workspace)
    largest = blocks.fill(rows)
    propagation = Propagation(indptr, indices, weight_E=weight_E, backend=plan.backend, device=plan.device)
    for array_Nc in blocks.arrays:
        # A copy: random reads are slower from the pages of a file.
        array_Nc[...] = _filter_block(propagation, np.array(array_Nc), plan)
    return blocks, largest


@dataclass(frozen=True)
class PushOptions:
    """How far push goes: the share that stays, and whether every edge has its opposite."""

    r_max: float
    is_undirected: bool


def push_in_process(
    rows: FeatureRows,
    csr: Csr,
    plan: Plan,
    ranges: Sequence[tuple[int, int]],
    workspace: Workspace,
    options: PushOptions,
) -> tuple[ColumnBlocks, float, float]:
    """Smooth approximately, by push; returns as `smooth_in_process`, and the largest error there can be."""
    import torch

    from gcl.bidirectional import push_filter

    blocks, left_out = column_blocks(ranges, rows.shape[0], workspace), 0.0
    largest = blocks.fill(rows)
    degree_N = out_degrees(csr[0], csr[2])
    widest = float(effective_degrees(degree_N).max(initial=1.0)) ** plan.convolution
    for array_Nc in blocks.arrays:
        pushed = push_filter(
            array_Nc,
            csr,
            weights=np.array(plan.weights),
            r_max=options.r_max,
            convolution=plan.convolution,
            is_undirected=options.is_undirected,
            num_threads=torch.get_num_threads(),
        )
        array_Nc[...] = pushed.x_SF
        left_out = max(left_out, widest * float(pushed.bound_F.max(initial=0.0)))
    return blocks, largest, left_out


def smooth_in_files(
    rows: FeatureRows,
    csr: Csr,
    plan: Plan,
    ranges: Sequence[tuple[int, int]],
    folder: Path,
    map_blocks: MapBlocks,
) -> tuple[ColumnBlocks, float]:
    """Lay the work out in `folder`, and have it done; returns as `smooth_in_process`."""
    for name, array in zip(("indptr", "indices", "edge_weight"), csr, strict=True):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    # A file a block: a worker that read its columns from one large file would read all of it.
    arrays = [_new_file(folder / f"x_{first}.npy", (rows.shape[0], last - first)) for first, last in ranges]
    largest = ColumnBlocks(ranges, arrays).fill(rows)
    for array in arrays:
        array.flush()
    layout = {"plan": asdict(plan), "is_weighted": csr[2] is not None}
    (folder / "plan.json").write_text(json.dumps(layout))
    names = map_blocks(smooth_block, [Block(str(folder), first, last) for first, last in ranges])
    smoothed = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names]
    return ColumnBlocks(ranges, smoothed), largest


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
    x_Nc = np.load(folder / f"x_{block.first}.npy", allow_pickle=False)
    out_Nc = _filter_block(propagation, x_Nc, plan)
    name = f"out_{block.first}.npy"
    partial = folder / f"{name}.{os.getpid()}-{uuid.uuid4().hex}.partial"
    with partial.open("wb") as stream:
        np.save(stream, out_Nc)
    partial.replace(folder / name)
    return name


def _new_file(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    """A float32 npy file to be filled through memory, with room for all of it on the disk."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as file:
        if size := path.stat().st_size:
            os.posix_fallocate(file.fileno(), 0, size)
    return array


def _mapped(path: Path) -> np.ndarray:
    # Copy on write: torch refuses to promise that it leaves a read-only array alone.
    return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]


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
