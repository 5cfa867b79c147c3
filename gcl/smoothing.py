"""Smoothing: P = sum_l w_l (D^(r-1) A D^-r)^l X, a generalised-PageRank filter over node features.

Computed exactly unless asked otherwise, by power iteration with T = D^-1 A on blocks of columns, through the
identity (D^(r-1) A D^-r)^l = D^r T^l D^-r. A block needs nothing of the others: blocks run one after another
in this process, or on Dask workers over memory-mapped files, and the bytes of the result are the same.

Shape legend: N nodes, F features, L steps, c columns of one block.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from gcl.config import Config, operational
from gcl.errors import UnsuitableSetting
from gcl.feature_rows import FeatureRows, finite, standardised
from gcl.features import degree_features, normalise_rows, principal_components, spectral_features
from gcl.graph import Graph
from gcl.propagation import BackendName, Csr, csr_arrays, effective_degrees, out_degrees, resolve_backend
from gcl.smoothing_blocks import (
    ColumnBlocks,
    MapBlocks,
    Plan,
    PushOptions,
    push_in_process,
    smooth_in_files,
    smooth_in_process,
)
from gcl.workspace import MEMORY, Workspace, row_slices

# 64 and 128 columns measured alike at 200k nodes on two idle cores, 128 faster on busy ones, 32 and
# fewer slower.
BLOCK_COLUMNS = 128
# A block, its sum over levels, its next step, and what is copied in and out.
NUM_BUFFERS = 4
BUFFER_BYTES = 6 << 30
BASE_BYTES = 1 << 30  # the interpreter with torch and dgl, vectors of N; where the caller does not know
NUM_SPECTRAL_FEATURES = 64


class SmoothingConfig(Config):
    """Which filter smooths the features, over which operator, and how the work is spread."""

    features: Literal["attributes", "degree", "spectral"] = Field(
        "attributes",
        description="what is smoothed: the graph's attributes, one-hot degrees, or Laplacian eigenvectors",
    )
    max_degree: int = Field(
        64, ge=1, le=10_000, description="degree features: last one-hot column, this degree or more (count)"
    )
    standardise: bool = Field(
        False,
        description="columns to standard deviation 1, dense ones to mean 0: for columns of unlike units",
    )
    normalise_input: Literal["none", "l1", "l2"] = Field(
        "none", description="norm of each feature row before smoothing"
    )
    num_components: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="principal components kept before smoothing (count; none keeps all); "
        f"for spectral features the number of eigenvectors (none: {NUM_SPECTRAL_FEATURES})",
    )
    filter: Literal["ppr", "heat", "sgc", "weights"] = Field(
        "ppr", description="ppr a(1-a)^l, heat e^-t t^l/l!, sgc only level L, or weights as given"
    )
    alpha: float = Field(
        0.1, gt=0, le=1, description="ppr: restart probability in (0, 1]; 1 leaves features alone"
    )
    time: float = Field(3.0, gt=0, le=100, description="heat: diffusion time t in (0, 100]")
    num_steps: int = Field(
        10, ge=0, le=1000, description="L, propagation steps (count); given weights have their own"
    )
    weights: tuple[float, ...] | None = Field(
        None, min_length=1, max_length=1001, description="filter weights: w_0..w_L, any sign; used as given"
    )
    tail: Literal["on_last", "drop", "renormalise"] = Field(
        "on_last",
        description="ppr, heat: the mass beyond level L goes on level L, is dropped, or is shared out",
    )
    convolution: float = Field(
        0.5,
        ge=0,
        le=1,
        description="r in [0, 1] of D^(r-1) A D^-r: 0 random walk, 1/2 symmetric, 1 column-type",
    )
    self_loops: bool = Field(True, description="give every node that has none an edge to itself, of weight 1")
    normalise_output: Literal["none", "l2"] = Field("none", description="norm of each smoothed row")
    solver: Literal["power", "push"] = Field(
        "power",
        description="power: exact, step by step; push: approximate, to r_max (needs numba; slower at every "
        "useful error that was measured)",
    )
    r_max: float = Field(
        1e-7,
        ge=0,
        le=1,
        description="push: values up to this share of a column's absolute sum stay, in [0, 1]; 0 is exact",
    )
    backend: Literal["auto", "direct", "dask"] = operational(
        "auto",
        description="where blocks run: this process, Dask workers, or auto: Dask where dask_address is given",
    )
    dask_address: str | None = operational(
        None,
        description="existing Dask scheduler, e.g. tcp://host:8786; none starts a cluster on this machine",
    )
    num_workers: int = operational(2, ge=1, le=4096, description="Dask worker processes (count)")
    threads_per_worker: int = operational(1, ge=1, le=1024, description="threads in each Dask worker (count)")
    memory_limit: int | None = operational(
        None, ge=2**28, description="bytes a Dask worker may use, 256 MiB or more; none sets no limit"
    )
    block_columns: int | None = operational(
        None, ge=1, le=65_536, description="columns smoothed together (count); none chooses"
    )

    @model_validator(mode="after")
    def _weights_fit_filter(self) -> "SmoothingConfig":
        if (self.filter == "weights") != (self.weights is not None):
            raise ValueError('weights and filter = "weights" need each other: give both or neither')
        return self

    @model_validator(mode="after")
    def _push_stays_here(self) -> "SmoothingConfig":
        if self.solver == "push" and self.backend == "dask":
            raise ValueError('solver = "push" works in this process: leave backend at auto or direct')
        return self


def filter_weights(config: SmoothingConfig) -> np.ndarray:
    """w_0..w_L as float64 of L + 1.

    Truncation keeps the tail's mass on level L unless the configuration says otherwise: at alpha = 0.05 and
    L = 10 that level carries 60 % of it.

    References:
        ppr: Klicpera et al. 2019 (APPNP); heat: Klicpera et al. 2019 (GDC); sgc: Wu et al. 2019.
    """
    if config.weights is not None:
        return np.array(config.weights, np.float64)
    level = np.arange(config.num_steps + 1)
    if config.filter == "sgc":
        return np.where(level == config.num_steps, 1.0, 0.0)
    if config.filter == "ppr":
        weights = config.alpha * (1 - config.alpha) ** level
        mass_from_last = (1 - config.alpha) ** config.num_steps
    else:
        from scipy.special import gammainc, gammaln

        weights = np.exp(level * np.log(config.time) - config.time - gammaln(level + 1))
        # P(Poisson(t) >= L); one minus the sum of the others would cancel.
        mass_from_last = float(gammainc(config.num_steps, config.time)) if config.num_steps else 1.0
    if config.tail == "on_last":
        weights[-1] = mass_from_last
    elif config.tail == "renormalise":
        weights /= weights.sum()
    return np.asarray(weights, np.float64)


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Smoothed features and what is known of them.

    Attributes:
        blocks: the features before `norm` is applied.
        norm: of each row.
        weights: float64 w_0..w_L.
        bound: no entry is larger than this in magnitude.
    """

    blocks: ColumnBlocks
    norm: Literal["none", "l2"]
    weights: np.ndarray
    bound: float

    @property
    def num_features(self) -> int:
        """F."""
        return self.blocks.ranges[-1][1] if self.blocks.ranges else 0

    def row_blocks(self) -> Iterator[np.ndarray]:
        """The features as float32 [B, F] blocks of rows, of at most 32 MiB each."""
        for x_BF in self.blocks.row_blocks():
            yield np.asarray(normalise_rows(x_BF, self.norm))

    @cached_property
    def x_NF(self) -> np.ndarray:
        """float32 [N, F], whole, C order."""
        found = list(self.row_blocks())
        return np.concatenate(found) if found else np.empty((0, self.num_features), np.float32)


