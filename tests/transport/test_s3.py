"""Streams in an S3 store, moto's: read, written, refused, changed, and kept in a catalogue."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="s3fs is not installed (the extra remote)")
pytest.importorskip("moto.server", reason="moto is not installed (the extra test-remote)")

from blkmig_cli import limits
from tests.conftest import CAPTURES, Run, fails
from tests.output.test_ci_formats import WHOLE
from tests.project.test_memory import make_huge
from tests.support.http import running
from tests.support.s3 import PATIENCE, Handler, Proxy, moto

BLKMIG = [sys.executable, "-m", "blkmig_cli"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    """A proxy before an S3 server."""
    import s3fs

    with moto() as port, running(Proxy(port)) as found:
        yield found
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The server, as environment for its clients; with an empty bucket ``bucket``."""
    import s3fs

    for key, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # of botocore itself, which waits in between
    }.items():
        monkeypatch.setenv(key, value)
    server.fault = None
    files = s3fs.S3FileSystem()
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    server.requests.clear()
    return server


@pytest.fixture
def files(store: Proxy) -> Any:
    """fsspec's view of the store."""
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk whose stream has three parts, of the least size that S3 allows."""
    monkeypatch.setattr("blkmig_cli.transport.upload._PART", 5 * MIB)
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(12 * MIB))
    return path


def uploads(files: Any) -> list[str]:
    """Return the uploads that are neither completed nor aborted."""
    return [
        one["Key"]
        for one in files.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", [])
    ]


def report(run: Run, *words: object) -> Any:
    (found,) = run("validate", *words, "--output", "json").json["streams"]
    return found


def test_a_stream_is_written(
    run: Run, store: Proxy, files: Any, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, to a new object and over an existing one; compressed by its name."""
    local = tmp_path / "local.bin"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    words = ["send", disk, "--id", "00000000-0000-4000-8000-000000000000", "-q"]
    assert run(*words, "--to", local).status == 0
    for url in ("s3://bucket/deep/a.bin", "s3://bucket/deep/a.bin", "s3://bucket/a.bin.zst"):
        outcome = run(*words, "--to", url)
        assert (outcome.status, outcome.err) == (0, "")
        assert run("compare", local, url).status == 0
    assert files.cat("bucket/deep/a.bin") == local.read_bytes()
    assert files.cat("bucket/a.bin.zst")[:4] == b"\x28\xb5\x2f\xfd"
    assert store.count("PUT /bucket/deep/a.bin?partNumber") == 2 * 3
    assert uploads(files) == []


def test_a_conversion_from_store_to_store(run: Run, files: Any, tmp_path: Path) -> None:
    packed = gzip.compress(WHOLE)
    files.pipe("bucket/a.bin.gz", packed)
    words = ["convert", "s3://bucket/a.bin.gz", "--dialect", "v2", "--to"]
    assert run(*words, "s3://bucket/b.bin").status == 0
    assert run("compare", "s3://bucket/a.bin.gz", "s3://bucket/b.bin").status == 0
    fails(run(*words, "s3://bucket/a.bin.gz"), 2, "are the same")
    assert files.cat("bucket/a.bin.gz") == packed


