"""The S3 API as `Remote`, against moto; the fake of the other tests keeps the same promises."""

import io
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks import remote_s3
from tasks.errors import ArtifactCorrupted, StoreUnusable
from tasks.remote import Publication, Remote, RemoteUnreachable, TransferCorrupted
from tasks.remote_publications import Publications
from tasks.remote_s3 import S3Remote
from tasks.sealed import MAX_BYTES
from tasks.store import Store
from tests.fake_bucket import FakeBucket
from tests.moto_bucket import BUCKET, WITHOUT_CREDENTIALS, MotoServer, file_of, moto_server
from tests.tiny_runs import key_of, publish

ADDRESS = f"s3://{BUCKET}/pre/fix"
CANARY = "canary5b1d2e"


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with moto_server() as started:
        yield started


@pytest.fixture
def moto(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    server.reset()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["s3", "fake"])
def remote(request: pytest.FixtureRequest, moto: MotoServer) -> Remote:
    return S3Remote(ADDRESS) if request.param == "s3" else FakeBucket(ADDRESS)


def test_small_objects_are_written_read_listed_and_deleted(remote: Remote) -> None:
    assert remote.read("a/one.json") is None
    before = time.time() - 2
    for name in ("a/one.json", "a/two.json", "b"):
        remote.put(name, name.encode())
    stored = remote.read("a/one.json")
    assert stored is not None
    assert stored.data == b"a/one.json"
    assert before <= stored.modified <= time.time() + 1
    listed = list(remote.list("a/"))
    assert [(found.name, found.num_bytes) for found in listed] == [("a/one.json", 10), ("a/two.json", 10)]
    assert listed[0].tag == stored.tag != listed[1].tag
    assert [found.name for found in remote.list("")] == ["a/one.json", "a/two.json", "b"]
    remote.delete(["a/one.json", "absent", "b"])
    remote.delete([])
    assert [found.name for found in remote.list("")] == ["a/two.json"]


def test_a_reading_is_cut_beyond_what_is_ours(remote: Remote) -> None:
    remote.put("x", bytes(MAX_BYTES + 9))
    stored = remote.read("x")
    assert stored is not None and len(stored.data) == MAX_BYTES + 1


def test_only_the_first_writes_where_there_is_nothing(remote: Remote) -> None:
    assert remote.put_if_absent("x", b"first")
    assert not remote.put_if_absent("x", b"second")
    stored = remote.read("x")
    assert stored is not None and stored.data == b"first"


