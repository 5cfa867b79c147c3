"""Checks of a fit outside the pipeline: in memory, or in files where an interrupted fit finds them again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gcl.checks import CheckFolder, check_epochs, compress
from gcl.errors import SourceUnreadable
from gcl.methods.base import Method, TrainingData
from gcl.trainer import EpochReport
from gcl.trainer_config import TrainConfig


class FitChecks:
    """The checks of one fit, taken as the pipeline takes them.

    With a folder of checkpoints they are files beside these: epochs before the newest checkpoint are not
    trained again, and their checks were written before it. Files of an earlier run with other settings do
    no harm, since the epochs after the newest checkpoint write theirs anew.

    Args:
        config: how many, of how many epochs.
        checkpoint_dir: the fit's checkpoints; None for memory alone.
    """

    def __init__(self, config: TrainConfig, checkpoint_dir: Path | None) -> None:
        self._epochs = check_epochs(config)
        folder = None if checkpoint_dir is None else checkpoint_dir / "checks"
        self._files = None if folder is None else CheckFolder(folder, self._epochs)
        self._kept: dict[int, np.ndarray] = {}

    def before(
        self, then: Callable[[EpochReport], None] | None, *, method: Method, data: TrainingData
    ) -> Callable[[EpochReport], None]:
        """What the trainer is to call after an epoch: take its check if it has one, then call `then`."""

        def on_epoch(report: EpochReport) -> None:
            if report.epoch in self._epochs:
                self._keep(report.epoch, method.embed(data))
            if then is not None:
                then(report)

        return on_epoch

    def embeddings(self) -> list[np.ndarray]:
        """float32 [N, min(D, 64)] of each check, in the order of their epochs.

        Raises:
            SourceUnreadable: a check of an epoch that a checkpoint had finished is damaged or gone.
        """
        if self._files is None:
            return [self._kept[epoch] for epoch in self._epochs]
        if (missing := self._files.first_missing()) is not None:
            raise SourceUnreadable(
                f"{self._files.folder}: the check of epoch {missing} is damaged or gone; delete the "
                "checkpoints and fit again"
            )
        return [check.z_NK for check in self._files]

    def _keep(self, epoch: int, z_ND: np.ndarray) -> None:
        if self._files is None:
            self._kept[epoch] = compress(z_ND)[0]
        else:
            self._files.keep(epoch, z_ND)