@pytest.mark.long
def test_parts_grow(run: Run, store: Proxy, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 takes 10,000 of them."""
    for name, value in {"_PART_MAX": 10 * MIB, "_PARTS": 1}.items():
        monkeypatch.setattr(f"blkmig_cli.transport.upload.{name}", value)
    os.truncate(disk, 30 * MIB)
    assert run("send", disk, "--no-zero-blocks", "--to", "s3://bucket/a").status == 0
    # 5 MiB, twice 10 MiB, and the rest.
    assert store.count("PUT /bucket/a?partNumber") == 4
    assert run("compare", "s3://bucket/a", disk).status == 0


# -- what fails while a stream is written


def from_part(number: int, fault: Callable[[Handler], None]) -> Callable[[Handler], bool]:
    """Return a fault of the store from a part of an upload on."""

    def answer(handler: Handler) -> bool:
        found = handler.command == "PUT" and f"partNumber={number}&" in handler.path
        if found:
            fault(handler)
        return found

    return answer


@pytest.mark.parametrize(
    "fault",
    [
        lambda handler: handler.refuse(500),
        pytest.param(lambda handler: handler.refuse(503), marks=pytest.mark.long),
        pytest.param(lambda handler: handler.hang_up(), marks=pytest.mark.long),
    ],
    ids=["500", "503", "hangs up"],
)
@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_store_that_fails(
    run: Run, store: Proxy, files: Any, disk: Path, fault: Callable[[Handler], None], part: int
) -> None:
    """One line, exit 4; the object is as it was, and nothing is left of the upload."""
    files.pipe("bucket/a", b"before")
    store.fault = from_part(part, fault)
    fails(run("send", disk, "--to", "s3://bucket/a", "-q"), 4, "s3://bucket/a: ")
    assert store.count(f"partNumber={part}&")
    assert files.cat("bucket/a") == b"before"
    assert uploads(files) == []


def test_a_store_that_fails_at_the_end(run: Run, store: Proxy, files: Any, disk: Path) -> None:
    def fault(handler: Handler) -> bool:
        completes = handler.command == "POST" and "uploadId" in handler.path
        if completes:
            handler.refuse(500)
        return completes

    store.fault = fault
    fails(run("send", disk, "--to", "s3://bucket/a", "-q"), 4, "s3://bucket/a: InternalError")
    assert not files.exists("bucket/a")
    assert uploads(files) == []


def test_parts_that_cannot_be_discarded(run: Run, store: Proxy, files: Any, disk: Path) -> None:
    def fault(handler: Handler) -> bool:
        fails = handler.command == "DELETE" or "partNumber=2&" in handler.path
        if fails:
            handler.refuse(500)
        return fails

    store.fault = fault
    outcome = run("send", disk, "--to", "s3://bucket/a", "-q")
    fails(outcome, 4, "InternalError: no; what was sent could not be discarded: InternalError: no")
    assert "hunter2" not in outcome.err
    store.fault = None
    assert uploads(files) == ["a"]


def test_a_store_that_does_not_answer(
    run: Run, store: Proxy, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for, but not for long."""
    monkeypatch.setattr(limits, "DISCARD_WAIT", 0.1)
    ended = threading.Event()

    def fault(handler: Handler) -> bool:
        if handler.command == "DELETE":
            assert ended.wait(PATIENCE)
        fails = "partNumber=2&" in handler.path
        if fails:
            handler.refuse(500)
        return fails

    store.fault = fault
    try:
        outcome = run("send", disk, "--to", "s3://bucket/a", "-q")
        fails(outcome, 4, "what was sent could not be discarded: the store does not answer")
    finally:
        ended.set()


def test_a_stream_that_breaks_off(run: Run, files: Any, tmp_path: Path) -> None:
    """What ends the making of a stream leaves no object."""
    lines = run("dump", CAPTURES / "classic-none.bin.gz", "--spec").out.splitlines()
    spec = tmp_path / "spec"
    spec.write_text("\n".join([*lines, "{"]))
    fails(run("build", spec, "--to", "s3://bucket/a"), 3, "not JSON")
    assert not files.exists("bucket/a")
    assert uploads(files) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interruption(store: Proxy, files: Any, disk: Path, number: signal.Signals) -> None:
    """The part that is being sent is waited for, then all is discarded."""
    reached, ended = threading.Event(), threading.Event()

    def fault(handler: Handler) -> bool:
        if "partNumber=2&" in handler.path:
            reached.set()
            assert ended.wait(PATIENCE)
        return False

    store.fault = fault
    disk.write_bytes(os.urandom(70 * MIB))
    words = [*BLKMIG, "send", str(disk), "--to", "s3://bucket/a", "-q"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert reached.wait(PATIENCE)
            process.send_signal(number)
        finally:
            ended.set()
        assert process.stderr is not None
        err = process.stderr.read()
        status = process.wait(PATIENCE)
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert (status, err) == (128 + number, f"blkmig: {word}\n")
    assert not files.exists("bucket/a")
    assert uploads(files) == []


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        ("s3://nobucket/a", 4, "NoSuchBucket"),
        ("s3://bucket/", 4, "s3://bucket/: is a directory"),
        ("s3://bucket", 4, "s3://bucket: "),
        ("http://127.0.0.1/a", 2, "streams cannot be written to such a URL"),
        ("nosuch://a/b", 2, "URLs of 'nosuch' are not supported"),
    ],
)
def test_no_target(
    run: Run, store: Proxy, tmp_path: Path, url: str, status: int, message: str
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    fails(run("send", image, "--to", url), status, message)


def test_no_credentials(run: Run, store: Proxy, tmp_path: Path, monkeypatch: Any) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    try:
        fails(run("send", image, "--to", "s3://bucket/a"), 4, "redentials")
        fails(run("validate", "s3://bucket/a"), 4, "redentials")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


# -- what fails while a stream is read


def refusing(status: int, *requests: int, **headers: str) -> Callable[[Handler], bool]:
    """Return a fault of the store: ``requests``, by their numbers, are refused; all if there are none."""

    def answer(handler: Handler) -> bool:
        refused = not requests or len(handler.server.requests) in requests
        if refused:
            handler.refuse(status, **headers)
        return refused

    return answer


@pytest.mark.long
@pytest.mark.parametrize("status", [429, 503])
def test_requests_that_are_refused_are_made_again(
    run: Run, store: Proxy, files: Any, tmp_path: Path, status: int
) -> None:
    make_huge(tmp_path / "huge", 32)
    files.put(str(tmp_path / "huge"), "bucket/huge")
    store.requests.clear()
    store.fault = refusing(status, 1, 3, 4, 9, Retry_After="0")
    found = report(run, "s3://bucket/huge", "--device-size", "32M")
    assert found["verdict"] == "whole"
    assert store.count("GET /bucket/huge") > 4


def test_a_store_that_refuses_all_requests(
    run: Run, store: Proxy, files: Any, tmp_path: Path
) -> None:
    """One line for that capture, exit 4; the others are read."""
    files.pipe("bucket/a", WHOLE)
    (tmp_path / "b").write_bytes(WHOLE)
    store.fault = refusing(429, Retry_After="0")
    outcome = run("validate", "s3://bucket/a", tmp_path / "b", "--output", "json")
    assert outcome.status == 4
    assert [one["verdict"] for one in outcome.json["streams"]] == ["failed", "whole"]
    assert len(outcome.err.splitlines()) == 1
    assert "429" in outcome.err


@pytest.mark.parametrize(
    "command",
    [
        ["validate"],
        pytest.param(["dump"], marks=pytest.mark.long),
        pytest.param(["info"], marks=pytest.mark.long),
        pytest.param(["convert", "--to", "made"], marks=pytest.mark.long),
    ],
)
def test_an_object_that_changes(
    run: Run, store: Proxy, files: Any, tmp_path: Path, command: list[str], monkeypatch: Any
) -> None:
    """It is noticed by its etag, also where its size stays."""
    monkeypatch.chdir(tmp_path)
    make_huge(tmp_path / "huge", 32)
    files.put(str(tmp_path / "huge"), "bucket/huge")
    with open(tmp_path / "huge", "r+b") as file:
        file.seek(20 * MIB)
        file.write(b"x")
    store.requests.clear()
    changed = threading.Lock()

    def fault(handler: Handler) -> bool:
        if store.count("GET /bucket/huge") == 3 and changed.acquire(blocking=False):
            files.put(str(tmp_path / "huge"), "bucket/huge")
        return False

    store.fault = fault
    outcome = run(*command[:1], "s3://bucket/huge", *command[1:])
    assert outcome.status == 4
    assert outcome.err == "blkmig: s3://bucket/huge: the object changed while it was read\n"
    assert not Path("made").exists()


@pytest.mark.long
def test_a_bucket(store: Proxy, files: Any, tmp_path: Path) -> None:
    """Real captures in a bucket, by two processes; no such object and no such bucket."""
    names = sorted(path.name for path in CAPTURES.glob("*.bin.gz"))
    for name in names:
        files.put(str(CAPTURES / name), f"bucket/deep/{name}")
    make_huge(tmp_path / "huge", 32)
    files.put(str(tmp_path / "huge"), "bucket/huge.bin")
    words = [*BLKMIG, "validate", "--output", "json", "--jobs", "2"]
    urls = ["s3://bucket/deep/", "s3://bucket/h*.bin", "s3://bucket/none", "s3://nobucket/x"]
    done = subprocess.run([*words, *urls], capture_output=True, text=True, check=False)
    streams = json.loads(done.stdout)["streams"]
    assert [stream["stream"] for stream in streams] == [
        *(f"s3://bucket/deep/{name}" for name in names), "s3://bucket/huge.bin", *urls[2:]
    ]  # fmt: skip
    local = subprocess.run(
        [*words, *(str(CAPTURES / name) for name in names)], capture_output=True, check=False
    )
    wanted = [stream["verdict"] for stream in json.loads(local.stdout)["streams"]]
    assert [one["verdict"] for one in streams] == [*wanted, "unknown", "failed", "failed"]
    assert streams[-3]["transfer"]["moved"] < 9 << 20
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2


# -- a catalogue


def test_a_catalogue(run: Run, store: Proxy, files: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """An object is read again only where its etag is another."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "deep/c"):
        files.pipe(f"bucket/{name}", WHOLE)
    words = [
        "validate",
        "s3://bucket/",
        "s3://bucket/none",
        "--catalogue",
        "c.db",
        "--output",
        "json",
    ]

    def check() -> Any:
        store.requests.clear()
        outcome = run(*words)
        assert outcome.status == 4
        return outcome.json

    first = check()
    assert (first["unchanged"], store.count("GET /bucket/")) == (0, 3)
    second = check()
    assert (second["unchanged"], store.count("GET /bucket/")) == (3, 0)
    for one in first["streams"]:
        one.pop("transfer", None)
    assert second["streams"] == first["streams"]
    # Each by its own name: one request for each etag.
    words[1:2] = ["s3://bucket/a", "s3://bucket/b"]
    assert check()["unchanged"] == 2
    assert (store.count("GET /bucket/"), store.count("HEAD /bucket/a")) == (0, 1)
    files.pipe("bucket/b", WHOLE[:-30])
    changed = check()
    assert changed["unchanged"] == 1
    assert [one["verdict"] for one in changed["streams"]] == ["whole", "damaged", "failed"]


def test_a_base_that_is_gone(
    run: Run, store: Proxy, files: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk.img").write_bytes(bytes(1 << 20))
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False,
              "count": 65536, "dirty": [{"start": 0, "length": 65536}]}  # fmt: skip
    document = {"version": 1, "virtual-size": 1 << 20, "bitmaps": [bitmap]}
    Path("disk.img.bitmaps.json").write_text(json.dumps(document))
    base = "00000000-0000-4000-8000-000000000000"
    assert run("send", "disk.img", "--id", base, "--to", "s3://bucket/s/0").status == 0
    more = ["--since", "b", "--base", base, "--to", "s3://bucket/s/1"]
    assert run("send", "disk.img", *more).status == 0
    words = ["validate", "s3://bucket/s/", "--catalogue", "c.db", "--output", "json"]
    assert run(*words).json["without-base"] == []
    files.rm("bucket/s/0")
    # A run over others does not know, one over all objects below the URL does.
    others = ["validate", "disk.img", *words[2:]]
    assert run(*others).json["without-base"] == []
    (found,) = run(*words).json["without-base"]
    assert found["stream"] == "s3://bucket/s/1"
    assert base in found["findings"][0]["message"]
