"""Which methods a test of plain graphs can run."""

from gcl.methods import METHODS, method_class


def _reads_one_graph(name: str) -> bool:
    return not any(kind in method_class(name).inputs for kind in ("collection", "metapaths"))


ON_ONE_GRAPH = sorted(name for name in METHODS if _reads_one_graph(name))
"""Methods that embed the nodes of a graph with one type of nodes; the others are refused there."""
