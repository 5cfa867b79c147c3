"""What gclflow tells Prefect's event feed, for automations and notices; telling never fails a run.

Names begin with `gclflow.`, resources are ``gclflow.series.NAME``, ``gclflow.dataset.NAME`` or
``gclflow.table.NAME``; Prefect adds the flow run an event belongs to. Text in payloads may come from data: it
is cut to a length and freed of control characters. What shows or forwards it must escape it all the same.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.errors import ContractViolation, one_line
from gcl.errors import InvalidGraph

logger = logging.getLogger(__name__)

CONTRACT_VIOLATED = "gclflow.contract.violated"
RUN_REGRESSED = "gclflow.run.regressed"
RUN_FINISHED = "gclflow.run.finished"
_MAX_TEXT, _MAX_ITEMS, _MAX_DEPTH = 500, 50, 5
_MAX_NAME = 100


def resource(kind: str, name: str) -> dict[str, str]:
    """A resource of ours: its id, free of whatever an id must not hold, and its name."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:_MAX_NAME] or "_"
    return {
        "prefect.resource.id": f"gclflow.{kind}.{plain}",
        "prefect.resource.name": one_line(name)[:_MAX_NAME],
    }


def emit(event: str, about: Mapping[str, str], payload: Mapping[str, Any]) -> None:
    """Send an event about a resource; the name of the current flow run is added to the payload as ``run``.

    Args:
        event: its name, ``gclflow.run.finished``.
        about: as `resource` makes it.
        payload: JSON types; what is too long, too deep or too many is cut.
    """
    try:
        from prefect.events import emit_event
        from prefect.runtime import flow_run

        name = {"run": flow_run.name} if flow_run.id else {}
        emit_event(event=event, resource=dict(about), payload=_bounded({**name, **payload}))
    except Exception:  # the run's results matter more than its news
        logger.warning("event %s was not sent", event, exc_info=True)


def contract_violated(stage: str, error: ContractViolation | InvalidGraph) -> None:
    """Tell that a stage's data break their contract: table, rules, how many rows."""
    emit(
        CONTRACT_VIOLATED,
        resource("table", error.table),
        {"stage": stage, "table": error.table, "reason": str(error), "rules": broken_rules(error)},
    )


def broken_rules(error: ContractViolation | InvalidGraph) -> list[dict[str, Any]]:
    """The rules that do not hold: rule, column, what was found and asked for, count and first of the rows."""
    if isinstance(error, InvalidGraph):
        return [
            {
                "rule": error.rule,
                "column": error.column,
                "observed": f"{error.num_rows} rows",
                "expected": "none",
                "num_rows": error.num_rows,
                "sample": list(error.sample),
            }
        ]
    return [failure.as_dict() for failure in error.failures]


def _bounded(value: Any, depth: int = 0) -> Any:
    """JSON types of a limited size, text on one line."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        items = list(value.items())[:_MAX_ITEMS]
        return {one_line(key)[:_MAX_NAME]: _bounded(item, depth + 1) for key, item in items}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and depth < _MAX_DEPTH:
        return [_bounded(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return one_line(value)[:_MAX_TEXT]
