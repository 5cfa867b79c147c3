"""What a clause is: a bound on one figure of the profile, and the rows that break it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_contracts import predicates
from data_contracts.predicates import Predicate

Facts = Mapping[str, int | float | bool | None]


@dataclass(frozen=True)
class Fact:
    """A bound that the caller knows: the first of `names` that is given, plus `plus`."""

    names: tuple[str, ...]
    plus: int = 0

    def known(self, facts: Facts) -> float | int | None:
        """The bound, or None when the caller did not say."""
        for name in self.names:
            value = facts.get(name)
            if isinstance(value, int | float):
                return value + self.plus
        return None


Bound = int | float | Fact | None
Offending = Callable[[Path, str, float | None, float | None], Predicate]


def fact(*names: str, plus: int = 0) -> Fact:
    """A bound taken from the facts of the check."""
    return Fact(names, plus)


@dataclass(frozen=True)
class Clause:
    """One sentence of a contract: ``low <= figure <= high``.

    Attributes:
        rule: the clause, as the truth it asserts.
        columns: the columns it speaks of; left out of a file that lacks one of them.
        figure: the profile's figure that is bounded.
        low: least value, or None.
        high: greatest value, or None.
        when: a fact and the value it must have for the clause to apply.
        counted: the predicate whose rows the figure counts, where it is a count of broken rows.
        offending: makes the predicate that finds the rows, given file, table, low and high.
    """

    rule: str
    columns: tuple[str, ...]
    figure: str
    low: Bound = None
    high: Bound = None
    when: tuple[str, bool] | None = None
    counted: Predicate | None = None
    offending: Offending | None = None

    @property
    def column(self) -> str:
        """The columns, as text."""
        return ", ".join(self.columns) or "table"

    def fact_names(self) -> set[str]:
        """The facts that the clause asks for."""
        names = {name for bound in (self.low, self.high) if isinstance(bound, Fact) for name in bound.names}
        return names | ({self.when[0]} if self.when else set())

    def bounds(self, facts: Facts) -> tuple[float | None, float | None] | None:
        """The bounds under these facts; None when a fact it needs is absent or says it does not apply."""
        if self.when is not None and facts.get(self.when[0]) is not self.when[1]:
            return None
        settled = []
        for bound in (self.low, self.high):
            value = bound.known(facts) if isinstance(bound, Fact) else bound
            if value is None and bound is not None:
                return None
            settled.append(value)
        return settled[0], settled[1]


def plain_facts(context: Mapping[str, object], *, known: frozenset[str]) -> dict[str, int | float | bool]:
    """The caller's facts as plain numbers; None means not known.

    A misspelt name or a value of an odd type would silently take clauses out of the contract, so both
    are refused; numpy's scalars are taken for what they are.

    Raises:
        ValueError: a fact no clause asks for, or one that is not a number or a truth value.
    """
    facts: dict[str, int | float | bool] = {}
    for name, value in context.items():
        if name not in known:
            raise ValueError(f"no clause asks for fact {name!r}; known: {', '.join(sorted(known))}")
        plain = value.item() if hasattr(value, "item") else value
        if plain is None:
            continue
        if not isinstance(plain, bool | int | float) or plain != plain:
            raise ValueError(f"fact {name!r} must be a number or a truth value, not {value!r}")
        facts[name] = plain
    return facts


def no_row(rule: str, predicate: Predicate, *, when: tuple[str, bool] | None = None) -> Clause:
    """No row breaks the predicate."""
    return Clause(
        rule,
        predicate.columns,
        figure=f"{rule}.broken",
        high=0,
        when=when,
        counted=predicate,
        offending=lambda _path, _table, _low, _high: predicate,
    )


def in_range(rule: str, column: str, low: Bound, high: Bound) -> tuple[Clause, ...]:
    """Every value of `column`, lists item by item, lies in [low, high]."""

    def offending(_path: Path, _table: str, low: float | None, high: float | None) -> Predicate:
        return predicates.outside(column, low=low, high=high)

    lower = Clause(rule, (column,), f"{column}.min", low=low, offending=offending)
    upper = Clause(rule, (column,), f"{column}.max", high=high, offending=offending)
    return tuple(clause for clause, bound in ((lower, low), (upper, high)) if bound is not None)


def exactly(rule: str, figure: str, value: Bound, *columns: str) -> Clause:
    """A figure of the whole table has one value."""
    return Clause(rule, columns, figure, low=value, high=value)