def takes_dask(config: SmoothingConfig) -> bool:
    """Whether `config.backend` means Dask.

    On one machine workers gain nothing over the threads of this process, whatever the size: both go through
    the same blocks, and this process keeps one graph where each worker keeps its own.
    """
    if config.backend == "auto":
        return config.solver == "power" and config.dask_address is not None
    return config.backend == "dask"


def prepared_rows(
    graph: Graph, config: SmoothingConfig, *, seed: int, attributes: FeatureRows | None = None
) -> FeatureRows:
    """The features that enter the filter: chosen, row-normalised, reduced; float32, dense or CSR.

    Degrees and attributes are streamed. Spectral features and principal components are computed in memory.

    Args:
        graph: their graph.
        config: what is chosen.
        seed: of the decompositions.
        attributes: the graph's attributes, where they are not in the graph.

    Raises:
        UnsuitableSetting: attributes asked for and the graph has none.
    """
    if config.features == "spectral":
        num_components = config.num_components or NUM_SPECTRAL_FEATURES
        spectral_NF = spectral_features(graph, num_components=num_components, seed=seed)
        return _normalised(FeatureRows.of(spectral_NF), config.normalise_input)
    if config.features == "degree":
        rows = FeatureRows.of(degree_features(graph, max_degree=config.max_degree))
    elif attributes is None and graph.x_NF is not None:
        rows = FeatureRows.of(graph.x_NF)
    else:
        rows = attributes or FeatureRows((graph.num_nodes, 0), lambda: iter(()))
    if rows.shape[1] == 0:
        raise UnsuitableSetting(
            'the graph has no attributes: set smooth.features to "degree" (one-hot degrees) or "spectral" '
            "(Laplacian eigenvectors)"
        )
    rows = finite(rows)
    if config.standardise:
        rows = standardised(rows)
    rows = _normalised(rows, config.normalise_input)
    if config.num_components is not None:
        whole_NF = rows.whole()
        return FeatureRows.of(principal_components(whole_NF, num_components=config.num_components, seed=seed))
    return rows


