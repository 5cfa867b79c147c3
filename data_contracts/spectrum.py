"""How many dimensions an embedding really uses, from streamed second moments.

Shape legend: B rows of a batch, D width.
"""

import numpy as np
import numpy.typing as npt

Figure = int | float | str | bool | None


class SecondMoments:
    """Streams rows and keeps their D x D second moments in float64.

    The first batch's mean is taken off every row, since moments about zero would lose the digits of an
    embedding whose mean is large against its spread. Rows with a value that is not finite are left out;
    another clause reports them.
    """

    def __init__(self, width: int) -> None:
        self._shift_D: npt.NDArray[np.float64] | None = None
        self._sum_D = np.zeros(width)
        self._product_DD = np.zeros((width, width))
        self._num_rows = 0
        self._norm_sum = 0.0

    def add(self, z_BD: npt.NDArray[np.float32]) -> None:
        """Add a batch, z_BD: float32."""
        rows_BD = z_BD[np.isfinite(z_BD).all(axis=1)].astype(np.float64)
        if not len(rows_BD):
            return
        if self._shift_D is None:
            self._shift_D = rows_BD.mean(axis=0)
        self._norm_sum += float(np.linalg.norm(rows_BD, axis=1).sum())
        rows_BD -= self._shift_D
        self._num_rows += len(rows_BD)
        self._sum_D += rows_BD.sum(axis=0)
        self._product_DD += rows_BD.T @ rows_BD

    def covariance_DD(self) -> npt.NDArray[np.float64]:
        """The covariance (divided by the number of rows); zeros for an empty table."""
        num_rows = max(self._num_rows, 1)
        mean_D = self._sum_D / num_rows
        covariance_DD: npt.NDArray[np.float64] = self._product_DD / num_rows - np.outer(mean_D, mean_D)
        return covariance_DD

    def figures(self, column: str) -> dict[str, Figure]:
        """Effective rank, mean norm, and the spread of the variances of the dimensions."""
        if not self._num_rows:
            names = ("effective_rank", "mean_norm", "min_variance", "max_variance", "constant_dimensions")
            return {f"{column}.{name}": None for name in names}
        covariance_DD = self.covariance_DD()
        variance_D = np.maximum(np.diag(covariance_DD), 0.0)
        # What is left of a constant dimension is rounding of its squared offset from the shift.
        is_constant_D = variance_D <= 1e-12 * max(float(variance_D.max()), 1e-300)
        return {
            f"{column}.effective_rank": effective_rank(covariance_DD),
            f"{column}.mean_norm": self._norm_sum / self._num_rows,
            f"{column}.min_variance": float(variance_D.min()),
            f"{column}.max_variance": float(variance_D.max()),
            f"{column}.constant_dimensions": int(is_constant_D.sum()),
        }


def effective_rank(covariance_DD: npt.NDArray[np.float64]) -> float:
    """Exponential of the entropy of the normalised spectrum: 1 for a line, D for a sphere, 0 for a point.

    Source: Roy and Vetterli, The effective rank: a measure of effective dimensionality (EUSIPCO 2007),
    there of singular values; here of the covariance's eigenvalues.
    """
    spectrum_D = np.maximum(np.linalg.eigvalsh(covariance_DD), 0.0)
    total = float(spectrum_D.sum())
    if total <= 0.0:
        return 0.0
    shares_D = spectrum_D[spectrum_D > 0.0] / total
    return float(np.exp(-(shares_D * np.log(shares_D)).sum()))
