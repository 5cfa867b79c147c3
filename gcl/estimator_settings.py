"""Settings as keywords: which section each belongs to, and errors that name it."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from gcl.config import Config
from gcl.methods import method_class
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
