"""check_table: schema, then profile, then suite; offending rows; one result or one error."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.clauses import Clause, plain_facts
from data_contracts.engine import Settled, evaluate
from data_contracts.errors import ContractViolation, Failure
from data_contracts.offenders import find_offenders
from data_contracts.profile import profile_table
from data_contracts.reading import read_schema
from data_contracts.schema_check import (
    SCHEMA_RULES,
    check_schema,
    declared_facts,
    fit_columns,
    require_contract,
)
from data_contracts.spectrum import Figure
from data_contracts.suites import FACTS, clauses_of, settle
from data_contracts.tables import table_named

__all__ = ["ContractResult", "check_table", "require_contract"]


@dataclass(frozen=True)
class ContractResult:
    """The outcome of one check.

    Attributes:
        table: name of the contract.
        version: its version in this code.
        passed: how many clauses hold.
        failed: how many do not.
        rules: the names of all clauses that were checked, in order, each once.
        seconds: how long the check took, the import of Great Expectations included.
        failures: the broken clauses.
        profile: the figures of the table.
        suite: the Great Expectations suite, as JSON types.
        validation: the Great Expectations result, as JSON types.
    """

    table: str
    version: str
    passed: int
    failed: int
    rules: tuple[str, ...]
    seconds: float
    failures: tuple[Failure, ...] = ()
    profile: Mapping[str, Figure] = field(default_factory=dict, repr=False)
    suite: Mapping[str, Any] = field(default_factory=dict, repr=False)
    validation: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """What a manifest keeps, as JSON types; not the time, which differs from run to run."""
        return {
            "table": self.table,
            "version": self.version,
            "passed": self.passed,
            "failed": self.failed,
            "rules": list(self.rules),
        }


def check_table(
    path: Path, table: str, *, context: Mapping[str, object], docs_dir: Path | None = None
) -> ContractResult:
    """Check a Parquet file against its contract.

    Args:
        path: the file; it is streamed, never held.
        table: name of the contract, e.g. ``graph.edges``.
        context: what the caller knows: num_nodes, num_edges, num_features, num_classes, num_clusters,
            embedding_size, num_epochs, is_undirected, has_self_loops, max_abs, min_effective_rank,
            max_uncertainty, ... A clause whose fact is absent is left out; counts stated in the file's
            own metadata (num_features, class_names) serve where the caller is silent.
        docs_dir: where to write Data Docs of this one table, also when the check fails.

    Raises:
        TableUnreadable: missing, truncated or corrupt file.
        ContractViolation: at least one clause does not hold; all that do not are listed.
        ContractNotEvaluated: a clause could not be computed, so nothing is known.
        ValueError: no such table, or a fact that no clause asks for.
    """
    started = time.perf_counter()
    contract, schema = table_named(table), read_schema(path, table)
    facts = {**declared_facts(schema), **plain_facts(context, known=FACTS)}
    failures = check_schema(schema, contract, facts=facts)
    profile = profile_table(path, table, columns=fit_columns(schema, contract))
    broken_schema = {failure.rule for failure in failures}
    profile |= {f"schema.{rule}": int(rule in broken_schema) for rule in SCHEMA_RULES}

    settled = _schema_clauses() + settle(clauses_of(table, schema), facts)
    settled = [entry for entry in settled if _has_something_to_say(entry[0], profile, bool(failures))]
    held, suite, validation = evaluate(table, profile, settled)
    failures += _failures(path, table, profile, _broken(settled, held))
    result = ContractResult(
        table=table,
        version=contract.version,
        passed=sum(held),
        failed=len(held) - sum(held),
        rules=tuple(dict.fromkeys(clause.rule for clause, _, _ in settled)),
        seconds=time.perf_counter() - started,
        failures=tuple(failures),
        profile=profile,
        suite=suite,
        validation=validation,
    )
    if docs_dir is not None:
        from data_contracts.docs import write_data_docs

        write_data_docs(docs_dir, [result])
    if failures:
        raise ContractViolation(table, failures, result)
    return result


def _schema_clauses() -> list[tuple[Clause, float | None, float | None]]:
    return [(Clause(rule, (), f"schema.{rule}", high=0), None, 0) for rule in SCHEMA_RULES]


def _has_something_to_say(clause: Clause, profile: Mapping[str, Figure], is_schema_broken: bool) -> bool:
    """Whether the clause's figure has a value.

    A figure of None (the least of no values) leaves nothing to assert. A figure that is not there at all
    is an error of ours and must surface as such, unless the column could not be read to begin with.
    """
    if clause.figure in profile:
        return profile[clause.figure] is not None
    return not is_schema_broken


def _broken(settled: Settled, held: list[bool]) -> Settled:
    is_schema = set(SCHEMA_RULES)
    # The schema check itself has described its failures, with more to say than a count.
    return [
        entry
        for entry, holds in zip(settled, held, strict=True)
        if not holds and entry[0].rule not in is_schema
    ]


def _failures(path: Path, table: str, profile: Mapping[str, Figure], broken: Settled) -> list[Failure]:
    failures = []
    for clause, low, high in broken:
        num_rows: int | None = None
        sample: tuple[Mapping[str, Any], ...] = ()
        if clause.offending is not None:
            predicate = clause.offending(path, table, low, high)
            num_rows, sample = find_offenders(path, table, predicate)
        failures.append(
            Failure(
                clause.column,
                clause.rule,
                f"{clause.figure} = {profile[clause.figure]}",
                "none" if clause.counted is not None else _expected(low, high),
                num_rows,
                sample,
            )
        )
    return failures


def _expected(low: float | None, high: float | None) -> str:
    if low == high:
        return str(low)
    parts = ([f"at least {low}"] if low is not None else []) + (
        [f"at most {high}"] if high is not None else []
    )
    return " and ".join(parts)
