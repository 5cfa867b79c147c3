"""Deep Gamblers: a classifier that may abstain, and what its abstention is in theory.

One more output than there are classes; betting on it returns 1/o of what a right answer does, so it takes
the probability of what cannot be told. AUGCL reads it as the uncertainty of a pair of embeddings: is the
candidate of the anchor's own kind? Any other classifier on top of frozen embeddings can use the same loss.

Shape legend: A anchors, M candidates, P pairs, D embedding, H hidden units, K classes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

PAIRS_AT_ONCE = 8192
"""Pairs worked on at a time: their hidden units stay in the cache of a core."""


def gambler_loss(logit_PC: Tensor, label_P: Tensor, *, reward: float) -> Tensor:
    """Deep Gamblers loss: mean of -log(p_y + p_abstain / o); the last of the C = K + 1 logits abstains.

    Equal to the -log(o p_y + p_abstain) of the literature up to the constant log o.

    Args:
        logit_PC: float, K classes and abstention.
        label_P: int64 classes in [0, K).
        reward: o in (1, K]. At o >= K abstaining never pays, towards 1 nothing else does.

    Raises:
        ValueError: a reward that is not above 1.

    Example:
        >>> gambler_loss(torch.zeros(1, 3), torch.tensor([1]), reward=2.0)  # log(1/3 + 1/6)
        tensor(0.6931)
    """
    if reward <= 1:
        raise ValueError(f"reward must be above 1, not {reward}")
    log_p_PC = functional.log_softmax(logit_PC, dim=1)
    right_P = log_p_PC.gather(1, label_P[:, None])[:, 0]
    return -torch.logaddexp(right_P, log_p_PC[:, -1] - math.log(reward)).mean()


def optimal_abstention(doubt: Tensor, *, reward: float) -> Tensor:
    """Abstention that minimises the Deep Gamblers loss of two classes: min(1, (1 - q) o / (o - 1)).

    The doubt 1 - q of the likelier class times a constant, saturating where q < 1 / o: what a perfectly
    trained head would answer.

    Args:
        doubt: 1 - q in [0, 1/2], any shape.
        reward: o in (1, 2].
    """
    return (doubt * (reward / (reward - 1))).clamp(max=1.0)


class FittingPass(NamedTuple):
    """How a pass of fitting went.

    Attributes:
        loss: mean over the pairs, each before the step it was part of.
        answered_share: share of the pairs whose likeliest output is a class.
        right_share: share of the pairs whose likeliest output is their class.
    """

    loss: float
    answered_share: float
    right_share: float


class GamblerHead(nn.Module):
    """Classifier of pairs of embeddings with an option to abstain: linear, relu, linear, relu, linear.

    The first layer reads the concatenation of the two rows. It is kept as two layers whose results are
    added, so all pairs of A anchors and M candidates cost A + M products of D x H, and the concatenated
    A x M x 2D tensor never exists.

    Weights are Xavier-uniform for the concatenated layer's 2D inputs, biases zero.
    """

    def __init__(
        self, row_size: int, generator: torch.Generator, *, hidden_size: int = 128, num_classes: int = 2
    ) -> None:
        """Draw the weights.

        Args:
            row_size: D, width of each of the two rows.
            generator: CPU generator of the initial weights.
            hidden_size: H, width of both hidden layers.
            num_classes: K; there are K + 1 outputs, the last one abstains.
        """
        super().__init__()
        self.num_classes = num_classes
        self.anchor = _linear(row_size, hidden_size, 2 * row_size, generator)
        self.candidate = _linear(row_size, hidden_size, 2 * row_size, generator, bias=False)
        self.hidden = _linear(hidden_size, hidden_size, hidden_size, generator)
        self.output = _linear(hidden_size, num_classes + 1, hidden_size, generator)

    def forward(self, anchor_PD: Tensor, candidate_PD: Tensor) -> Tensor:
        """Logits [P, K + 1] of P pairs.

        Args:
            anchor_PD: float32, first row of each pair.
            candidate_PD: float32, second row of each pair.
        """
        return self._from_first(self.anchor(anchor_PD) + self.candidate(candidate_PD))

    def abstention(self, anchor_AD: Tensor, candidate_MD: Tensor) -> Tensor:
        """Probability [A, M] of abstaining on every pair, without gradient, `PAIRS_AT_ONCE` at a time."""
        return self.of_all_pairs(anchor_AD, candidate_MD, abstention_of)

    def fit(
        self,
        anchor_AD: Tensor,
        candidate_MD: Tensor,
        label_AM: Tensor,
        *,
        optimizer: torch.optim.Optimizer,
        reward: float | None,
        batch_size: int,
        generator: torch.Generator,
    ) -> "FittingPass":
        """One pass over all pairs of anchors and candidates, shuffled.

        Args:
            anchor_AD: float32, detached.
            candidate_MD: float32, detached.
            label_AM: classes, of an integer type or bool.
            optimizer: of this head's parameters.
            reward: o; None for cross-entropy over the classes, where nothing abstains.
            batch_size: pairs in a step.
            generator: CPU generator of the order.
        """
        num_candidates = len(candidate_MD)
        order_P = torch.randperm(label_AM.numel(), generator=generator).to(label_AM.device)
        totals = torch.zeros(3, dtype=torch.float64, device=label_AM.device)
        num_outputs = self.num_classes if reward is None else self.num_classes + 1
        for pair_P in torch.split(order_P, batch_size):
            label_P = label_AM.flatten()[pair_P].long()
            row_P = pair_P.div(num_candidates, rounding_mode="floor")
            with torch.enable_grad():
                logit_PC = self(anchor_AD[row_P], candidate_MD[pair_P.remainder(num_candidates)])
                loss = (
                    functional.cross_entropy(logit_PC[:, :-1], label_P)
                    if reward is None
                    else gambler_loss(logit_PC, label_P, reward=reward)
                )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
            optimizer.step()
            answer_P = logit_PC[:, :num_outputs].argmax(1)
            answered, right = (answer_P < self.num_classes).sum(), (answer_P == label_P).sum()
            totals += torch.stack([loss.detach() * len(pair_P), answered, right])
        optimizer.zero_grad(set_to_none=True)
        return FittingPass(*(totals / label_AM.numel()).tolist())

    def of_all_pairs(
        self, anchor_AD: Tensor, candidate_MD: Tensor, reading: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """What `reading` makes of the logits of every pair, float32 [A, M], without gradient.

        Args:
            anchor_AD: float32.
            candidate_MD: float32.
            reading: logits [P, K + 1] -> one number a pair, such as `abstention_of`.
        """
        with torch.no_grad():
            anchor_AH, candidate_MH = self.anchor(anchor_AD), self.candidate(candidate_MD)
            num_anchors, num_candidates = len(anchor_AH), len(candidate_MH)
            rows_at_once = max(1, PAIRS_AT_ONCE // max(1, num_candidates))
            result_AM = torch.empty(num_anchors, num_candidates, device=anchor_AH.device)
            for first in range(0, num_anchors, rows_at_once):
                first_bMH = anchor_AH[first : first + rows_at_once, None] + candidate_MH
                logit_PC = self._from_first(first_bMH.flatten(0, 1))
                result_AM[first : first + rows_at_once] = reading(logit_PC).view(-1, num_candidates)
        return result_AM

    def _from_first(self, first_PH: Tensor) -> Tensor:
        logit_PC: Tensor = self.output(functional.relu(self.hidden(functional.relu(first_PH))))
        return logit_PC


def abstention_of(logit_PC: Tensor) -> Tensor:
    """Probability [P] of the last class, which abstains."""
    abstention_P: Tensor = logit_PC.float().softmax(1)[:, -1]
    return abstention_P


def doubt_of(logit_PC: Tensor) -> Tensor:
    """1 - max_c p_c [P] over all classes but the last, which abstains."""
    return 1 - logit_PC[:, :-1].float().softmax(1).amax(1)


def entropy_of(logit_PC: Tensor) -> Tensor:
    """Entropy -sum_c p_c log p_c [P] in nats, over all classes but the last, which abstains."""
    log_p_PK = logit_PC[:, :-1].float().log_softmax(1)
    return -(log_p_PK.exp() * log_p_PK).sum(1)


def _linear(
    in_size: int, out_size: int, fan_in: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    layer: nn.Linear = skip_init(nn.Linear, in_size, out_size, bias=bias)  # type: ignore[no-untyped-call]
    limit = math.sqrt(6.0 / (fan_in + out_size))
    with torch.no_grad():
        layer.weight.uniform_(-limit, limit, generator=generator)
        if bias:
            layer.bias.zero_()
    return layer
