"""Training on CUDA: the same promises as on the CPU, on one model of GPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gcl.graph import Graph  # noqa: E402
from gcl.losses.grouped import views_tuplet_loss  # noqa: E402
from gcl.methods import build_method  # noqa: E402
from gcl.methods.base import TrainingData  # noqa: E402
from gcl.methods.configs import (  # noqa: E402
    AugclConfig,
    DmatIConfig,
    DmtConfig,
    GraceConfig,
    HsanConfig,
    NmlGclConfig,
    ProGclConfig,
)
from gcl.trainer import train  # noqa: E402
from gcl.trainer_config import TrainConfig  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

CONFIGS = {
    "dmat_i": DmatIConfig(encoder="mlp", hidden_size=32, embedding_size=16, dropout_rate=0.2),
    "dmt": DmtConfig(embedding_size=16, unlabelled="instance", num_views=2, num_labelled=32),
}
GCN = {"hidden_size": 32, "embedding_size": 16}
FIT = {"num_candidates": 200, "num_fit_anchors": 16, "fit_passes": 2, "refresh_every": 1}
ON_THE_GRAPH = {
    "grace": GraceConfig(**GCN),
    "grace-rrelu-sampled": GraceConfig(**GCN, activation="rrelu", max_exact_nodes=500, num_sampled_nodes=300),
    "progcl": ProGclConfig(**GCN, start_epoch=1),
    "augcl": AugclConfig(**GCN, warmup_epochs=1),
    "augcl-gambler": AugclConfig(**GCN, warmup_epochs=1, estimator="gambler", **FIT),
    "nml_gcl": NmlGclConfig(**GCN, metric_hidden_size=16, metric_size=16),
    "nml_gcl-free-form": NmlGclConfig(**GCN, metric="free_form", alpha=1.2, alpha_scale="none"),
    "hsan": HsanConfig(embedding_size=16, num_clusters=4, refresh_every=2),
    "hsan-released": HsanConfig(embedding_size=64, num_clusters=4, refresh_every=2, semantics="released"),
}
SETTINGS = TrainConfig(epochs=4, batch_size=128, checkpoint_every=1)


def make(config):
    generator = np.random.default_rng(0)
    x_NF = generator.normal(size=(600, 40)).astype(np.float32)
    y_N = np.where(np.arange(600) < 100, np.arange(600) % 4, -1).astype(np.int32)
    source_E = np.repeat(np.arange(600), 2)
    target_E = (source_E + np.tile([1, 599], 600)) % 600
    by_row = np.lexsort((target_E, source_E))
    data = TrainingData(
        600,
        x_NF if "smoothed" in config.inputs else None,
        Graph(600, source_E[by_row], target_E[by_row], x_NF) if "graph" in config.inputs else None,
        y_N if config.uses_labels else None,
    )
    method = build_method(config, num_features=40, num_classes=4, num_nodes=600, seed=0)
    return method, data


def weights(method):
    return {name: value.cpu() for name, value in method.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", (CONFIGS | ON_THE_GRAPH).values(), ids=(CONFIGS | ON_THE_GRAPH).keys())
def test_same_seed_same_bits_and_resume_equals_unbroken(config, tmp_path):
    runs = []
    for _ in range(2):
        method, data = make(config)
        runs.append((train(method, data, SETTINGS, seed=0, device="cuda").history, weights(method)))
    assert runs[0][0] == runs[1][0]
    assert equal(runs[0][1], runs[1][1])

    class Stopped(Exception):
        pass

    def stop(report):
        if report.epoch == 3:  # epochs are reported before their checkpoint
            raise Stopped

    with pytest.raises(Stopped):
        method, data = make(config)
        train(method, data, SETTINGS, seed=0, device="cuda", checkpoint_dir=tmp_path, on_epoch=stop)
    method, data = make(config)
    result = train(method, data, SETTINGS, seed=0, device="cuda", checkpoint_dir=tmp_path)
    assert result.resumed_from == 2
    assert result.history == runs[0][0]
    assert equal(weights(method), runs[0][1])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_loss_without_draws_agrees_with_the_cpu(config):
    still = config.model_copy(
        update={"augmentations": ("encoder_dropout",), "dropout_rate": 0.0, "num_views": 2}
    )
    losses = []
    for device in ("cpu", "cuda"):
        method, data = make(still)
        batch = data.batch(torch.arange(128), device=device)
        losses.append(method.to(device).training_loss(batch, epoch=0, step=0, seed=0)["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("name", ["dmat_i", *ON_THE_GRAPH])
def test_embedding_agrees_with_the_cpu(name):
    method, data = make((CONFIGS | ON_THE_GRAPH)[name])
    on_cpu = method.embed(data)
    np.testing.assert_allclose(method.to("cuda").embed(data), on_cpu, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", ON_THE_GRAPH.values(), ids=ON_THE_GRAPH.keys())
def test_weights_of_pairs_after_the_return_to_the_cpu(config):
    method, data = make(config)
    train(method, data, SETTINGS, seed=0, device="cuda")
    anchors_A = np.arange(5)
    candidates_AM = (anchors_A[:, None] + np.arange(1, 9)) % 600
    on_cuda = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    on_cpu = method.to("cpu").negative_weights(data, anchors_A, candidates_AM, seed=0)
    assert (on_cuda is None) == (on_cpu is None) == (config.name == "grace")
    if on_cpu is not None:
        np.testing.assert_allclose(on_cpu.weight_AM, on_cuda.weight_AM, rtol=1e-2, atol=1e-3)


def test_device_memory_does_not_depend_on_the_number_of_nodes():
    peaks = []
    for num_nodes in (2_000, 200_000):
        x_NF = np.random.default_rng(0).normal(size=(num_nodes, 64)).astype(np.float32)
        method = build_method(DmatIConfig(embedding_size=32), num_features=64, seed=0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(
            method,
            TrainingData(num_nodes, x_NF),
            TrainConfig(epochs=1, batch_size=1000),
            seed=0,
            device="cuda",
        )
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 1.05 * peaks[0]


def test_large_batch_is_finite_in_float32_under_autocast_and_needs_no_square_tensor():
    z_VBD = torch.randn(2, 20_000, 64, device="cuda", requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = views_tuplet_loss(z_VBD, temperature=0.01).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(z_VBD.grad).all()
    assert torch.cuda.max_memory_allocated() - before < 40_000**2 * 4 / 4
