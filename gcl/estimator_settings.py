"""Settings as keywords: which section each belongs to, and errors that name it."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from pydantic import ValidationError

from gcl.config import Config
from gcl.methods import ON_COLLECTIONS, method_class
from gcl.methods.defaults import method_defaults
from gcl.smoothing import SmoothingConfig
from gcl.trainer_config import TrainConfig


def sorted_settings(method: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the method and those of the training.

    Args:
        method: key in `gcl.methods.METHODS`.
        settings: fields of its configuration and of `TrainConfig`, which have no name in common.

    Raises:
        ValueError: a name that is neither; the message suggests near ones.
    """
    of_method = set(method_class(method).Config.model_fields) - {"name"}
    of_training = set(TrainConfig.model_fields)
    for name in settings:
        if name not in of_method | of_training:
            near = get_close_matches(
                name, sorted(of_method | of_training | {"smooth", "seed", "device"}), n=3
            )
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"{name}: {method} has no such setting{hint}")
    return (
        {name: value for name, value in settings.items() if name in of_method},
        {name: value for name, value in settings.items() if name in of_training - of_method},
    )


def chosen_configs(
    method: str, settings: Mapping[str, Any], smooth: SmoothingConfig | Mapping[str, Any] | None
) -> tuple[Config, TrainConfig, SmoothingConfig | None]:
    """The configurations of method, training and filter; what is not given is as the method's defaults say.

    Args:
        method: key in `gcl.methods.METHODS`.
        settings: fields of its configuration and of `TrainConfig`.
        smooth: fields of `SmoothingConfig`, or one that is taken as it is; None for the method's defaults.

    Returns:
        the third is None for methods that read the graph alone.

    Raises:
        ValueError: an unknown method or setting, a method that a `Graph` is not enough for, or a value out
            of its bounds; the message names it.
    """
    if smooth is not None and not isinstance(smooth, SmoothingConfig | Mapping):
        raise ValueError(f"smooth: settings by name, as {{'num_steps': 2}}, not {smooth!r}")
    declared = method_class(method)
    _check_takes_one_graph(method)
    of_method, of_training = sorted_settings(method, settings)
    filtering = dict(smooth) if isinstance(smooth, Mapping) else {}
    taken = method_defaults(method, {"method": of_method, "train": of_training, "smooth": filtering})
    config: Config = checked_config(declared.Config, {"name": method, **taken.get("method", {}), **of_method})
    training: TrainConfig = checked_config(TrainConfig, taken.get("train", {}) | of_training)
    if "smoothed" not in declared.inputs:
        if smooth is not None:
            raise ValueError(f"smooth: {method} reads the graph itself, so there is nothing to filter")
        return config, training, None
    if isinstance(smooth, SmoothingConfig):
        return config, training, smooth
    chosen: SmoothingConfig = checked_config(
        SmoothingConfig, taken.get("smooth", {}) | filtering, prefix="smooth."
    )
    return config, training, chosen


def pinned_to_plain(method: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of an estimator that takes none of its method's defaults: those are set to the plain ones.

    Args:
        method: key in `gcl.methods.METHODS`.
        keywords: settings of the method and the training by name, and ``smooth``.
    """
    smooth = {} if keywords.get("smooth") is None else keywords["smooth"]
    given = {"method": keywords, "train": keywords, "smooth": smooth}
    configs: dict[str, type[Config]] = {
        "method": method_class(method).Config,
        "train": TrainConfig,
        "smooth": SmoothingConfig,
    }
    plain = {
        section: {name: configs[section].model_fields[name].default for name in taken}
        for section, taken in method_defaults(method, given).items()
        if section in configs
    }
    pinned = {**plain.get("method", {}), **plain.get("train", {}), **keywords}
    if "smooth" in plain:
        pinned["smooth"] = {**plain["smooth"], **smooth}
    return pinned


def check_fit(method: Config, *, labels: np.ndarray | None, num_classes: int | None) -> None:
    """Refuse a fit without what the method asks for beside the graph, or with labels that it has no use for.

    Args:
        method: its configuration.
        labels: class ids, if any.
        num_classes: K, given or counted from the labels.

    Raises:
        ValueError: what to hand over, or to leave out.
    """
    declared = method_class(name := str(getattr(method, "name", "")))
    asks_for_count = getattr(method, "num_clusters", None) == "classes"
    if declared.uses_labels and labels is None:
        raise ValueError(f"{name} needs labels: fit(graph, labels=...), -1 for nodes it must not learn from")
    if labels is not None and not declared.uses_labels:
        instead = "; of the classes it asks for their number alone, num_classes=K" if asks_for_count else ""
        raise ValueError(f"{name} uses no labels: leave them out{instead}")
    if asks_for_count and num_classes is None:
        raise ValueError(
            f"{name} asks how many clusters to look for: ContrastiveEmbedding({name!r}, num_clusters=K), or "
            "fit(graph, num_classes=K)"
        )


def _check_takes_one_graph(method: str) -> None:
    """Refuse the methods for other data at once, and not with a word of the pipeline's settings."""
    inputs = method_class(method).inputs
    if "collection" in inputs:
        sibling = next((name for name, meant in ON_COLLECTIONS.items() if meant == method), "grace")
        raise ValueError(
            f"{method} embeds the graphs of a collection, and ContrastiveEmbedding takes one graph: "
            f"{sibling!r} embeds its nodes; collections run in the pipeline "
            "(gclflow run, docs/collections.md)"
        )
    if "metapaths" in inputs:
        raise ValueError(
            f"{method} reads nodes of several types through metapaths, and ContrastiveEmbedding takes one "
            "graph: such data run in the pipeline (gclflow run, docs/heterogeneous.md)"
        )


def check_device(device: Any) -> None:
    """Refuse a device that torch does not know or this machine does not have.

    Raises:
        ValueError: which, and what to take instead.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device: a torch device such as 'cpu' or 'cuda', not {device!r}") from None
    if found.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError("device: there is no CUDA device here, or torch was built without CUDA; take 'cpu'")
    if (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {device} is not there; CUDA devices here: {torch.cuda.device_count()}")


def checked_config(config: type[Config], values: Mapping[str, Any], *, prefix: str = "") -> Any:
    """An instance of `config`.

    Args:
        config: the class.
        values: its fields by name.
        prefix: what a message puts before the name of a field.

    Raises:
        ValueError: values that do not fit, a line each, beginning with the field.
    """
    try:
        return config(**values)
    except ValidationError as error:
        raise ValueError("\n".join(_explained(item, prefix) for item in error.errors())) from None


def _explained(item: Mapping[str, Any], prefix: str) -> str:
    field = prefix + (".".join(map(str, item["loc"])) or "settings")
    if item["type"] == "extra_forbidden":
        return f"{field}: there is no such setting"
    if item["type"] == "value_error" and not item["loc"]:  # settings that do not fit each other
        return f"{field}: {item['msg']}"
    return f"{field}: {item['msg']} (got {item['input']!r:.80})"
