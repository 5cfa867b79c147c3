import pyarrow as pa
import pytest

from data_contracts import TABLES, columns, table_named
from data_contracts.columns import Column
from data_contracts.tables import CONTRACT_KEY, VERSION_KEY


def test_schema_names_its_contract_and_keeps_user_metadata() -> None:
    schema = TABLES["graph.nodes"].schema(metadata={"num_nodes": "4"})
    assert schema.metadata[CONTRACT_KEY.encode()] == b"graph.nodes"
    assert schema.metadata[VERSION_KEY.encode()] == b"1.0"
    assert schema.metadata[b"num_nodes"] == b"4"


def test_user_metadata_cannot_replace_the_contract() -> None:
    schema = TABLES["graph.nodes"].schema(metadata={CONTRACT_KEY: "mine"})
    assert schema.metadata[CONTRACT_KEY.encode()] == b"graph.nodes"


def test_features_have_two_layouts() -> None:
    table = TABLES["graph.features"]
    assert table.schema(width=5).names == ["x"]
    assert table.schema(layout="sparse").names == ["indices", "values"]
    with pytest.raises(ValueError, match="dense, sparse"):
        table.schema(layout="csr")


def test_optional_column_keeps_its_place() -> None:
    assert TABLES["graph.edges"].schema(extra_columns=("weight",)).names == ["src", "dst", "weight"]
    assert TABLES["graph.nodes"].schema(extra_columns=("graph",)).names == ["graph", "node", "node_id"]


def test_unknown_optional_column_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="weight"):
        TABLES["graph.edges"].schema(extra_columns=("wieght",))


def test_extra_columns_travel_with_the_schema() -> None:
    extra = Column("year", pa.int32(), nullable=True, unit="year", meaning="of publication")
    schema = TABLES["graph.nodes"].schema(extra_columns=(extra,))
    assert TABLES["graph.nodes"].expected_columns(schema)[-1] == extra


def test_extra_column_of_another_type_is_refused() -> None:
    extra = Column("tags", pa.list_(pa.string()), nullable=True, unit="none", meaning="tags")
    with pytest.raises(ValueError, match="must be one of"):
        TABLES["graph.nodes"].schema(extra_columns=(extra,))


def test_history_takes_any_loss_term() -> None:
    schema = TABLES["model.history"].schema(extra_columns=("loss", "align"))
    assert schema.field("align").type == pa.float64()
    assert TABLES["model.history"].expected_columns(schema)[-1] == columns.loss_term("align")


def test_unreadable_extra_declaration_declares_nothing() -> None:
    schema = TABLES["graph.nodes"].schema().with_metadata({b"gclflow.extra_columns": b"[{}]"})
    assert len(TABLES["graph.nodes"].expected_columns(schema)) == 2


def test_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"graph\.nodes"):
        table_named("graph.vertices")