def _normalised(rows: FeatureRows, norm: Literal["none", "l1", "l2"]) -> FeatureRows:
    return rows if norm == "none" else rows.map(lambda x_BF: normalise_rows(x_BF, norm))


def smooth_features(
    graph: Graph,
    config: SmoothingConfig,
    *,
    seed: int,
    attributes: FeatureRows | None = None,
    map_blocks: MapBlocks | None = None,
    scratch: Path | None = None,
    workspace: Workspace = MEMORY,
    memory_limit: int | None = None,
    machine_memory: int | None = None,
    held_bytes: int = BASE_BYTES,
    propagation_backend: BackendName = "auto",
    device: str = "cpu",
) -> Smoothed:
    """Smooth the features of a graph.

    Memory: the graph in CSR form and three blocks of columns; with a workspace on a disk, which takes
    (N x F x 4 + E x 4) bytes, nothing else of size N x F.

    Args:
        graph: directed graphs aggregate over out-neighbours.
        config: filter, operator, preparation, block plan.
        seed: for the principal components and the spectral features; the filter draws nothing.
        attributes: the graph's attributes, where they are not in the graph.
        map_blocks: runs a function on blocks, in any order and any process that sees `scratch`; results
            in the order of the blocks. The function is idempotent: a block may run again after a lost worker.
            None works in this process.
        scratch: existing folder for the files of `map_blocks`, left in place; needs (N x F x 8 + E x 4)
            bytes. None takes a temporary folder.
        workspace: where large arrays are put.
        memory_limit: bytes this process may take; narrows the blocks of columns. None: blocks of up to
            128 columns, all copies of one in at most 6 GiB.
        machine_memory: bytes that there are: where `memory_limit` is none, blocks are not larger than fits.
        held_bytes: what the process takes besides the graph and the blocks.
        propagation_backend: see `gcl.propagation.resolve_backend`.
        device: torch device.

    Returns:
        The smoothed features, the same bytes for every block plan, worker count and number of threads.
    """
    rows = prepared_rows(graph, config, seed=seed, attributes=attributes)
    weights = filter_weights(config)
    csr = csr_arrays(graph, self_loops=config.self_loops, workspace=workspace)
    plan = Plan(
        weights=tuple(weights.tolist()),
        convolution=config.convolution,
        backend=resolve_backend(propagation_backend, device),
        device=device,
    )
    csr_bytes = sum(part.nbytes for part in csr if part is not None)
    limits = MemoryLimits(memory_limit, machine_memory, besides=held_bytes + 2 * csr_bytes)
    width = _block_columns(config, rows.shape, limits, csr_bytes=csr_bytes)
    firsts = range(0, rows.shape[1], width)
    ranges = [(first, min(first + width, rows.shape[1])) for first in firsts]
    left_out = 0.0
    if config.solver == "push":
        options = PushOptions(config.r_max, is_undirected=graph.is_undirected)
        blocks, largest, left_out = push_in_process(rows, csr, plan, ranges, workspace, options)
    elif map_blocks is None:
        blocks, largest = smooth_in_process(rows, csr, plan, ranges, workspace)
    elif scratch is not None:
        blocks, largest = smooth_in_files(rows, csr, plan, ranges, scratch, map_blocks)
    else:
        with tempfile.TemporaryDirectory(prefix="gclflow-smooth-") as folder:
            blocks, largest = smooth_in_files(rows, csr, plan, ranges, Path(folder), map_blocks)
    # Scaling to length 1 enlarges short rows: then nothing but the length bounds a value.
    is_scaled = config.normalise_output == "l2"
    bound = 1.0 + 1e-6 if is_scaled else largest * _growth(csr, weights, config) + left_out
    return Smoothed(blocks, config.normalise_output, weights, bound)


