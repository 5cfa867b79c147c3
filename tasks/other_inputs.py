"""Inputs that only some methods read, and what reads them; found by name, so that no other key covers it."""

from importlib import import_module
from typing import Any

from tasks.work import Work

_READERS = {
    "metapaths": "tasks.hetero_tables:read_metapaths",
    "collection": "tasks.collection_tables:read_collection",
}


def reading_modules(inputs: str) -> tuple[str, ...]:
    """The modules that read what a method declares in its `inputs` beside graph and smoothed rows."""
    return tuple(reader.partition(":")[0] for kind, reader in _READERS.items() if kind in inputs)


def read_other_inputs(work: Work, inputs: str) -> dict[str, Any]:
    """These inputs by kind, opened, where the run has them."""
    found: dict[str, Any] = {}
    for kind, reader in _READERS.items():
        if kind in inputs and kind in work.inputs:
            module, _, function = reader.partition(":")
            found[kind] = getattr(import_module(module), function)(work.input(kind))
    return found
