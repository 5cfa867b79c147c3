"""JSON objects that carry a checksum: how the small files and objects of a store are written."""

import json
from typing import Any

from tasks.artifact import canonical_json, hash_json

MAX_BYTES = 16 << 20
"""Of a sealed object; larger ones are not ours, unless whoever reads them says so."""


def seal(body: Any) -> bytes:
    """A JSON value with its checksum.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    return canonical_json({"body": body, "checksum": hash_json(body)}) + b"\n"


def unseal(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """The JSON value that was sealed.

    Raises:
        ValueError: these are not the bytes that `seal` has given, or more than may be.
    """
    if len(data) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes")
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or set(document) != {"body", "checksum"}:
            raise ValueError("not of the expected form")
        if data != canonical_json(document) + b"\n" or hash_json(document["body"]) != document["checksum"]:
            raise ValueError("its checksum does not match")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document["body"]
