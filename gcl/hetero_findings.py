"""What is wrong with heterogeneous data, all of it in one report."""

from collections.abc import Sequence
from dataclasses import dataclass

from gcl.errors import InvalidGraph, SourceUnreadable

MAX_SAMPLE = 10
# Findings about files, not about what they say: nothing can be read where one of these stands.
_OF_FILES = ("H01", "H02", "H05", "H17", "H18")


@dataclass(frozen=True)
class Finding:
    """One check that does not hold.

    Attributes:
        code: of the check, ``H01`` to ``H18``.
        rule: what should hold: ``endpoints_known``.
        where: table or file, and column.
        num_rows: how many rows break it.
        sample: the first of them, at most ten, readable.
        advice: what to do about it, where there is a choice; otherwise empty.
    """

    code: str
    rule: str
    where: str
    num_rows: int
    sample: tuple[str, ...]
    advice: str = ""

    @classmethod
    def of(cls, code: str, rule: str, where: str, rows: Sequence[object], *, advice: str = "") -> "Finding":
        """A finding with the first ten of these rows."""
        return cls(code, rule, where, len(rows), tuple(str(row) for row in rows[:MAX_SAMPLE]), advice)

    def __str__(self) -> str:
        advice = f" ({self.advice})" if self.advice else ""
        shown = f": {', '.join(self.sample)}" if self.sample else ""
        return f"{self.code} {self.where}: rule {self.rule} broken by {self.num_rows} row(s){shown}{advice}"


class UnreadableHetero(SourceUnreadable):
    """Files of a heterogeneous graph are missing or not what they are said to be; all findings are listed."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(self.findings)

    def __str__(self) -> str:
        return _report(self.findings)


class InvalidHetero(InvalidGraph):
    """A heterogeneous graph breaks rules; all findings are listed, the first one stands for them."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        first = self.findings[0]
        table, _, column = first.where.partition(" ")
        super().__init__(
            table=table, column=column, rule=first.rule, num_rows=first.num_rows, sample=first.sample
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: these errors cross process borders."""
        return (InvalidHetero, (self.findings,))

    def __str__(self) -> str:
        return _report(self.findings)


def raise_findings(findings: Sequence[Finding]) -> None:
    """Raise one error for all findings, if there are any.

    Raises:
        UnreadableHetero: one of them is about a file.
        InvalidHetero: all of them are about what the files say.
    """
    if not findings:
        return
    ordered = sorted(findings, key=lambda finding: finding.code)
    if any(finding.code in _OF_FILES for finding in ordered):
        raise UnreadableHetero(ordered)
    raise InvalidHetero(ordered)


def _report(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} check(s) failed: " + "; ".join(str(finding) for finding in findings)
