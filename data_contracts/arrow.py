"""The few things about Arrow lists that every other module needs, with types the checker can follow."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    Array: TypeAlias = pa.Array[Any]
    Field: TypeAlias = pa.Field[Any]
else:
    Array = pa.Array
    Field = pa.Field


def is_list(type_: pa.DataType) -> bool:
    """Whether the type is a list, of fixed size or not."""
    return bool(pa.types.is_fixed_size_list(type_) or pa.types.is_list(type_))


def item_type(type_: pa.DataType) -> pa.DataType:
    """The type of a list's items; of a plain type, itself."""
    item: pa.DataType = getattr(type_, "value_type", type_) if is_list(type_) else type_
    return item


def leaves(array: Array) -> tuple[Array, npt.NDArray[np.int64] | None]:
    """The items of a list column in one array, and how many each row has; None for a plain column.

    A null list has no items, whatever lies in its slots.
    """
    if not is_list(array.type):
        return array, None
    lists: Any = array
    lengths = pc.fill_null(pc.cast(pc.list_value_length(lists), pa.int64()), 0)
    return lists.flatten(), lengths.to_numpy(zero_copy_only=False)
