"""Streamed log-sum-exps against torch.logsumexp on the whole matrix of logits."""

import math
import subprocess
import sys

import pytest
import torch

from gcl.losses import streaming
from gcl.losses.streaming import streaming_logsumexp

BLOCK_SIZES = [1, 3, 4, 7, 50]
BOUNDS = [None, 30.0]


def inner_products(rows, columns, first_row, first_column):
    return (rows[0] @ columns[0].T,)


def two_logits(rows, columns, first_row, first_column):
    inner = rows[0] @ columns[0].T
    return inner, inner + (rows[1] @ columns[1].T).sin()


def random_rows(seed, num_rows, size=4, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(num_rows, size, generator=generator, dtype=dtype)).requires_grad_()


def gradients(values, operands, seed=9):
    """Gradients of one fixed random weighting of all log-sum-exps."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in values]
    total = sum((w.to(v.dtype) * v).sum() for w, v in zip(weights, values, strict=True))
    return torch.autograd.grad(total, operands)


@pytest.mark.parametrize("logit_bound", BOUNDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("keep_tiles_bytes", [0, 1 << 20])
def test_pairs_of_two_sets_equal_dense(block_size, logit_bound, exclude_self, keep_tiles_bytes):
    rows = [random_rows(0, 11), random_rows(1, 11, 2)]
    columns = [random_rows(2, 7), random_rows(3, 7, 2)]
    found = streaming_logsumexp(
        two_logits,
        rows,
        columns,
        exclude_self=exclude_self,
        block_size=block_size,
        logit_bound=logit_bound,
        keep_tiles_bytes=keep_tiles_bytes,
    )
    dense = [
        logit.masked_fill(torch.eye(11, 7, dtype=torch.bool) & exclude_self, -math.inf)
        for logit in two_logits(rows, columns, 0, 0)
    ]
    values = [value for both in found for value in (both.over_columns_N, both.over_rows_M)]
    expected = [value for logit in dense for value in (logit.logsumexp(1), logit.logsumexp(0))]
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    operands = [*rows, *columns]
    torch.testing.assert_close(
        gradients(values, operands), gradients(expected, operands), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("logit_bound", BOUNDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("keep_tiles_bytes", [0, 1 << 20])
def test_pairs_of_a_set_with_itself_equal_dense(block_size, logit_bound, exclude_self, keep_tiles_bytes):
    rows = [random_rows(0, 11), random_rows(1, 11, 2)]
    found = streaming_logsumexp(
        two_logits,
        rows,
        exclude_self=exclude_self,
        block_size=block_size,
        logit_bound=logit_bound,
        keep_tiles_bytes=keep_tiles_bytes,
    )
    dense = [
        logit.masked_fill(torch.eye(11, dtype=torch.bool) & exclude_self, -math.inf)
        for logit in two_logits(rows, rows, 0, 0)
    ]
    values, expected = [lse.over_columns_N for lse in found], [logit.logsumexp(1) for logit in dense]
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(lse.over_rows_M, lse.over_columns_N) for lse in found)
    torch.testing.assert_close(gradients(values, rows), gradients(expected, rows), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("logit_bound", BOUNDS)
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_gradient_is_that_of_finite_differences(logit_bound, is_symmetric):
    def total(z, v):
        columns = None if is_symmetric else [v]
        lse = streaming_logsumexp(
            inner_products, [z], columns, exclude_self=True, block_size=2, logit_bound=logit_bound
        )[0]
        return lse.over_columns_N, lse.over_rows_M.square().sum()

    assert torch.autograd.gradcheck(total, (random_rows(0, 5), random_rows(1, 4)))


def test_float32_is_close_to_float64():
    z, v = random_rows(0, 40, 16), random_rows(1, 30, 16)
    operands = [z, v]
    exact = streaming_logsumexp(inner_products, [z], [v])[0]
    single = [x.detach().float().requires_grad_() for x in operands]
    for bound in BOUNDS:
        found = streaming_logsumexp(inner_products, single[:1], single[1:], block_size=8, logit_bound=bound)
        found = found[0]
        assert found.over_columns_N.dtype == torch.float32
        values = [found.over_columns_N, found.over_rows_M]
        expected = [exact.over_columns_N, exact.over_rows_M]
        torch.testing.assert_close(values, [v.float() for v in expected], rtol=1e-5, atol=1e-5)
        for f, e in zip(gradients(values, single), gradients(expected, operands), strict=True):
            torch.testing.assert_close(f, e.float(), rtol=1e-5, atol=1e-5)
        exact = streaming_logsumexp(inner_products, [z], [v])[0]


@pytest.mark.parametrize("block_size", [3, 64])
def test_logits_of_thousands_stay_finite_without_a_bound(block_size):
    z = random_rows(0, 20, dtype=torch.float32, scale=60.0)
    lse = streaming_logsumexp(inner_products, [z], exclude_self=True, block_size=block_size)[0]
    dense = (z @ z.T).fill_diagonal_(-math.inf).logsumexp(1)
    assert dense.abs().max() > 1000
    torch.testing.assert_close(lse.over_columns_N, dense)
    assert torch.isfinite(torch.autograd.grad(lse.over_columns_N.sum(), z)[0]).all()


@pytest.mark.parametrize("logit_bound", [39.9, 40.1])
def test_logits_at_the_bound_keep_their_precision(logit_bound):
    sign = torch.tensor([1.0, 1, -1, -1])[:, None]
    z = (sign * math.sqrt(39.9)).requires_grad_()
    lse = streaming_logsumexp(inner_products, [z], exclude_self=True, logit_bound=logit_bound)[0]
    torch.testing.assert_close(lse.over_columns_N, torch.full((4,), 39.9))
    (gradient,) = torch.autograd.grad(1e-6 * lse.over_columns_N.mean(), z)
    torch.testing.assert_close(gradient, 1e-6 * z.detach() / 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("logit_bound", BOUNDS)
def test_sum_over_nothing_is_minus_infinity_with_zero_gradient(logit_bound):
    z = random_rows(0, 1)
    lse = streaming_logsumexp(inner_products, [z], exclude_self=True, logit_bound=logit_bound)[0]
    assert lse.over_columns_N.tolist() == [-math.inf]
    assert torch.autograd.grad(lse.over_columns_N.sum(), z)[0].abs().max() == 0


@pytest.mark.parametrize("logit_bound", BOUNDS)
def test_pairs_at_minus_infinity_are_left_out(logit_bound):
    def masked(rows, columns, first_row, first_column):
        return ((rows[0] @ columns[0].T).masked_fill(rows[1][:, None] == columns[1], -math.inf),)

    z, group = random_rows(0, 6), torch.tensor([0, 1, 2, 0, 1, 0])
    lse = streaming_logsumexp(masked, [z, group], block_size=4, logit_bound=logit_bound)[0].over_columns_N
    dense = masked([z, group], [z, group], 0, 0)[0].logsumexp(1)
    torch.testing.assert_close(lse, dense)
    torch.testing.assert_close(gradients([lse], [z]), gradients([dense], [z]))


def test_operands_without_gradient_get_none_and_scalars_are_expanded():
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z, weight = random_rows(0, 9), random_rows(1, 9, 1).detach()

    def scaled(rows, columns, first_row, first_column):
        return (rows[1][:, None] * (rows[0] @ columns[0].T) + rows[2] * columns[2].T,)

    operands = [z, scale.expand(9), weight]
    lse = streaming_logsumexp(scaled, operands, block_size=4)[0].over_columns_N
    dense = scaled(operands, operands, 0, 0)[0].logsumexp(1)
    torch.testing.assert_close(gradients([lse], [z, scale]), gradients([dense], [z, scale]))


def test_rows_alone_cost_no_column_sums():
    z, v = random_rows(0, 6), random_rows(1, 5)
    lse = streaming_logsumexp(inner_products, [z], [v], over_rows=False, block_size=2)[0]
    dense = (z @ v.T).logsumexp(1)
    torch.testing.assert_close(lse.over_columns_N, dense)
    torch.testing.assert_close(gradients([lse.over_columns_N], [z, v]), gradients([dense], [z, v]))
    with pytest.raises(ValueError, match="over_rows"):
        _ = lse.over_rows_M


@pytest.mark.parametrize("logit_bound", BOUNDS)
@pytest.mark.parametrize("keep_tiles_bytes", [0, 1 << 20])
def test_memory_of_the_tile_is_left_alone(logit_bound, keep_tiles_bytes):
    def saves_its_output(rows, columns, first_row, first_column):
        logit = (rows[0] @ columns[0].T).tanh()
        return logit, logit

    z = random_rows(0, 7)
    options = {"block_size": 3, "logit_bound": logit_bound, "keep_tiles_bytes": keep_tiles_bytes}
    found = streaming_logsumexp(saves_its_output, [z], exclude_self=True, **options)
    values = [lse.over_columns_N for lse in found]
    dense = saves_its_output([z], [z], 0, 0)[0].masked_fill(torch.eye(7, dtype=torch.bool), -math.inf)
    expected = [dense.logsumexp(1)] * 2
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradients(values, [z]), gradients(expected, [z]))


def test_one_side_used_gets_its_gradient_alone():
    z, v = random_rows(0, 6), random_rows(1, 5)
    lse = streaming_logsumexp(inner_products, [z], [v], block_size=2)[0]
    dense = (z @ v.T).logsumexp(0)
    torch.testing.assert_close(gradients([lse.over_rows_M], [z, v]), gradients([dense], [z, v]))


def test_set_with_itself_computes_half_of_the_blocks():
    calls = []

    def counted(rows, columns, first_row, first_column):
        calls.append((first_row, first_column))
        return inner_products(rows, columns, first_row, first_column)

    streaming_logsumexp(counted, [random_rows(0, 16).detach()], block_size=4)
    assert len(set(calls)) == 10
    assert all(first_column >= first_row for first_row, first_column in calls)


def test_kept_tiles_are_not_computed_again():
    calls = []

    def counted(rows, columns, first_row, first_column):
        calls.append(1)
        return inner_products(rows, columns, first_row, first_column)

    z = random_rows(0, 16)
    for budget, expected in ((8 * (6 * 16 + 4 * 16), 11), (8 * (6 * 16 + 4 * 16) - 1, 21)):
        calls.clear()
        lse = streaming_logsumexp(counted, [z], block_size=4, keep_tiles_bytes=budget)
        lse[0].over_columns_N.sum().backward()
        assert len(calls) == expected


def test_products_are_bfloat16_and_sums_float32_under_autocast():
    seen = []

    def watched(rows, columns, first_row, first_column):
        (logit,) = inner_products(rows, columns, first_row, first_column)
        seen.append((logit.dtype, torch.is_grad_enabled()))
        return (logit,)

    z = random_rows(0, 200, 8, dtype=torch.float32)
    for bound in BOUNDS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lse = streaming_logsumexp(watched, [z], block_size=64, logit_bound=bound)[0].over_columns_N
        assert lse.dtype == torch.float32
        (gradient,) = torch.autograd.grad(lse.sum(), z)  # outside of autocast, as trainers call backward
        assert {dtype for dtype, _ in seen} == {torch.bfloat16}
        assert gradient.dtype == torch.float32
        dense = (z @ z.T).logsumexp(1)
        torch.testing.assert_close(lse, dense, rtol=0.02, atol=0.02)
        (expected,) = torch.autograd.grad(dense.sum(), z)
        assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_runs_are_equal_to_the_last_bit():
    def run():
        z = random_rows(0, 100, 16, dtype=torch.float32)
        lse = streaming_logsumexp(inner_products, [z], exclude_self=True, block_size=32, logit_bound=30.0)
        return lse[0].over_columns_N, torch.autograd.grad(lse[0].over_columns_N.sum(), z)[0]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_captured_tensor_that_needs_a_gradient_is_refused():
    scale = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(ValueError, match="operand"):
        streaming_logsumexp(lambda r, c, i, j: (scale * (r[0] @ c[0].T),), [torch.ones(3, 2)])


@pytest.mark.parametrize(
    ("rows", "columns", "options", "message"),
    [
        ([torch.ones(3, 2), torch.ones(4, 2)], None, {}, "one length"),
        ([torch.ones(0, 2)], None, {}, "above 0"),
        ([], None, {}, "rows"),
        ([torch.ones(3, 2)], [], {}, "columns"),
        ([torch.ones(3, 2)], None, {"block_size": 0}, "block_size"),
    ],
)
def test_unusable_operands_are_refused(rows, columns, options, message):
    with pytest.raises(ValueError, match=message):
        streaming_logsumexp(inner_products, rows, columns, **options)


def test_tile_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape"):
        streaming_logsumexp(lambda r, c, i, j: (r[0].sum(1),), [torch.ones(3, 2)])


def test_second_derivative_is_refused():
    z = random_rows(0, 5)
    lse = streaming_logsumexp(inner_products, [z])[0].over_columns_N
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(lse.sum(), z, create_graph=True)


def test_block_size_defaults_to_that_of_the_device(monkeypatch):
    seen = set()

    def watched(rows, columns, first_row, first_column):
        seen.add(len(rows[0]))
        return inner_products(rows, columns, first_row, first_column)

    monkeypatch.setattr(streaming, "CPU_BLOCK", 5)
    streaming_logsumexp(watched, [random_rows(0, 10)])
    assert seen == {5}


def test_only_operands_and_sums_are_saved_for_the_backward_pass():
    saved = []
    z = random_rows(0, 64)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        streaming_logsumexp(inner_products, [z], block_size=8)[0].over_columns_N.sum()
    assert sum(saved) == z.numel() + 64


PEAK_OF_A_STEP = """
import sys, torch
from gcl.losses.contrastive import grace_loss

def resident(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

def step(num_nodes):
    u, v = (torch.randn(num_nodes, 32, requires_grad=True) for _ in range(2))
    grace_loss(u, v, temperature=0.5, block_size=512).backward()

step(1024)  # libraries and the memory of a block, whatever N is
before = resident("VmRSS")
step(int(sys.argv[1]))
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_grows_with_the_nodes_and_not_with_their_pairs():
    def peak_mebibytes(num_nodes):
        command = [sys.executable, "-c", PEAK_OF_A_STEP, str(num_nodes)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = peak_mebibytes(2048), peak_mebibytes(8192)
    # The rows of 8,192 nodes are 2 MiB; one dense matrix of logits of 2,048 nodes is 64, of 8,192 it is 1024.
    assert small < 40
    assert large < 80