def test_only_what_is_unchanged_is_written_over(remote: Remote) -> None:
    remote.put("x", b"first")
    stored = remote.read("x")
    assert stored is not None
    assert remote.put_if_unchanged("x", b"second", stored.tag)
    assert not remote.put_if_unchanged("x", b"third", stored.tag)
    assert not remote.put_if_unchanged("absent", b"third", stored.tag)
    assert b"".join(remote.stream("x")) == b"second"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_files_are_uploaded_and_streamed(remote: Remote, tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    remote.upload(file_of(tmp_path / "file", content[:size]), "data/x y/ü.bin")
    assert b"".join(remote.stream("data/x y/ü.bin")) == content[:size]
    with pytest.raises(FileNotFoundError):
        list(remote.stream("absent"))
    with pytest.raises(FileNotFoundError):
        remote.upload(tmp_path / "absent", "y")


def test_of_many_that_write_at_once_one_does(remote: Remote) -> None:
    barrier, told = threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        told.append(remote.put_if_absent("x", b"%d" % number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 7 + [True]


def test_objects_lie_below_the_prefix_and_nothing_else_is_seen(moto: MotoServer) -> None:
    moto.client.put_object(Bucket=BUCKET, Key="pre/fixture", Body=b"x")
    remote = S3Remote(ADDRESS)
    remote.put("a", b"x")
    assert moto.names() == ["pre/fix/a", "pre/fixture"]
    assert [found.name for found in remote.list("")] == ["a"]
    S3Remote(f"s3://{BUCKET}").put("b", b"x")
    assert "b" in moto.names()


def test_a_large_file_goes_in_parts_and_what_was_begun_can_be_given_up(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_s3, "_PART_BYTES", 5 << 20)
    remote, content = S3Remote(ADDRESS), b"0123456789abcdef" * (11 << 16)
    remote.upload(file_of(tmp_path / "file", content), "large")
    assert len([r for r in moto.requests if r[0] == "PUT"]) == 3
    assert b"".join(remote.stream("large")) == content
    begun = moto.client.create_multipart_upload(Bucket=BUCKET, Key="pre/fix/begun")
    moto.client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere")
    moto.client.upload_part(
        Bucket=BUCKET, Key="pre/fix/begun", UploadId=begun["UploadId"], PartNumber=1, Body=b"x"
    )
    assert remote.abort_uploads(0.0) == 0, "moto says of each that it was begun in 2010"
    assert remote.abort_uploads(time.time() + 60) == 1
    assert [found["Key"] for found in moto.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [
        "elsewhere"
    ]


@pytest.mark.slow
def test_more_objects_than_a_page_are_listed_and_deleted(moto: MotoServer) -> None:
    remote = S3Remote(ADDRESS)
    for number in range(1003):
        moto.client.put_object(Bucket=BUCKET, Key=f"pre/fix/many/{number:04d}", Body=b"")
    names = [found.name for found in remote.list("many/")]
    assert len(names) == 1003
    remote.delete(names)
    assert list(remote.list("many/")) == []


@pytest.mark.fault
def test_a_stream_that_breaks_off_goes_on_where_it_was(moto: MotoServer, tmp_path: Path) -> None:
    content = b"0123456789abcdef" * (3 << 16)
    remote = S3Remote(ADDRESS)
    remote.upload(file_of(tmp_path / "file", content), "x")
    faults = iter(["cut", "cut"])
    moto.fault = lambda method, path: next(faults, None) if method == "GET" else None
    moto.requests.clear()
    assert b"".join(remote.stream("x")) == content
    assert len(moto.requests) == 3
    moto.fault = lambda method, path: "cut"
    with pytest.raises(RemoteUnreachable):
        list(remote.stream("x"))
    faults = iter(["cut"])
    moto.fault = lambda method, path: next(faults, None)
    stored = remote.read("x")
    assert stored is not None and stored.data == content


class Mangled:
    """A client whose answers carry the checksum of other bytes, so many times."""

    def __init__(self, content: bytes, times: int) -> None:
        self.content, self.times, self.num_answers = content, times, 0

    def get_object(self, **asked: str) -> dict[str, Any]:
        from botocore.httpchecksum import Crc32Checksum, StreamingChecksumBody

        self.num_answers += 1
        sent = b"?" + self.content[1:] if self.num_answers <= self.times else self.content
        checksum = Crc32Checksum()
        checksum.update(self.content)
        body = StreamingChecksumBody(io.BytesIO(sent), len(sent), Crc32Checksum(), checksum.b64digest())
        return {"Body": body, "ETag": "x", "LastModified": datetime.now(UTC)}


@pytest.fixture
def mangled(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, int], Mangled]:
    """Has the next `S3Remote` use such a client."""

    def use(content: bytes, times: int) -> Mangled:
        client = Mangled(content, times)
        monkeypatch.setattr(remote_s3, "_client", lambda address: client)
        return client

    return use


@pytest.mark.fault
def test_bytes_that_are_mangled_on_the_way_are_fetched_again_and_in_the_end_are_damage(
    mangled: Callable[[bytes, int], Mangled], tmp_path: Path
) -> None:
    store, content = Store(tmp_path / "store"), b"0123456789"
    manifest = publish(store, "ingest", key_of("x"), {"graph/x": content})
    publication = Publication(attempt="20260101T000000Z-0123456789ab", manifest=manifest)
    client = mangled(content, 2)
    Publications(S3Remote(ADDRESS)).fetch(publication, tmp_path / "fetched")
    assert client.num_answers == 3
    assert (tmp_path / "fetched" / "graph" / "x").read_bytes() == content
    client = mangled(content, 99)
    with pytest.raises(TransferCorrupted):
        list(S3Remote(ADDRESS).stream("x"))
    with pytest.raises(ArtifactCorrupted, match="does not hold the bytes"):
        Publications(S3Remote(ADDRESS)).fetch(publication, None)
    assert client.num_answers < 10


@pytest.mark.fault
def test_small_objects_that_are_mangled_on_the_way_are_read_again_and_then_as_they_are(
    mangled: Callable[[bytes, int], Mangled],
) -> None:
    """Whoever reads them has the checksum inside to go by."""
    client = mangled(b"{}", 2)
    stored = S3Remote(ADDRESS).read("x")
    assert stored is not None and stored.data == b"{}" and client.num_answers == 3
    client = mangled(b"{}", 99)
    stored = S3Remote(ADDRESS).read("x")
    assert stored is not None and stored.data == b"?}" and client.num_answers == remote_s3.MAX_TRIES


@pytest.mark.fault
def test_a_service_that_is_busy_is_asked_again(moto: MotoServer) -> None:
    remote = S3Remote(ADDRESS)
    faults = iter(["slow", "slow"])
    moto.fault = lambda method, path: next(faults, None)
    assert remote.put_if_absent("x", b"1")
    moto.requests.clear()
    moto.fault = lambda method, path: "slow"
    with pytest.raises(RemoteUnreachable, match="SlowDown after 4 tries") as caught:
        remote.read("x")
    assert len(moto.requests) == remote_s3.MAX_TRIES, "tries are bounded"
    assert "\n" not in str(caught.value)


@pytest.mark.fault
def test_a_write_whose_answer_is_lost_is_sent_again_and_refused(moto: MotoServer) -> None:
    """What the store has to tell apart from a race that is lost."""
    remote = S3Remote(ADDRESS)
    faults = iter(["lost"])
    moto.fault = lambda method, path: next(faults, None)
    assert not remote.put_if_absent("x", b"ours")
    stored = remote.read("x")
    assert stored is not None and stored.data == b"ours"


@pytest.mark.fault
def test_a_service_that_is_down_is_told_in_one_line_and_bounded_time(
    monkeypatch: pytest.MonkeyPatch, moto: MotoServer
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://name:{CANARY}@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(RemoteUnreachable, match=r"s3://results/pre/fix cannot be reached") as caught:
        S3Remote(ADDRESS).read("x")
    assert time.monotonic() - started < 30
    assert "the same command goes on" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_told(moto: MotoServer, tmp_path: Path) -> None:
    remote = S3Remote("s3://absent/x")
    calls = (
        lambda: remote.read("x"),
        lambda: remote.put("x", b""),
        lambda: remote.put_if_absent("x", b""),
        lambda: list(remote.list("")),
        lambda: remote.delete(["x"]),
        lambda: remote.upload(file_of(tmp_path / "file", b"x"), "x"),
    )
    for call in calls:
        with pytest.raises(StoreUnusable, match="there is no bucket absent"):
            call()


def test_missing_credentials_are_told(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in WITHOUT_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnusable, match="no credentials; set AWS_ACCESS_KEY_ID"):
        S3Remote(ADDRESS).read("x")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreUnusable, match="nobody"):
        S3Remote(ADDRESS)


def test_credentials_that_are_refused_are_told(moto: MotoServer, tmp_path: Path) -> None:
    moto.fault = lambda method, path: "denied"
    remote = S3Remote(ADDRESS)
    file = file_of(tmp_path / "file", b"x")
    for call in (lambda: remote.read("x"), lambda: remote.put("x", b""), lambda: remote.upload(file, "x")):
        with pytest.raises(StoreUnusable, match=r"not accepted \(AccessDenied\); .* ListBucket, GetObject"):
            call()


def test_the_missing_extra_is_told(tmp_path: Path) -> None:
    """With boto3 made unimportable, in a process of its own."""
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from flows.cli import main\n"
        "sys.argv = ['gclflow', 'store', 'ls', '--store', 's3://results/x']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gclflow: store s3://results/x needs the extra s3, which is not installed: pip install 'gclflow[s3]'"
    ]


def test_debugging_shows_no_credentials(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"{name}-{CANARY}")
    with caplog.at_level(logging.DEBUG):
        S3Remote(ADDRESS).put("x", b"")
    assert CANARY not in caplog.text
