"""Buckets: `Remote` on the S3 API, of Amazon or of any service that speaks it.

Credentials, region and endpoint are found as every AWS tool finds them, in the environment or the AWS
configuration; nothing here reads, keeps or writes them. Publishing needs conditional writes
(`If-None-Match: *`, `If-Match`) and reads that see every write before them.
"""

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_contracts.errors import one_line
from tasks.errors import StoreUnusable
from tasks.remote import Listed, RemoteUnreachable, Stored, TransferCorrupted
from tasks.sealed import MAX_BYTES

CONNECT_SECONDS, READ_SECONDS = 5, 60
MAX_TRIES = 4
_CHUNK_BYTES = 1 << 20
_PART_BYTES = 64 << 20
_DELETED_AT_ONCE = 1000  # the most that the API takes
_BUSY_SECONDS = 0.2
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412"}
_BUSY = {"ConditionalRequestConflict", "OperationAborted", "409"}
_PASSING = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "503", "500"}
_RIGHTS = "ListBucket, GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListBucketMultipartUploads"


class S3Remote:
    """The objects of a bucket below a prefix.

    Args:
        address: ``s3://BUCKET/PREFIX``, checked.

    Raises:
        StoreUnusable: boto3 is not installed, or the AWS configuration cannot be used.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client(address)

    def list(self, prefix: str) -> Iterator[Listed]:
        """See `Remote`."""
        with self._told():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", ()):
                    yield Listed(
                        name=found["Key"].removeprefix(self._prefix),
                        num_bytes=found["Size"],
                        modified=found["LastModified"].timestamp(),
                        tag=found["ETag"],
                    )

    def read(self, name: str) -> Stored | None:
        """See `Remote`."""
        for num_left in reversed(range(MAX_TRIES)):
            with self._told():
                found = self._get(name)
                if found is None:
                    return None
                try:
                    data, is_mangled = _read(found["Body"])
                except _broken_off():
                    if not num_left:
                        raise
                    continue
                if not is_mangled or not num_left:
                    return Stored(data, found["LastModified"].timestamp(), found["ETag"])
        return None

    def stream(self, name: str) -> Iterator[bytes]:
        """See `Remote`. A stream that breaks off goes on where it was."""
        from botocore.exceptions import FlexibleChecksumError

        offset, tag, num_failures = 0, "", 0
        while True:
            with self._told():
                found = self._get(name, **({"Range": f"bytes={offset}-", "IfMatch": tag} if offset else {}))
                if found is None:
                    raise FileNotFoundError(name)
                tag, body = found["ETag"], found["Body"]
                try:
                    while chunk := body.read(_CHUNK_BYTES):
                        offset += len(chunk)
                        yield chunk
                except FlexibleChecksumError:  # told at the end: what was given away must be fetched anew
                    raise TransferCorrupted(name) from None
                except _broken_off():
                    num_failures += 1
                    if num_failures == MAX_TRIES:
                        raise
                    continue
                return

    def upload(self, path: Path, name: str) -> None:
        """See `Remote`."""
        from boto3.s3.transfer import TransferConfig

        # Large files go in parts, streamed from the disk; several files at once are the caller's business.
        config = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, use_threads=False
        )
        with self._told():
            self._client.upload_file(str(path), self._bucket, self._prefix + name, Config=config)

    def put(self, name: str, data: bytes) -> None:
        """See `Remote`."""
        self._put(name, data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See `Remote`."""
        return self._put(name, data, IfNoneMatch="*")

    def put_if_unchanged(self, name: str, data: bytes, tag: str) -> bool:
        """See `Remote`."""
        return self._put(name, data, IfMatch=tag)

    def delete(self, names: Iterable[str]) -> None:
        """See `Remote`."""
        wanted = [{"Key": self._prefix + name} for name in names]
        with self._told():
            for start in range(0, len(wanted), _DELETED_AT_ONCE):
                some = {"Objects": wanted[start : start + _DELETED_AT_ONCE], "Quiet": True}
                refused = self._client.delete_objects(Bucket=self._bucket, Delete=some).get("Errors", ())
                for first in refused:
                    reason = f"{first.get('Key')} cannot be deleted ({first.get('Code')})"
                    raise StoreUnusable(f"store {self.address}: {one_line(reason)}; it takes {_RIGHTS}")

    def abort_uploads(self, before: float) -> int:
        """See `Remote`."""
        num_aborted = 0
        with self._told():
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Uploads", ()):
                    if found["Initiated"].timestamp() < before:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=found["Key"], UploadId=found["UploadId"]
                        )
                        num_aborted += 1
        return num_aborted

    def _get(self, name: str, **options: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            found: dict[str, Any] = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + name, **options
            )
        except ClientError as error:
            if _code(error) in _ABSENT | _CHANGED:  # changed: others have replaced what was being streamed
                return None
            raise
        return found

    def _put(self, name: str, data: bytes, **condition: str) -> bool:
        """Write, if the condition holds; says whether it did."""
        from botocore.exceptions import ClientError

        with self._told():
            for _ in range(MAX_TRIES):
                try:
                    self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + name, Body=data, **condition
                    )
                except ClientError as error:
                    if condition and _code(error) in _CHANGED | (
                        _ABSENT if "IfMatch" in condition else set()
                    ):
                        return False
                    if not condition or _code(error) not in _BUSY:
                        raise
                    time.sleep(_BUSY_SECONDS)  # somebody else is writing it at this moment
                else:
                    return True
        return False

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the library's errors into ours, each in one line that says what to do."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # of a file of ours
            inner = error.__context__ if isinstance(error, Boto3Error) else error
            raise _told_as(self.address, self._bucket, inner or error) from None


