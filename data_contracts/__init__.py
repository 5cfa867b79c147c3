"""Data contracts: what every table must be, checked by Great Expectations on streamed profiles."""

from data_contracts.errors import (
    ContractIncompatible,
    ContractNotEvaluated,
    ContractViolation,
    Failure,
    TableUnreadable,
)
from data_contracts.tables import TABLES, Table, table_named
from data_contracts.validate import ContractResult, check_table, require_contract

__all__ = [
    "TABLES",
    "ContractIncompatible",
    "ContractNotEvaluated",
    "ContractResult",
    "ContractViolation",
    "Failure",
    "Table",
    "TableUnreadable",
    "check_table",
    "require_contract",
    "table_named",
]
