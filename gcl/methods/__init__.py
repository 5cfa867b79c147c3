"""The methods by name. A method is one file here, its configuration in `configs`, and one line below."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcl.config import Config
    from gcl.methods.base import Method

METHODS: dict[str, str] = {
    "augcl": "gcl.methods.augcl:Augcl",
    "augcl_graph": "gcl.methods.graphcl_augcl:AugclGraph",
    "dmat_i": "gcl.methods.dmat_i:DmatI",
    "dmt": "gcl.methods.dmt:Dmt",
    "grace": "gcl.methods.grace:Grace",
    "graphcl": "gcl.methods.graphcl:GraphCl",
    "hgcvae": "gcl.methods.hgcvae:Hgcvae",
    "hsan": "gcl.methods.hsan:Hsan",
    "nml_gcl": "gcl.methods.nml_gcl:NmlGcl",
    "progcl": "gcl.methods.progcl:ProGcl",
    "progcl_graph": "gcl.methods.graphcl_progcl:ProGclGraph",
}
"""Name -> where its class lies; loaded on demand, because the classes need torch."""

ON_COLLECTIONS = {"augcl": "augcl_graph", "progcl": "progcl_graph"}
"""What a method on the nodes of a graph means where the data are many graphs: its sibling on whole graphs."""


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
    config: "Config",
    *,
    num_features: int,
    num_classes: int | None = None,
    num_nodes: int | None = None,
    num_metapaths: int | None = None,
    seed: int,
) -> "Method":
    """The untrained method that `config` describes.

    Args:
        config: a method's configuration; its `name` says which.
        num_features: F, width of the input rows.
        num_classes: K, for methods that use labels or ask for as many clusters as classes.
        num_nodes: N, for methods with weights of single nodes.
        num_metapaths: M, for methods that read metapaths.
        seed: run seed the initial weights derive from.
    """
    found = method_class(str(getattr(config, "name", "")))
    sizes = {"num_features": num_features, "num_classes": num_classes}
    if found.is_transductive:
        sizes["num_nodes"] = num_nodes
    if "metapaths" in found.inputs:
        sizes["num_metapaths"] = num_metapaths
    if (num_encoders := getattr(config, "num_encoders", 1)) > 1:
        from gcl.methods.ensemble import ensemble_class

        found, sizes["num_encoders"] = ensemble_class(found), num_encoders
    return found(config, **sizes, seed=seed)  # type: ignore[arg-type]
