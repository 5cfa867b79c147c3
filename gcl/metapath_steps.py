"""Metapaths as the steps they walk: from what people write to relations and their directions.

Source: Sun et al. 2011 (PathSim) for metapaths; canonical relation triples as in DGL and PyG.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from gcl.hetero_graph import EdgeType

SelfLoops = Literal["keep", "add", "remove"]
WalkWeight = Literal["binary", "count"]
Triple = tuple[str, str, str]

_EXPLICIT = re.compile(r"\s*(<[^<>]+<|>[^<>]+>)\s*")
_NONE: Mapping[EdgeType, EdgeType] = MappingProxyType({})
_NAMED = re.compile(r"\s*([A-Za-z0-9_.]{1,64})\s*=(.*)", re.DOTALL)


class MetapathBroken(ValueError):
    """A metapath that does not chain, or walks a relation that there is not."""


@dataclass(frozen=True)
class Step:
    """One step: along a relation, or against it."""

    relation: EdgeType
    backward: bool = False

    @property
    def start(self) -> str:
        """The type it leaves."""
        return self.relation[2 if self.backward else 0]

    @property
    def end(self) -> str:
        """The type it enters."""
        return self.relation[0 if self.backward else 2]

    @property
    def reverse(self) -> "Step":
        """The same step, walked the other way."""
        return Step(self.relation, not self.backward)


@dataclass(frozen=True)
class MetapathPlan:
    """A metapath and how it becomes an adjacency.

    Attributes:
        name: such as ``APA``.
        steps: from the target type back to it.
        self_loops: walks that end where they began: kept, dropped, or every node given one.
        weight: 1 for every pair that a walk joins, or the number of walks.
        max_fanout: neighbours kept a node at most (count), by seeded random walks; None keeps all.
        nnz: entries of the adjacency, where the source says how many there must be.
    """

    name: str
    steps: tuple[Step, ...]
    self_loops: SelfLoops = "keep"
    weight: WalkWeight = "binary"
    max_fanout: int | None = None
    nnz: int | None = None

    @property
    def is_symmetric(self) -> bool:
        """Whether its second half is its first half walked back."""
        return self.steps == tuple(step.reverse for step in reversed(self.steps))

    @property
    def types(self) -> tuple[str, ...]:
        """The node types it visits."""
        return (self.steps[0].start, *(step.end for step in self.steps))


def steps_of_triples(
    triples: Sequence[Triple], relations: Sequence[EdgeType], reverses: Mapping[EdgeType, EdgeType]
) -> tuple[Step, ...]:
    """Steps from relation triples; ``rev_R`` and ``R-rev`` walk R backward, and so do declared names.

    Args:
        triples: (source type, relation, target type) of each step.
        relations: those there are.
        reverses: declared names of reverse relations, and whose reverse each is.

    Raises:
        MetapathBroken: a triple is no relation, or there is none.
    """
    if not triples:
        raise MetapathBroken("has no steps")
    steps = [_step_of_triple(triple, relations, reverses) for triple in triples]
    return _chained(steps)


def _step_of_triple(
    triple: Triple, relations: Sequence[EdgeType], reverses: Mapping[EdgeType, EdgeType]
) -> Step:
    if triple in relations:
        return Step(triple)
    original = reverses.get(triple) or reversed_by_name(triple)
    if original in relations:
        return Step(original, backward=True)  # type: ignore[arg-type]
    raise MetapathBroken(f"there is no relation {'/'.join(triple)}; there are: {_listed(relations)}")


def reversed_by_name(triple: Triple) -> EdgeType | None:
    """The relation whose reverse a triple is by its name: ``rev_R`` (DGL, PyG), ``R-rev`` (GraphStorm)."""
    source, name, end = triple
    if name.startswith("rev_"):
        return (end, name.removeprefix("rev_"), source)
    if name.endswith("-rev"):
        return (end, name.removesuffix("-rev"), source)
    return None


def parse_metapath(
    text: str, relations: Sequence[EdgeType], reverses: Mapping[EdgeType, EdgeType] = _NONE
) -> tuple[str | None, tuple[Step, ...]]:
    """A metapath as people write it.

    ``author-paper-author`` names the types, where one relation joins each pair; otherwise relations are
    named with their directions: ``author >writes> paper <writes< author``, or by the reverse's name, ``author
    >writes> paper >rev_writes> author``. ``APA=...`` gives a name.

    Args:
        text: what was written.
        relations: those there are.
        reverses: declared names of reverse relations, and whose reverse each is.

    Returns:
        the given name, or None, and the steps.

    Raises:
        MetapathBroken: a type or relation is not there, or which one is meant cannot be told.
    """
    named = _NAMED.fullmatch(text)
    name, path = (named[1], named[2]) if named else (None, text)
    parts = [part.strip() for part in _EXPLICIT.split(path.strip())]
    if len(parts) > 1:
        return name, _chained(_explicit_steps(parts, relations, reverses))
    types = _split_types(path.strip(), relations)
    pairs = zip(types, types[1:], strict=False)
    return name, _chained([_only_step(start, end, relations) for start, end in pairs])


def name_of(steps: Sequence[Step]) -> str:
    """A name from the initials of the types: ``APA``."""
    return "".join(type_[0].upper() for type_ in (steps[0].start, *(step.end for step in steps)))


def _explicit_steps(
    parts: Sequence[str], relations: Sequence[EdgeType], reverses: Mapping[EdgeType, EdgeType]
) -> list[Step]:
    steps = []
    for start, arrow, end in zip(parts[0::2], parts[1::2], parts[2::2], strict=False):
        name, backward = arrow.strip("<>").strip(), arrow.startswith("<")
        triple = (end, name, start) if backward else (start, name, end)
        step = _step_of_triple(triple, relations, reverses)
        steps.append(step.reverse if backward else step)
    return steps


def _split_types(text: str, relations: Sequence[EdgeType]) -> list[str]:
    """Types between hyphens; a type may hold hyphens itself."""
    known = {type_ for source, _, end in relations for type_ in (source, end)}
    types: list[str] = []
    pending = ""
    for part in text.split("-"):
        pending = f"{pending}-{part}" if pending else part
        if pending in known:
            types.append(pending)
            pending = ""
    if pending or len(types) < 2:
        raise MetapathBroken(f"{text!r} is no path through node types; there are: {', '.join(sorted(known))}")
    return types


def _only_step(start: str, end: str, relations: Sequence[EdgeType]) -> Step:
    found = [Step(relation) for relation in relations if (relation[0], relation[2]) == (start, end)]
    found += [Step(relation, True) for relation in relations if (relation[2], relation[0]) == (start, end)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise MetapathBroken(f"no relation joins {start} and {end}; there are: {_listed(relations)}")
    written = " or ".join(
        f"{start} <{step.relation[1]}< {end}" if step.backward else f"{start} >{step.relation[1]}> {end}"
        for step in found
    )
    raise MetapathBroken(f"{start}-{end} may mean {written}: write which")


def _chained(steps: Sequence[Step]) -> tuple[Step, ...]:
    for first, second in zip(steps, steps[1:], strict=False):
        if first.end != second.start:
            raise MetapathBroken(
                f"step {'/'.join(first.relation)} ends at {first.end}, the next begins at {second.start}"
            )
    return tuple(steps)


def _listed(relations: Sequence[EdgeType]) -> str:
    return ", ".join("/".join(relation) for relation in relations)