def _growth(csr: Csr, weights: np.ndarray, config: SmoothingConfig) -> float:
    """(d_max / d_min)^r sum|w|: T averages, so only D^r ... D^-r can enlarge; and rounding."""
    indptr, indices, weight_E = csr
    num_out_N = np.diff(indptr)
    degree_N = out_degrees(indptr, weight_E)
    # A node that only receives edges is scaled by 1 (see degree_scaling), so it counts with degree 1.
    is_touched_N = num_out_N > 0
    for part in row_slices(len(indices), 8):
        is_touched_N[indices[part]] = True
    touched_degrees = effective_degrees(degree_N)[is_touched_N]
    spread = touched_degrees.max() / touched_degrees.min() if len(touched_degrees) else 1.0
    # Adding d numbers one after the other errs by at most d units in the last place, at each of L steps.
    num_roundings = len(weights) * (float(num_out_N.max(initial=0)) + 4)
    rounding = float(np.exp(num_roundings * np.finfo(np.float32).eps / 2))
    return float(spread**config.convolution * np.abs(weights).sum() * rounding)


@dataclass(frozen=True)
class MemoryLimits:
    """Bytes of memory: what was asked for, what there is, and what all but the blocks of columns takes."""

    asked: int | None
    machine: int | None
    besides: int

    @property
    def for_blocks(self) -> int:
        """What is left for all copies of a block, negative for nothing; at most 6 GiB unless asked for."""
        if self.asked is not None:
            return self.asked - self.besides
        return BUFFER_BYTES if self.machine is None else min(BUFFER_BYTES, self.machine - self.besides)


def _block_columns(
    config: SmoothingConfig, shape: tuple[int, int], limits: MemoryLimits, *, csr_bytes: int
) -> int:
    if config.block_columns is not None:
        return config.block_columns
    num_nodes, num_columns = shape
    width, budget = min(BLOCK_COLUMNS, max(num_columns, 1)), limits.for_blocks
    if takes_dask(config):
        width = min(width, -(-num_columns // config.num_workers))
        share = None if limits.asked is None else limits.asked // config.num_workers
        worker_limit = config.memory_limit or share
        # Half the limit: the other half is the interpreter with torch, and mapped pages.
        budget = budget // config.num_workers if worker_limit is None else worker_limit // 2 - 2 * csr_bytes
    return max(min(width, budget // (NUM_BUFFERS * 4 * max(num_nodes, 1))), 1)
