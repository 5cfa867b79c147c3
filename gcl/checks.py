"""Checks: compressed snapshots of the embeddings along a training, kept safe until the run is published.

Which epoch embeds best cannot be told without labels; a consensus over several can do without
(`gcl.clustering.consensus`). Snapshots are kept in files beside the checkpoints: a resumed training
skips the epochs it has finished, so what was taken in them must have outlived the kill.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcl.trainer_config import TrainConfig

logger = logging.getLogger(__name__)

NUM_COMPONENTS = 64
"""Most columns of a snapshot; wider embeddings keep their leading components."""


@dataclass(frozen=True, eq=False)
class Check:
    """The embeddings after an epoch.

    Attributes:
        epoch: epochs finished.
        z_NK: float32, the embeddings or their leading components.
        kept_share: share of their squared norm that is left, 1 where nothing was dropped.
    """

    epoch: int
    z_NK: np.ndarray
    kept_share: float


def check_epochs(config: TrainConfig) -> tuple[int, ...]:
    """The epochs, counted from 1, after which a check is taken: evenly spaced, the last one among them.

    Never more than one an epoch. A function of the settings alone, so a resumed run takes the same.
    """
    count = min(config.num_checks, config.epochs)
    return tuple(number * config.epochs // count for number in range(1, count + 1))


def compress(z_ND: np.ndarray, *, num_components: int = NUM_COMPONENTS) -> tuple[np.ndarray, float]:
    """The leading components of embeddings: a truncated SVD without centring.

    Distances to the origin and between rows are those of the best approximation of rank k; angles, which
    k-means on unit rows sees, are kept likewise. Embeddings of at most k columns come back as they are.

    Args:
        z_ND: float32 embeddings.
        num_components: k.

    Returns:
        float32 [N, min(D, k)], the same bits for any number of threads, and the share of the squared norm
        that is left.
    """
    if z_ND.shape[1] <= num_components:
        return np.ascontiguousarray(z_ND, np.float32), 1.0
    from scipy.linalg import eigh

    from gcl.threads import one_thread

    size = z_ND.shape[1]
    with one_thread():
        gram_DD = np.zeros((size, size))
        for start in range(0, len(z_ND), 4096):
            block_BD = z_ND[start : start + 4096].astype(np.float64)
            gram_DD += block_BD.T @ block_BD
        _, vector_DK = eigh(gram_DD, subset_by_index=(size - num_components, size - 1))
        vector_DK = np.asarray(vector_DK)[:, ::-1]
        largest_K = np.abs(vector_DK).argmax(0)
        vector_DK = vector_DK * np.sign(vector_DK[largest_K, np.arange(num_components)])  # LAPACK's are free
        z_NK = np.empty((len(z_ND), num_components), np.float32)
        for start in range(0, len(z_ND), 4096):
            z_NK[start : start + 4096] = z_ND[start : start + 4096].astype(np.float64) @ vector_DK
    total = float(np.trace(gram_DD))
    kept = float(np.einsum("nk,nk->", z_NK, z_NK, dtype=np.float64))
    return z_NK, min(1.0, kept / total) if total > 0 else 1.0


class CheckFolder:
    """The checks of a training that is under way, one file an epoch.

    Args:
        folder: where they lie; made when the first is kept.
        epochs: the epochs that are to be kept, ascending.
    """

    def __init__(self, folder: Path, epochs: tuple[int, ...]) -> None:
        self.folder, self.epochs = folder, epochs

    def keep(self, epoch: int, z_ND: np.ndarray) -> None:
        """Compress and write a check; when this returns, it outlives a kill and a power cut.

        Args:
            epoch: epochs finished.
            z_ND: float32 embeddings.
        """
        from safetensors.numpy import save

        from gcl.locked_files import write_atomically

        self.folder.mkdir(parents=True, exist_ok=True)
        z_NK, kept_share = compress(z_ND)
        notes = {"kept_share": kept_share.hex(), "sha256": hashlib.sha256(z_NK.tobytes()).hexdigest()}
        content = save({"z": z_NK}, metadata={"check": json.dumps(notes)})  # one entry: they have no order
        write_atomically(self._path(epoch), content)

    def first_missing(self) -> int | None:
        """The first epoch whose check is not there whole; None where all are."""
        for epoch in self.epochs:
            try:
                self._read(epoch)
            except (OSError, ValueError) as error:
                if self._path(epoch).exists():
                    logger.warning("the check of epoch %d is damaged: %s", epoch, error)
                return epoch
        return None

    def __iter__(self) -> Iterator[Check]:
        """The checks in the order of their epochs, read one at a time."""
        return (self._read(epoch) for epoch in self.epochs)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:08d}.safetensors"

    def _read(self, epoch: int) -> Check:
        """One check.

        Raises:
            OSError: it is not there.
            ValueError: it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(epoch), "numpy") as file:
                z_NK, metadata = file.get_tensor("z"), file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        notes = json.loads(metadata.get("check", "{}"))
        if hashlib.sha256(z_NK.tobytes()).hexdigest() != notes.get("sha256"):
            raise ValueError("its values do not match their checksum")
        return Check(epoch, z_NK, float.fromhex(notes["kept_share"]))
