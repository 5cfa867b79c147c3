"""How Prefect's cache is tied to the store: our key, JSON records, verification on every hit.

A record holds artifact handles only. Prefect asks a record whether it exists by deserialising it and
takes any exception for no, so a serializer that verifies the artifacts turns a deleted file, a flipped
bit or a junk record into a miss of just that stage.
"""

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.serializers import Serializer

from tasks.artifact import Manifest
from tasks.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lookup:
    """What is being looked up: the stage folder a record must speak of, and where it lies."""

    store: Store
    stage: str
    key: str


_TYPE = "gclflow-artifacts"
current_lookup: ContextVar[Lookup] = ContextVar("current_lookup")


class KeyPolicy(CachePolicy):
    """Takes the key that the stage has computed and passed as a parameter.

    It is computed before the task starts because Prefect logs an error in a policy and goes on uncached.
    """

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The cache key of the stage request."""
        request = inputs["request"]
        return f"{request.stage}-{request.key}"


class VerifyingSerializer(Serializer):  # a subscript breaks its registry
    """Writes which stage folder a result is; reading it back verifies that folder in the current store."""

    type: str = _TYPE

    def dumps(self, obj: Manifest) -> bytes:
        """The stage and key of a manifest, as JSON."""
        return json.dumps({"stage": obj.stage, "key": obj.key}).encode()

    def loads(self, blob: bytes) -> Manifest:
        """The verified manifest.

        Raises:
            LookupError: the record is another's, or the folder is absent or was damaged: to Prefect, a miss.
        """
        lookup = current_lookup.get()
        if json.loads(blob) != {"stage": lookup.stage, "key": lookup.key}:
            raise LookupError(f"the record of {lookup.stage} under {lookup.key} speaks of something else")
        manifest = lookup.store.find(lookup.stage, lookup.key)
        if manifest is None:
            raise LookupError(f"no intact artifact of stage {lookup.stage} under key {lookup.key}")
        return manifest


def drop_foreign_record(path: Path) -> None:
    """Remove a record that was not written here, before Prefect looks at it.

    Prefect reads a record with the serializer that the record itself names, and some of them execute what
    they read. Without a record the store still knows its artifacts; nothing is lost.

    Args:
        path: where the record lies, or would lie.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError:
        content = b""
    if not _is_ours(content):
        logger.warning("the record %s is not ours and was removed", path.name)
        path.unlink(missing_ok=True)


def _is_ours(content: bytes) -> bool:
    """Whether a record has our serializer and no field beyond what Prefect writes today, each once."""
    try:
        document = json.loads(content)
        has_fields = set(document) == {"metadata", "result"}
        is_canonical = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() == content
        return has_fields and is_canonical and document["metadata"]["serializer"] == {"type": _TYPE}
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
