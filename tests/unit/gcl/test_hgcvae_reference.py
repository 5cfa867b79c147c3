"""The whole loss of HGCVAE written out with dense matrices, against the method's, value and gradient.

The method's random draws are made again here by their purposes and counters; all that is computed from them
is written anew. Attention is not dropped: which weight a draw belongs to depends on the kernel
(test_han_attention.py).

Legend: N nodes, F features, D embedding, Q negatives.
"""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gcl.dropout import Dropout
from gcl.han import HanLayer
from gcl.methods.hgcvae import Hgcvae
from gcl.methods.hgcvae_inputs import mask_rows
from gcl.random import torch_generator
from tests.unit.gcl.test_hgcvae import data_of, method_of

SEED, STEP, NUM_NODES = 3, 2, 30
DATA = data_of(num_nodes=NUM_NODES)
JOINED = [torch.tensor(metapath.adjacency_NN.toarray() > 0) for metapath in DATA.metapaths]
DROPOUT_RATE = 0.2


def layer_of(layer: HanLayer, h_NF: Tensor, purpose: str, *counters: int) -> Tensor:
    """Attention over the neighbours of each metapath, then over metapaths."""
    outputs = []
    for m, joined_NN in enumerate(JOINED):
        dropout = Dropout(DROPOUT_RATE, SEED, f"{purpose}_feature_dropout", (*counters, m))
        kept_NF = dropout.kept(tuple(h_NF.shape), dropout.generator(h_NF.device)) * dropout.scale
        value_NKd = (kept_NF * h_NF @ layer.weights[m]).view(NUM_NODES, layer.num_heads, layer.head_size)
        left_NK, right_NK = ((value_NKd * ends[m]).sum(2) for ends in (layer.lefts, layer.rights))
        logit_NNK = functional.leaky_relu(left_NK[:, None] + right_NK[None], 0.2)
        share_NNK = logit_NNK.masked_fill(~joined_NN[:, :, None], -torch.inf).softmax(dim=1)
        out_ND = torch.einsum("ijk,jkd->ikd", share_NNK, value_NKd).flatten(1) + layer.biases[m]
        outputs.append(out_ND if layer.slope is None else functional.prelu(out_ND, layer.slope))
    semantic = layer.semantic
    scores = [torch.tanh(out @ semantic.weight.T + semantic.bias) @ semantic.query for out in outputs]
    share_M = torch.stack([score_N.mean() for score_N in scores]).softmax(dim=0)
    return sum(share * out for share, out in zip(share_M, outputs, strict=True))


def negatives_of(
    config, h_ND: Tensor, mean_ND: Tensor, spread_ND: Tensor, *, epoch: int, vi_copies: int
) -> tuple[Tensor, Tensor]:
    """The bank [Q, D], and the node that each of them was made from [Q]."""
    everyone = torch.arange(NUM_NODES)
    if config.is_strict:  # a sample of 4,096, of both kinds as there are copies of each
        num_vi = round(4096 * vi_copies / 20)
        kinds = [("dropout", 4096 - num_vi), ("vi", num_vi)]
        sources = [
            torch.randint(NUM_NODES, (size,), generator=drawn("negative_nodes", epoch, STEP, number))
            for number, (_, size) in enumerate(kinds)
        ]
    else:  # 20 copies of all nodes
        kinds = [("dropout", NUM_NODES)] * (20 - vi_copies) + [("vi", NUM_NODES)] * vi_copies
        sources = [everyone] * 20
    negatives = []
    for number, (source_Q, (kind, _)) in enumerate(zip(sources, kinds, strict=True)):
        counters, shape = (epoch, STEP, number), (len(source_Q), h_ND.shape[1])
        if kind == "dropout":  # a scale changes no cosine
            dropout = Dropout(0.1, SEED, "dropout_negatives", counters)
            negatives.append(h_ND[source_Q] * dropout.kept(shape, dropout.generator(h_ND.device)))
            continue
        noise_QD = torch.randn(shape, generator=drawn("vi_negatives", *counters)) * spread_ND[source_Q]
        mean_QD = mean_ND[source_Q]
        if config.is_strict:
            noise_QD = 0.5 * mean_QD.norm(dim=1, keepdim=True) * functional.normalize(noise_QD, dim=1)
        negatives.append(noise_QD + (mean_QD if config.is_strict else 3 * mean_QD))
    return torch.cat(negatives), torch.cat(sources)


def drawn(purpose: str, *counters: int) -> torch.Generator:
    return torch_generator(SEED, purpose, *counters)


