"""Settings that play no part under the others: each is told with what makes it so, and none is refused."""

import numpy as np
import pytest

import gcl
from gcl.methods import method_class
from gcl.methods.configs import (
    AugclConfig,
    AugclGraphConfig,
    DmatIConfig,
    DmtConfig,
    GraceConfig,
    HgcvaeConfig,
    NmlGclConfig,
)
from gcl.methods.configs.unused import told_before, unused_settings
from gcl.smoothing import SmoothingConfig


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (NmlGclConfig(metric="uniform", metric_sign=-1), "metric=uniform: method.metric_sign"),
        (NmlGclConfig(metric="uniform", alpha=9), "metric=uniform: method.alpha"),
        (NmlGclConfig(metric="uniform", metric_heads="two"), "metric=uniform: method.metric_heads"),
        (
            NmlGclConfig(metric="uniform", metric_learning_rate=0.5),
            "metric=uniform: method.metric_learning_rate",
        ),
        (NmlGclConfig(metric="cosine", metric_heads="two"), "metric=cosine: method.metric_heads"),
        (
            NmlGclConfig(metric="free_form", metric_steps=9, metric_hidden_size=3),
            "metric=free_form: method.metric_hidden_size, method.metric_steps",
        ),
        (NmlGclConfig(metric="free_form", metric_sign=-1), "metric=free_form: method.metric_sign"),
        (NmlGclConfig(use_kl=False, alpha=2), "use_kl=false: method.alpha"),
        (NmlGclConfig(joint=True, metric_steps=4), "joint=true: method.metric_steps"),
        (AugclConfig(estimator="softmax", reward=1.1), "estimator=softmax: method.reward"),
        (AugclConfig(num_anchors=5), "estimator=analytic: method.num_anchors"),
        (AugclGraphConfig(refresh_passes=5), "refresh_every=0: method.refresh_passes"),
        (DmatIConfig(hidden_size=5), "encoder=linear: method.hidden_size"),
        (DmatIConfig(jitter_scale=0.5), "augmentations=['entry_dropout']: method.jitter_scale"),
        (DmtConfig(instance_weight=2.0), "unlabelled=ignore: method.instance_weight"),
        (GraceConfig(projector="none", projection_size=5), "projector=none: method.projection_size"),
    ],
)
def test_a_setting_without_effect_is_told(method, told):
    assert unused_settings(method) == [f"not used under method.{told}"]


@pytest.mark.parametrize(
    "method",
    [
        NmlGclConfig(metric_sign=-1, metric_heads="two", alpha=9, metric_steps=4),
        NmlGclConfig(metric="cosine", metric_sign=-1, alpha=9, metric_start_epoch=3),
        NmlGclConfig(metric="free_form", alpha=9, metric_ramp_epochs=3, include_self=False),
        AugclConfig(reward=1.1, alpha_scale=2),
        AugclConfig(estimator="gambler", reward=1.1, fit_passes=3, num_anchors=5),
        AugclConfig(estimator="entropy", refresh_every=2, refresh_passes=3),
        DmatIConfig(encoder="mlp", hidden_size=5, augmentations=("gaussian_jitter",), jitter_scale=0.5),
        DmtConfig(unlabelled="instance", num_views=2, instance_weight=2.0),
    ],
)
def test_a_setting_with_effect_is_not_told(method):
    assert unused_settings(method) == []


@pytest.mark.parametrize("name", gcl.METHODS)
def test_defaults_are_passed_over(name):
    assert unused_settings(method_class(name).Config()) == []


def test_preparation_that_a_method_of_raw_features_does_without_is_told():
    def told(smoothing, method=None):
        return told_before(method or HgcvaeConfig(), 40, smoothing)

    (line,) = told(SmoothingConfig(standardise=True, num_components=3))
    assert line.startswith("smooth.num_components, smooth.standardise: of use to the control smoothed alone")
    assert line.endswith("hgcvae reads the features as they are stored: set method.normalise_input=columns")
    assert told(SmoothingConfig(num_components=3))[0].endswith("as they are stored")
    assert told(SmoothingConfig(normalise_output="l2")) == []
    assert told(SmoothingConfig(standardise=True), HgcvaeConfig(normalise_input="columns")) == []
    assert told(SmoothingConfig(standardise=True), DmatIConfig()) == []
    (line,) = told(SmoothingConfig(standardise=True), GraceConfig())
    assert line.endswith("grace reads the features as they are stored: set method.normalise_input=columns")
    assert told(SmoothingConfig(standardise=True), NmlGclConfig(normalise_input="columns")) == []


def test_a_fit_warns(caplog):
    graph = gcl.Graph.from_edges(np.arange(20), (np.arange(20) + 1) % 20, np.eye(20))
    gcl.ContrastiveEmbedding("dmat_i", epochs=1, embedding_size=4, hidden_size=7).fit(graph)
    assert "not used under method.encoder=linear: method.hidden_size" in caplog.text
