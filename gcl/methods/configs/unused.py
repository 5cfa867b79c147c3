"""Settings that a method does not use under its others: they are told at the start, as no result shows it.

They are not refused: presets and studies set fields for all their variants, of which some use them.
"""

from collections.abc import Iterator

from gcl.config import Config
from gcl.methods.configs.affinity import AffinityConfig
from gcl.methods.configs.dmat import DmtConfig
from gcl.methods.configs.graphs import GraphEncoderConfig, ProjectionConfig
from gcl.methods.configs.hgcvae import HgcvaeConfig
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.configs.rows import RowEncoderConfig, ViewConfig
from gcl.trainer_config import never_weighted

_NETWORK = (
    "metric_heads", "metric_hidden_size", "metric_size", "metric_activation", "metric_steps",
    "metric_learning_rate", "metric_weight_decay", "joint",
)  # fmt: skip
_METRIC = ("metric_sign", "metric_temperature", "detach_metric")
_DIVERGENCE = ("alpha", "alpha_scale")
_FIT = (
    "estimator_hidden_size", "fit_passes", "pretrain_passes", "fit_learning_rate", "fit_batch_size",
    "refresh_every", "refresh_passes", "num_anchors", "num_candidates", "num_fit_anchors",
)  # fmt: skip
_AUGMENTATIONS = {
    "feature_mask": "feature_mask_rate",
    "entry_dropout": "entry_dropout_rate",
    "gaussian_jitter": "jitter_scale",
}


def told_before(method: Config, num_epochs: int, smoothing: Config | None = None) -> list[str]:
    """All that is said of a configuration before a training: weights that never come, and unused settings.

    Args:
        method: a method's configuration.
        num_epochs: epochs of the training.
        smoothing: of the run's features; None: there is no such stage.
    """
    late = never_weighted(method, num_epochs)
    of_smoothing = [] if smoothing is None else _unused_smoothing(method, smoothing)
    return [*([] if late is None else [late]), *unused_settings(method), *of_smoothing]


def unused_settings(method: Config) -> list[str]:
    """What was set and plays no part, a line for each reason; settings at their defaults are passed over.

    Args:
        method: a method's configuration.
    """
    fields = type(method).model_fields
    told = []
    for reason, names in _unused(method):
        changed = [name for name in names if name in fields and getattr(method, name) != fields[name].default]
        if changed:
            told.append(f"not used under method.{reason}: {', '.join(f'method.{name}' for name in changed)}")
    return told


def _unused_smoothing(method: Config, smoothing: Config) -> list[str]:
    """Preparation of features that was asked for, and that a method which reads them raw does without."""
    if not isinstance(method, HgcvaeConfig | GraphEncoderConfig):
        return []
    defaults, names = type(smoothing).model_fields, ["features", "num_components"]
    names += ["standardise"] if method.normalise_input != "columns" else []
    changed = [name for name in names if getattr(smoothing, name) != defaults[name].default]
    if not changed:
        return []
    advice = ": set method.normalise_input=columns" if "standardise" in changed else ""
    listed = ", ".join(f"smooth.{name}" for name in changed)
    reads = f"{getattr(method, 'name', 'the method')} reads the features as they are stored"
    return [f"{listed}: of use to the control smoothed alone, {reads}{advice}"]


def _unused(method: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Reasons, and the fields they leave without effect."""
    if isinstance(method, NmlGclConfig):
        yield from _of_metric(method)
    if isinstance(method, AffinityConfig):
        yield from _of_estimator(method)
    if isinstance(method, RowEncoderConfig) and method.encoder == "linear":
        yield "encoder=linear", ("hidden_size", "activation", "dropout_rate")
    if isinstance(method, ViewConfig):
        named = method.augmentations
        yield (
            f"augmentations={list(named)}",
            tuple(rate for name, rate in _AUGMENTATIONS.items() if name not in named),
        )
    if isinstance(method, DmtConfig) and method.unlabelled != "instance":
        yield f"unlabelled={method.unlabelled}", ("instance_weight",)
    if isinstance(method, ProjectionConfig) and method.projector == "none":
        yield "projector=none", ("projection_size",)


def _of_metric(method: NmlGclConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    if method.metric == "uniform":
        gradual = ("metric_start_epoch", "metric_ramp_epochs", "use_kl")
        yield "metric=uniform", (*_NETWORK, *_METRIC, *_DIVERGENCE, *gradual)
        return
    if method.metric == "cosine":
        yield "metric=cosine", _NETWORK
    if method.metric == "free_form":
        yield "metric=free_form", (*_NETWORK, *_METRIC)
    if not method.use_kl:
        yield "use_kl=false", _DIVERGENCE
    if method.metric == "network" and method.joint:
        yield "joint=true", ("metric_steps",)


def _of_estimator(method: AffinityConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    is_trained = method.estimator not in ("analytic", "distance")
    if not is_trained:
        yield f"estimator={method.estimator}", _FIT
    elif not method.refresh_every:
        yield "refresh_every=0", ("refresh_passes",)
    if method.estimator not in ("gambler", "analytic"):
        yield f"estimator={method.estimator}", ("reward",)