def _client(address: str) -> Any:
    """A client of the bucket's service, with bounds on time and tries."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise StoreUnusable(
            f"store {address} needs the extra s3, which is not installed: pip install 'gclflow[s3]'"
        ) from None
    for library in ("boto3", "botocore", "s3transfer"):
        # What they say while debugging holds the headers of requests, session tokens among them.
        logging.getLogger(library).setLevel(logging.WARNING)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": MAX_TRIES},
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreUnusable(
            f"store {address}: the AWS configuration cannot be used: {_plain(error)}"
        ) from None


def _read(body: Any) -> tuple[bytes, bool]:
    """A body, cut beyond the largest that is ours, and whether it is not what was sent.

    It is read up to its end, since only that tells that it is whole.
    """
    from botocore.exceptions import FlexibleChecksumError

    data, is_mangled = b"", False
    try:
        while len(data) <= MAX_BYTES and (chunk := body.read(MAX_BYTES + 1 - len(data))):
            data += chunk
    except FlexibleChecksumError:
        is_mangled = True
    body.close()
    return data, is_mangled


def _broken_off() -> tuple[type[Exception], ...]:
    """What reading a body raises where the connection is lost."""
    from botocore import exceptions

    return (
        exceptions.ReadTimeoutError,
        exceptions.ResponseStreamingError,
        exceptions.IncompleteReadError,
        ConnectionError,
        TimeoutError,
    )


def _told_as(address: str, bucket: str, error: BaseException) -> Exception:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _refusal(address, bucket, error)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return StoreUnusable(
            f"store {address}: there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    unreachable = (exceptions.HTTPClientError, exceptions.ConnectionError, *_broken_off())
    if isinstance(error, unreachable):
        return RemoteUnreachable(
            f"store {address} cannot be reached: {_plain(error)}; what is finished is safe, and the same "
            "command goes on from there"
        )
    return StoreUnusable(f"store {address}: {_plain(error)}")


def _refusal(address: str, bucket: str, error: Any) -> Exception:
    """What an answer that is an error means to whoever started the run."""
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return StoreUnusable(
            f"store {address}: there is no bucket {bucket}; make it first, or correct --store"
        )
    if code in _PASSING or status >= 500 and code != "NotImplemented":
        return RemoteUnreachable(
            f"store {address} answers {one_line(code)} after {MAX_TRIES} tries; what is finished is safe, "
            "and the same command goes on from there"
        )
    if code in (
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "301",
        "IllegalLocationConstraintException",
    ):
        return StoreUnusable(f"store {address}: the bucket lies in another region; set AWS_REGION")
    if status in (400, 401, 403):
        return StoreUnusable(
            f"store {address}: the credentials are not accepted ({one_line(code)}); they must be valid and "
            f"allow {_RIGHTS}"
        )
    return StoreUnusable(f"store {address}: {_plain(error)}")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _plain(error: BaseException) -> str:
    """What an error says, on one line, without the user and password that an address may hold."""
    return re.sub(r"//[^/@\s]*@", "//", one_line(error))
