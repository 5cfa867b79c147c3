import pyarrow as pa
import pytest

from data_contracts import columns as c


def test_vector_field_has_width_and_is_required() -> None:
    field = c.X.field(width=3, node_id_type=pa.int64())
    assert field == pa.field("x", pa.list_(pa.float32(), 3), nullable=False)


@pytest.mark.parametrize("width", [None, 0, -1])
def test_vector_field_without_width_is_refused(width: int | None) -> None:
    with pytest.raises(ValueError, match="width"):
        c.X.field(width=width, node_id_type=pa.int64())


def test_node_id_may_be_integer_or_text_only() -> None:
    assert c.NODE_ID.field(width=None, node_id_type=pa.string()).type == pa.string()
    with pytest.raises(ValueError, match="int64 or string"):
        c.NODE_ID.field(width=None, node_id_type=pa.float64())


def test_list_items_may_have_any_name() -> None:
    renamed = pa.list_(pa.field("element", pa.int32()))
    assert c.INDICES.accepts(renamed)
    assert not c.INDICES.accepts(pa.list_(pa.int64()))
    assert not c.X.accepts(pa.list_(pa.float32()))


def test_every_column_says_what_it_means() -> None:
    columns = [value for value in vars(c).values() if isinstance(value, c.Column)]
    assert len(columns) > 30
    assert all(column.unit and column.meaning for column in columns)
