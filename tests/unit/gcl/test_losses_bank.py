import pytest
import torch
from torch.nn import functional

import gcl.losses.bank as bank
from gcl.losses.bank import BankBlock, bank_infonce_loss

N, D = 23, 6


def given(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, D, generator=generator).requires_grad_() for _ in range(3)]


def blocks(*, with_sources=False):
    """Three blocks made from anchors and from a third tensor."""
    nodes = torch.arange(N)
    some = torch.tensor([3, 3, 8, 20])
    return [
        BankBlock(lambda sources: 2 * sources[0] + 0.1, nodes if with_sources else None),
        BankBlock(lambda sources: sources[1][some] * 3 - 1, some if with_sources else None),
        BankBlock(lambda sources: sources[0] * sources[1], nodes if with_sources else None),
    ]


def plain(anchor, positive, sources, parts, temperature):
    """All logits in one matrix."""
    a, p = functional.normalize(anchor, dim=1), functional.normalize(positive, dim=1)
    negative = torch.cat([functional.normalize(part.draw(sources), dim=1) for part in parts])
    logit = a @ negative.T / temperature
    if parts[0].source_Q is not None:
        source = torch.cat([part.source_Q for part in parts])
        logit = logit.masked_fill(torch.arange(N)[:, None] == source, -torch.inf)
    own = (a * p).sum(1, keepdim=True) / temperature
    return -torch.cat([own, logit], 1).log_softmax(1)[:, 0].mean()


@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
@pytest.mark.parametrize("with_sources", [False, True], ids=["all", "not from the anchor itself"])
def test_chunks_equal_the_whole_in_value_and_gradient(temperature, with_sources, monkeypatch):
    monkeypatch.setattr(bank, "TILE_PAIRS", 4 * N)
    anchor, positive, other = given()
    parts = blocks(with_sources=with_sources)
    found = bank_infonce_loss(anchor, positive, [anchor, other], parts, temperature=temperature)
    expected = plain(anchor, positive, [anchor, other], parts, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(
        torch.autograd.grad(found, [anchor, positive, other]),
        torch.autograd.grad(expected, [anchor, positive, other]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_products_of_the_lower_precision_change_little():
    anchor, positive, other = given()
    parts = blocks(with_sources=True)

    def value_and_gradient(enabled):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = bank_infonce_loss(anchor, positive, [anchor, other], parts, temperature=0.5)
        return loss, *torch.autograd.grad(loss, [anchor, positive, other])

    lower, full = value_and_gradient(True), value_and_gradient(False)
    assert lower[0].dtype == torch.float32
    assert 0 < abs(lower[0].item() - full[0].item()) < 0.01 * full[0].item()
    for a, b in zip(lower[1:], full[1:], strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_order_of_blocks_plays_no_part():
    anchor, positive, other = given()
    losses = [
        bank_infonce_loss(anchor, positive, [anchor, other], parts, temperature=0.1).item()
        for parts in (blocks(), blocks()[::-1])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_no_negatives_is_no_loss():
    anchor, positive, other = given()
    assert bank_infonce_loss(anchor, positive, [other], [], temperature=0.1).item() == 0


def test_sources_without_gradient_are_left_alone():
    anchor, positive, other = given()
    loss = bank_infonce_loss(anchor, positive, [anchor.detach(), other.detach()], blocks(), temperature=0.1)
    assert torch.autograd.grad(loss, [other], allow_unused=True)[0] is None
