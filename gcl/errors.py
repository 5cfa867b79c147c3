"""Errors of the science layer; each names the promise that was broken."""

from collections.abc import Sequence


class SourceUnreadable(Exception):
    """A source file is missing, truncated, or not what its format says it is."""


class UnsafeSource(SourceUnreadable):
    """A source tries what no data file needs: code in a pickle, a path outside its archive, a bomb."""


class InvalidGraph(Exception):
    """Well-formed source data that break a rule of the graph's tables.

    Raised where a rule must hold before a table can be written at all (an edge whose endpoint does not
    exist has no place in a sorted edge table). The pipeline reports it as a contract violation.

    Attributes:
        table: table the rule belongs to, e.g. ``graph.edges``.
        column: column or columns concerned.
        rule: the rule that does not hold, as the truth it asserts: ``endpoints_in_range``.
        num_rows: how many rows break it.
        sample: the first rows that break it, at most ten, readable.
    """

    def __init__(self, *, table: str, column: str, rule: str, num_rows: int, sample: Sequence[str]) -> None:
        self.table, self.column, self.rule, self.num_rows = table, column, rule, num_rows
        self.sample = tuple(sample)[:10]
        super().__init__(table, column, rule, num_rows, self.sample)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: these errors cross process borders."""
        return (_rebuild_invalid_graph, (self.table, self.column, self.rule, self.num_rows, self.sample))

    def __str__(self) -> str:
        """One line: what, where, how many, which."""
        return (
            f"{self.table}.{self.column}: rule {self.rule} broken by {self.num_rows} row(s); "
            f"first: {', '.join(self.sample)}"
        )


def _rebuild_invalid_graph(
    table: str, column: str, rule: str, num_rows: int, sample: Sequence[str]
) -> InvalidGraph:
    return InvalidGraph(table=table, column=column, rule=rule, num_rows=num_rows, sample=sample)


class NonFiniteLoss(Exception):
    """A loss term or gradient became NaN or infinite; the optimizer step was not taken."""

    def __init__(self, epoch: int, term: str) -> None:
        self.epoch, self.term = epoch, term
        super().__init__(epoch, term)

    def __str__(self) -> str:
        """Where it happened and what to try."""
        return f"{self.term} is not finite in epoch {self.epoch}; try a smaller learning rate"


class TrainingInterrupted(Exception):
    """Training stopped by a signal or its deadline, after writing a checkpoint it can resume from."""


class CheckpointMismatch(Exception):
    """A checkpoint belongs to another configuration, graph or version; the message names the fields."""


class NotDefined(ValueError):
    """A result that does not exist for this input (a probe on a single class, clusters of a single node)."""


class UnsuitableSetting(ValueError):
    """A setting that is right in itself and does not fit this data; the message names what to set instead."""
