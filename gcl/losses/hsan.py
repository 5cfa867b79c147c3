"""HSAN's loss: every node in two views against all others, with weights inside the exponent.

The 2N x 2N similarities are three N x N blocks, one a pair of views: (0, 0) and (1, 1), which are symmetric
and computed on and above the diagonal only, and (0, 1), whose sums by row serve view 0 and by column view 1.
They are streamed, so memory is O(N D).

Legend: N nodes, V = 2 views, F features, D embedding, R operand width, b rows and c columns of a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcl.errors import NotDefined
from gcl.losses.centred import CentredProducts, centred_products, centred_tile
from gcl.losses.grouped import cosine_rows
from gcl.losses.streaming import streaming_logsumexp
from gcl.losses.streaming_blocks import Tile

ViewPair = tuple[int, int]
VIEW_PAIRS: tuple[ViewPair, ...] = ((0, 0), (0, 1), (1, 1))
BOTH_WAYS: tuple[ViewPair, ...] = (*VIEW_PAIRS, (1, 0))
"""With the pair that lies in the tables transposed."""
SMALLEST_NORM = 1e-6
"""Rows shorter than this are scaled as if they had this length, as in `cosine_rows`."""


@dataclass(frozen=True, eq=False)
class ViewSimilarity:
    """S = alpha cos(z, z') + (1 - alpha) cos(e, e') of all (node, view) pairs, as products of rows.

    Embeddings of a sigmoid all have cosines near 1, hence centred products.

    Attributes:
        products: of the nodes in view v with those in view u >= v, by (v, u); R is the width of their rows.
        positive_N: similarity of a node's own two views, in full precision.
        bound: no similarity is larger than this in magnitude.
    """

    products: Mapping[ViewPair, CentredProducts]
    positive_N: Tensor
    bound: float

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.positive_N)

    @property
    def width(self) -> int:
        """R."""
        return self.products[0, 0].left_NR.shape[1]

    def tile(self, pair: ViewPair, rows: slice, columns: slice) -> Tensor:
        """The similarities [b, c] of some nodes in one view with some nodes in the other."""
        return self.products[pair].tile(rows, columns)

    def of_pairs(self, pair: ViewPair, nodes_A: Tensor, others_AM: Tensor) -> Tensor:
        """The similarities [A, M] of nodes, in view `pair[0]`, with M others each, in view `pair[1]`.

        The rows of the others are gathered: memory is O(A M R), so hand over blocks of nodes.
        """
        if pair == (1, 0):
            table = self.products[0, 1]
            own_AR, own_A, others_NR, others_N = table.right_MR, table.right_M, table.left_NR, table.left_N
        else:
            table = self.products[pair]
            own_AR, own_A, others_NR, others_N = table.left_NR, table.left_N, table.right_MR, table.right_M
        found_AM = torch.einsum("ar,amr->am", own_AR[nodes_A], others_NR[others_AM])
        return found_AM + own_A[nodes_A, None] + others_N[others_AM]

    def detached(self) -> "ViewSimilarity":
        """The same without gradients."""
        products = {pair: table.detached() for pair, table in self.products.items()}
        return ViewSimilarity(products, self.positive_N.detach(), self.bound)


class NegativeWeights(Protocol):
    """The weights M of pairs: constants in [0, 1]."""

    @property
    def positive_N(self) -> Tensor:
        """Weight of a node's own two views."""

    def tile(self, pair: ViewPair, rows: slice, columns: slice) -> Tensor:
        """The weights [b, c] of some nodes in one view with some nodes in the other."""


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines between views as products: those of view v with view u >= v are ``left[v, u] @ right[u].T``.

    Attributes:
        left: [N, R] a pair of views.
        right: [N, R] a view.
    """

    left: Mapping[ViewPair, Tensor]
    right: tuple[Tensor, Tensor]


def cosines(z_VND: Sequence[Tensor]) -> Cosines:
    """The cosines of embeddings of any kind.

    Args:
        z_VND: float32, embeddings [N, D] of the two views, not normalised.
    """
    right = cosine_rows(z_VND[0]), cosine_rows(z_VND[1])
    return Cosines({(v, u): right[v] for v, u in VIEW_PAIRS}, right)


def linear_cosines(x_NF: Tensor, weight_VDF: Sequence[Tensor], bias_VD: Sequence[Tensor]) -> Cosines:
    """The cosines of z = W x + b, with z never formed: exact, and cheaper where F + 1 < D and F + 1 < N.

    With x' = (x, 1) and W' = (W, b) the inner product of z_v and z_u is x' (W'_v^T W'_u) x', so operands of
    width F + 1 do what operands of width D would, in the loss and in its gradient.

    Args:
        x_NF: float32, rows; no gradient is given for them.
        weight_VDF: [D, F], of the two views.
        bias_VD: [D], of the two views.
    """
    x_NG = torch.cat([x_NF, torch.ones_like(x_NF[:, :1])], dim=1)
    weight_VDG = [
        torch.cat([weight_DF, bias_D[:, None]], dim=1)
        for weight_DF, bias_D in zip(weight_VDF, bias_VD, strict=True)
    ]
    product = {(v, u): x_NG @ (weight_VDG[v].T @ weight_VDG[u]) for v, u in VIEW_PAIRS}
    scale = [
        (product[v, v] * x_NG).sum(dim=1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt() for v in (0, 1)
    ]
    left = {(v, u): product_NG * scale[v] for (v, u), product_NG in product.items()}
    return Cosines(left, (x_NG * scale[0], x_NG * scale[1]))


def mixed_similarity(attributes: Cosines, structure: Cosines, alpha: Tensor) -> ViewSimilarity:
    """S = alpha cos(z, z') + (1 - alpha) cos(e, e').

    Args:
        attributes: cosines of attribute embeddings z.
        structure: cosines of structure embeddings e.
        alpha: scalar, share of the attributes; free, so it may leave [0, 1].
    """
    left = {
        pair: torch.cat([alpha * attributes.left[pair], (1 - alpha) * structure.left[pair]], dim=1)
        for pair in VIEW_PAIRS
    }
    right = [torch.cat([attributes.right[v], structure.right[v]], dim=1) for v in (0, 1)]
    value = float(alpha.detach())
    return ViewSimilarity(
        products={(v, u): centred_products(left[v, u], right[u]) for v, u in VIEW_PAIRS},
        positive_N=(left[0, 1] * right[1]).sum(dim=1),
        bound=abs(value) + abs(1 - value),
    )


def hsan_loss(
    similarity: ViewSimilarity,
    weights: NegativeWeights | None = None,
    *,
    block_size: int | None = None,
    keep_tiles_bytes: int = 0,
) -> Tensor:
    """Mean over all 2N (node, view) pairs of -log of the share of the node's other view.

    ``L(a) = log sum_{b != a} exp(M_ab S_ab) - M_aa' S_aa'`` with a' the other view of a: equations 8, 10
    and 11 of the paper. The sum holds the positive itself; only the pair (a, a) is left out.

    Args:
        similarity: S, with gradients.
        weights: M; None for 1 everywhere.
        block_size: nodes a side of a block; None for what is fast on the device.
        keep_tiles_bytes: blocks of similarities are kept instead of recomputed where they fit.

    Returns:
        Scalar.

    Raises:
        NotDefined: a single node, which has nothing to be told from.
    """
    if similarity.num_nodes < 2:
        raise NotDefined("the loss needs at least two nodes")
    options = {
        "logit_bound": similarity.bound,
        "block_size": block_size,
        "keep_tiles_bytes": keep_tiles_bytes,
    }
    own = [
        streaming_logsumexp(
            _weighted_tile((v, v), weights),
            [*_left(similarity.products[v, v]), *_right(similarity.products[v, v])],
            exclude_self=True,
            **options,  # type: ignore[arg-type]
        )[0].over_columns_N
        for v in (0, 1)
    ]
    cross = streaming_logsumexp(
        _weighted_tile((0, 1), weights),
        _left(similarity.products[0, 1]),
        _right(similarity.products[0, 1]),
        **options,  # type: ignore[arg-type]
    )[0]
    first_N = torch.logaddexp(own[0], cross.over_columns_N)
    second_N = torch.logaddexp(own[1], cross.over_rows_M)
    positive_N = similarity.positive_N if weights is None else weights.positive_N * similarity.positive_N
    return (first_N + second_N).mean() / 2 - positive_N.mean()


def _left(products: CentredProducts) -> list[Tensor]:
    return [products.left_NR, products.left_N]


def _right(products: CentredProducts) -> list[Tensor]:
    return [products.right_MR, products.right_M]


def _weighted_tile(pair: ViewPair, weights: NegativeWeights | None) -> Tile:
    """M S of a block; left operands are the first two of the rows, right ones the last two of the columns."""

    def tile(
        rows_b: Sequence[Tensor], columns_c: Sequence[Tensor], first_row: int, first_column: int
    ) -> tuple[Tensor]:
        similarity_bc = centred_tile(*rows_b[:2], *columns_c[-2:])
        if weights is None:
            return (similarity_bc,)
        rows = slice(first_row, first_row + similarity_bc.shape[0])
        columns = slice(first_column, first_column + similarity_bc.shape[1])
        return (weights.tile(pair, rows, columns) * similarity_bc,)

    return tile
