"""A configuration made for one method, run with another: what stays of it, and what is the new one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gcl.config import Config
from gcl.methods.configs import MethodConfig
from gcl.methods.configs.grace import GraceSettings
from gcl.methods.configs.graphcl import GraphClSettings
from gcl.methods.defaults import flat, method_defaults

CONFIGS: dict[str, type[Config]] = {
    config.model_fields["name"].default: config for config in get_args(get_args(MethodConfig)[0])
}
# Methods of one of these are the same encoder, views and projection under other weights of the negatives.
_FAMILIES: tuple[type[Config], ...] = (GraceSettings, GraphClSettings)
# What is chosen for a method; the other fields of the section say what is kept, and where it is computed.
_OPTIMISATION = ("epochs", "batch_size", "learning_rate", "weight_decay", "schedule", "optimizer")


@dataclass(frozen=True)
class MethodSwitch:
    """What became of a configuration whose method was changed.

    Attributes:
        before: the method it was made for.
        name: the method that is run.
        kept: fields of its method that hold for both.
        replaced: settings by full key that are now the new method's own -> what they were, None if unsaid.
    """

    before: str
    name: str
    kept: tuple[str, ...]
    replaced: Mapping[str, Any]


def switch_method(base: dict[str, Any], changes: Mapping[str, Any]) -> MethodSwitch | None:
    """Make a configuration fit the method that the changes choose; None where that is its own.

    Epochs and step sizes were chosen for the method that goes, and so was its filter where its defaults name
    one. The method that comes has its own. Methods on one base, GRACE or GraphCL, keep what they share:
    encoder, views, and the training as far as their defaults agree.

    Args:
        base: settings of a preset or file by section, changed in place.
        changes: settings that will be put over them. They stand, and are left out of what is replaced.
    """
    before, name = (_section(values, "method").get("name") for values in (base, changes))
    if not isinstance(before, str) or not isinstance(name, str) or before == name:
        return None
    shared = _shared_fields(before, name)
    of_method = base.pop("method")
    kept = {field: value for field, value in of_method.items() if field in shared}
    base["method"] = {"name": name, **kept}
    taken = method_defaults(name, changes)
    going = _fields_that_go(base, before, name, taken=taken, is_family=bool(shared))
    dropped = {
        section: {field: base[section].pop(field) for field in fields if field in base[section]}
        for section, fields in going.items()
        if isinstance(base.get(section), dict)
    }
    if shared and "train" in taken:
        taken["train"] = {key: value for key, value in taken["train"].items() if key in going["train"]}
    for section, fields in taken.items():
        if isinstance(base.setdefault(section, {}), dict):  # anything else will be refused
            base[section].update(fields)
    was = dict.fromkeys(flat(taken)) | flat(dropped)
    by_hand = flat({section: _section(changes, section) for section in changes})
    return MethodSwitch(before, name, tuple(kept), {key: was[key] for key in was if key not in by_hand})


def _shared_fields(before: str, name: str) -> set[str]:
    """Fields that two methods of one family have from it alike; of any others, none."""
    configs = [CONFIGS[method] for method in (before, name) if method in CONFIGS]
    for family in _FAMILIES:
        if len(configs) == 2 and all(issubclass(config, family) for config in configs):
            return {
                field
                for field, info in family.model_fields.items()
                if all(config.model_fields[field].default == info.default for config in configs)
            }
    return set()


def _fields_that_go(
    base: Mapping[str, Any], before: str, name: str, *, taken: Mapping[str, Any], is_family: bool
) -> dict[str, list[str]]:
    """Fields by section that were the first method's, whether or not the configuration sets them."""
    old, new = (method_defaults(method, {}) for method in (before, name))
    one, other = old.pop("train", {}), new.pop("train", {})
    old.pop("method", None)
    going = {section: list(fields) for section, fields in old.items()}
    going["train"] = [key for key in _OPTIMISATION if not is_family or one.get(key) != other.get(key)]
    if "smooth" in old.keys() | taken.keys():  # a filter's settings mean nothing to another filter
        going["smooth"] = list(_section(base, "smooth"))
    return going


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of settings not yet validated; none if it is not one."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}
