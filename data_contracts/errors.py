"""Errors of the contracts; each names the promise that was broken. All survive pickling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_contracts.validate import ContractResult

_LINE_LENGTH = 2_000


def one_line(text: object) -> str:
    """`text` on one line, control characters escaped, cut where it gets too long to read."""
    line = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in str(text))
    return line if len(line) <= _LINE_LENGTH else line[: _LINE_LENGTH - 3] + "..."


@dataclass(frozen=True)
class Failure:
    """One clause that does not hold.

    Attributes:
        column: column or columns concerned.
        rule: the clause, as the truth it asserts.
        observed: what was found.
        expected: what the contract asks for.
        num_rows: how many rows break it; None where the clause is about the table as a whole.
        sample: the first rows that break it, at most ten, read back from the file.
    """

    column: str
    rule: str
    observed: str
    expected: str
    num_rows: int | None = None
    sample: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "column": self.column,
            "rule": self.rule,
            "observed": self.observed,
            "expected": self.expected,
            "num_rows": self.num_rows,
            "sample": [dict(row) for row in self.sample],
        }

    def __str__(self) -> str:
        rows = "" if self.num_rows is None else f", {self.num_rows} row(s)"
        first = "" if not self.sample else f", first {dict(self.sample[0])}"
        return f"{self.column}: {self.rule} (found {self.observed}, expected {self.expected}{rows}{first})"


class TableUnreadable(Exception):
    """A file is missing, truncated, corrupt, or not Parquet at all."""

    def __init__(self, table: str, path: str, reason: str) -> None:
        self.table, self.path, self.reason = table, path, reason
        super().__init__(table, path, reason)

    def __str__(self) -> str:
        return one_line(f"{self.table}: {self.path} cannot be read as Parquet: {self.reason}")

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {"error": "TableUnreadable", "table": self.table, "path": self.path, "reason": self.reason}


class ContractViolation(Exception):
    """Data break their contract; every broken clause is listed.

    Attributes:
        table: name of the contract.
        failures: the broken clauses.
        result: the whole outcome, for the Data Docs of the quarantined artifact; may be None.
    """

    def __init__(
        self, table: str, failures: Sequence[Failure], result: "ContractResult | None" = None
    ) -> None:
        self.table, self.failures, self.result = table, tuple(failures), result
        super().__init__(table, self.failures, result)

    def __str__(self) -> str:
        clauses = "; ".join(str(failure) for failure in self.failures)
        return one_line(f"{self.table} breaks {len(self.failures)} clause(s): {clauses}")

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        failures = [failure.as_dict() for failure in self.failures]
        return {"error": "ContractViolation", "table": self.table, "failures": failures}


class ContractNotEvaluated(Exception):
    """A clause could not be evaluated: nothing is known about the data, and they must not be published."""

    def __init__(self, table: str, rule: str, reason: str) -> None:
        self.table, self.rule, self.reason = table, rule, reason
        super().__init__(table, rule, reason)

    def __str__(self) -> str:
        return one_line(f"{self.table}: rule {self.rule} could not be evaluated: {self.reason}")

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "error": "ContractNotEvaluated",
            "table": self.table,
            "rule": self.rule,
            "reason": self.reason,
        }


class ContractIncompatible(Exception):
    """A file was written under another contract, or another major version of it."""

    def __init__(self, table: str, found: str, expected: str) -> None:
        self.table, self.found, self.expected = table, found, expected
        super().__init__(table, found, expected)

    def __str__(self) -> str:
        return one_line(
            f"{self.table}: the file declares {self.found}, this code reads {self.expected}; "
            "run the stage that writes it again"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "error": "ContractIncompatible",
            "table": self.table,
            "found": self.found,
            "expected": self.expected,
        }