def dense_loss(method: Hgcvae, *, epoch: int, mask_rate: float, vi_copies: int, kl_share: float) -> dict:
    config, is_strict = method.config, method.config.is_strict
    raw_NF = torch.tensor(DATA.graph.x_NF)
    x_NF = raw_NF / raw_NF.sum(dim=1, keepdim=True)
    masked = mask_rows(x_NF, method.mask_token, mask_rate, config, drawn("mask", epoch, STEP))
    passes = []
    for number in range(2):
        h_ND = masked.x_NF
        for depth, layer in enumerate(method.encoder.layers):
            h_ND = layer_of(layer, h_ND, "encoder", epoch, STEP, number, depth)
        passes.append(h_ND)
    mean_ND, log_std_ND = (
        layer_of(layer, passes[0], "posterior", epoch, STEP, number)
        for number, layer in enumerate(method.posterior)
    )
    if is_strict:
        log_std_ND = log_std_ND.clamp(-5, 2)
    else:
        mean_ND, log_std_ND = functional.normalize(mean_ND), functional.normalize(log_std_ND)
    draws = [
        mean_ND
        + log_std_ND.exp() * torch.randn(mean_ND.shape, generator=drawn("posterior_draw", epoch, STEP, n))
        for n in range(2)
    ]

    kl_D = -0.5 * (1 + 2 * log_std_ND - mean_ND**2 - torch.exp(2 * log_std_ND)).mean(dim=0)
    kl = kl_D.clamp(min=0.02).sum() if is_strict else kl_D.sum()

    anchor_ND, positive_ND = draws if config.contrast_on == "z" else passes
    negative_QD, source_Q = negatives_of(
        config, anchor_ND, mean_ND, log_std_ND.exp(), epoch=epoch, vi_copies=vi_copies
    )
    positive_N = functional.cosine_similarity(anchor_ND, positive_ND) / 0.1
    logit_NQ = functional.normalize(anchor_ND) @ functional.normalize(negative_QD).T / 0.1
    if is_strict:
        logit_NQ = logit_NQ.masked_fill(source_Q == torch.arange(NUM_NODES)[:, None], -torch.inf)
    all_N = torch.logsumexp(torch.cat([positive_N[:, None], logit_NQ], dim=1), dim=1)
    contrast = (all_N - positive_N).mean()

    given_ND = method.to_decoder(draws[0] if is_strict else passes[1])
    if is_strict:
        is_masked_N = torch.zeros(NUM_NODES, dtype=torch.bool).index_fill(0, masked.nodes, True)
        given_ND = given_ND.masked_fill(is_masked_N[:, None], 0)
    guess_nF = layer_of(method.decoder, given_ND, "decoder", epoch, STEP)[masked.nodes]
    target_nF = x_NF[masked.nodes]
    if is_strict:
        right_n = (1 + functional.cosine_similarity(guess_nF, target_nF)) / 2
        reconstruction = -((1 - right_n) ** 2 * right_n.log()).mean()
    else:
        product_nF = functional.normalize(guess_nF) * functional.normalize(target_nF)
        product_nF = torch.where(product_nF > 0, product_nF, 1e-6)
        log_share_F = product_nF.log_softmax(dim=1).mean(dim=0)
        reconstruction = -((1 - product_nF) ** 2 * log_share_F).mean()
    loss = 0.8 * contrast + 0.7 * kl_share * kl + 0.2 * reconstruction
    return {"loss": loss, "contrast": contrast, "kl": kl, "reconstruction": reconstruction}


@pytest.mark.parametrize(
    ("settings", "epoch", "mask_rate", "vi_copies", "kl_share"),
    [
        ({"mode": "reference"}, 0, 0.3, 0, 1),
        ({"mode": "reference"}, 7, 0.3525, 5, 1),
        ({"mode": "reference"}, 30, 0.525, 20, 1),
        ({"mode": "strict"}, 0, 0.3, 0, 0),
        ({"mode": "strict"}, 6, 0.345, 5, 0.5),
        ({"mode": "strict"}, 30, 0.525, 20, 1),
        ({"mode": "strict", "contrast_on": "z"}, 6, 0.345, 5, 0.5),
    ],
)
def test_loss_and_gradient_are_those_of_the_dense_formulas(settings, epoch, mask_rate, vi_copies, kl_share):
    method = method_of(
        SEED,
        data=DATA,
        feature_dropout_rate=DROPOUT_RATE,
        attention_dropout_rate=0,
        replaced_rate=0.3,
        **settings,
    )
    with torch.no_grad():  # so that a row that is masked is told from one of zeros
        method.mask_token.copy_(
            torch.from_numpy(np.random.default_rng(0).normal(size=len(method.mask_token)))
        )
    rows = next(method.epoch_batches(DATA, epoch=epoch, seed=SEED, batch_size=2))
    found = method.training_loss(DATA.batch(rows), epoch=epoch, step=STEP, seed=SEED)
    expected = dense_loss(method, epoch=epoch, mask_rate=mask_rate, vi_copies=vi_copies, kl_share=kl_share)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5), name
    parameters = dict(method.named_parameters())
    gradients = [
        torch.autograd.grad(one["loss"], parameters.values(), allow_unused=True, materialize_grads=True)
        for one in (found, expected)
    ]
    for name, ours, theirs in zip(parameters, *gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=name)
