"""The methods by name. A method is one file here, its configuration in `configs`, and one line below."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcl.config import Config
    from gcl.methods.base import Method

METHODS: dict[str, str] = {
    "dmat_i": "gcl.methods.dmat_i:DmatI",
    "dmt": "gcl.methods.dmt:Dmt",
    "grace": "gcl.methods.grace:Grace",
}
"""Name -> where its class lies; loaded on demand, because the classes need torch."""


def method_class(name: str) -> "type[Method]":
    """The class registered as `name`.

    Raises:
        ValueError: no such method; the message lists the known ones.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found


def build_method(
    config: "Config", *, num_features: int, num_classes: int | None = None, seed: int
) -> "Method":
    """The untrained method that `config` describes.

    Args:
        config: a method's configuration; its `name` says which.
        num_features: F, width of the input rows.
        num_classes: K, for methods that use labels or ask for as many clusters as classes.
        seed: run seed the initial weights derive from.
    """
    name = str(getattr(config, "name", ""))
    return method_class(name)(config, num_features=num_features, num_classes=num_classes, seed=seed)
