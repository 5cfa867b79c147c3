"""The form in which the UI asks for a run's parameters, arranged for the people who fill it in."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_FIRST = ("name", "refresh", "until")  # what people change from run to run
_LAST = "config"  # by far the longest


def arranged(schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment's parameter schema, for its form.

    Prefect's form shows a choice between kinds (of data set, of method) as tabs, headed by the names of our
    classes, and opens the first one whatever the deployment's values are. So the kind that is set comes
    first, kinds and sections are headed as in a configuration file, and short fields precede the rest.

    Args:
        schema: JSON schema of the parameters, as the deployment has it.
        parameters: the deployment's own values.
    """
    form = deepcopy(dict(schema))
    definitions, properties = form.get("definitions", {}), form.get("properties", {})
    names = sorted(properties, key=lambda name: (_rank(name), properties[name].get("position", 0)))
    for definition in list(definitions.values()):
        for name, node in definition.get("properties", {}).items():
            _head(name, node, definitions)
    form["properties"] = {
        name: {**properties[name], "position": at, "description": _plain(properties[name])}
        for at, name in enumerate(names)
    }
    for name, given in parameters.items():
        _choose(properties.get(name, {}), given, definitions)
    return form


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST) + (name == _LAST)


def _plain(node: Mapping[str, Any]) -> str:
    """The description as prose; the form shows the marks of docstrings as they are."""
    return str(node.get("description", "")).replace("`", "")


def _head(name: str, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> None:
    """Head a section by its field, and a kind by its tag."""
    for tag, reference in node.get("discriminator", {}).get("mapping", {}).items():
        definitions[reference.rpartition("/")[2]]["title"] = tag
    for reference in _references(node):
        definitions[reference.rpartition("/")[2]]["title"] = name


def _choose(node: dict[str, Any], given: object, definitions: Mapping[str, Any]) -> None:
    """Put the kind that `given` is of first, here and in everything below."""
    if not isinstance(given, Mapping):
        return
    if "discriminator" in node and "oneOf" in node:
        tag = node["discriminator"]["propertyName"]
        wanted = node["discriminator"]["mapping"].get(given.get(tag))
        node["oneOf"].sort(key=lambda kind: kind.get("$ref") != wanted)
    for reference in _references(node):
        below = definitions.get(reference.rpartition("/")[2], {}).get("properties", {})
        for name, value in given.items():
            _choose(below.get(name, {}), value, definitions)


def _references(node: Mapping[str, Any]) -> list[str]:
    found = [node, *node.get("allOf", ())]
    return [kind["$ref"] for kind in found if "$ref" in kind]
