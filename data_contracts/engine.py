"""The one place where Great Expectations runs: one ephemeral context a process, offline and silent."""

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from data_contracts.clauses import Clause
from data_contracts.errors import ContractNotEvaluated
from data_contracts.spectrum import Figure
from data_contracts.suites import build_suite

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition

Settled = Sequence[tuple[Clause, float | None, float | None]]

# A batch belongs to the shared context under a fixed name: two threads would see each other's.
_ONE_AT_A_TIME = threading.Lock()


@cache
def _batch_definition() -> "BatchDefinition[Any]":
    # Releases that report their use read this once, when they are imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("profiles")
    return source.add_dataframe_asset("profile").add_batch_definition_whole_dataframe("one_row")


def evaluate(
    table: str, profile: Mapping[str, Figure], settled: Settled
) -> tuple[list[bool], dict[str, Any], dict[str, Any]]:
    """Run the suite of `settled` clauses over the profile.

    Returns:
        For each clause whether it holds; the suite and the validation result, as JSON types.

    Raises:
        ContractNotEvaluated: Great Expectations could not compute a clause. It reports that as a failed
            expectation, which would otherwise read as a statement about the data.
    """
    import pandas as pd

    try:
        with _ONE_AT_A_TIME:
            batch = _batch_definition().get_batch({"dataframe": pd.DataFrame([dict(profile)])})
            suite = build_suite(table, settled)
            validated: Any = batch.validate(suite)
            outcome: dict[str, Any] = validated.to_json_dict()
            suite_json = suite.to_json_dict()
    except Exception as error:
        # Whatever it raises, the data were not judged; the caller must not take that for a pass.
        raise ContractNotEvaluated(table, "suite", f"{type(error).__name__}: {error}") from error
    held: dict[int, bool] = {}
    for result in outcome["results"]:
        meta = result["expectation_config"]["meta"]
        _refuse_internal_error(table, meta["rule"], result.get("exception_info") or {})
        held[meta["clause"]] = result["success"] is True
    if len(held) != len(settled):
        raise ContractNotEvaluated(table, "suite", f"{len(held)} of {len(settled)} clauses came back")
    return [held[position] for position in range(len(settled))], suite_json, outcome


def _refuse_internal_error(table: str, rule: str, info: Mapping[str, Any]) -> None:
    """`info` describes one exception, or maps metrics to descriptions of theirs."""
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.get("raised_exception", True):
            message = entry.get("exception_message") if isinstance(entry, Mapping) else entry
            raise ContractNotEvaluated(table, rule, str(message))
