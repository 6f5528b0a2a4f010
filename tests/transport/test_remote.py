"""Streams at URLs: by ranges of a server that counts, in an S3 store, and what goes wrong with them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")
pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra remote)")

from tests.conftest import CAPTURES, MORE, Capture, Run, captures_but, fails
from tests.output.test_ci_formats import WHOLE
from tests.output.test_json_schemas import hold
from tests.project.test_memory import make_huge
from tests.support import raw
from tests.support.ranges import Counting, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Counting]:
    (tmp_path / "whole.bin").write_bytes(WHOLE)
    with serving(tmp_path) as found:
        yield found


def report(run: Run, *words: object) -> Any:
    outcome = run("validate", *words, "--output", "json")
    hold("validate", outcome.json)
    (found,) = outcome.json["streams"]
    return found


def together(number: int) -> Any:
    """Return a fault: no range but the first is sent before ``number`` were requested at the same time.

    A range of one byte, by which a client finds out whether there are ranges, is sent at once.
    """
    reached = threading.Event()

    def hold(handler: Any, _: int) -> bool:
        if handler.server.now >= number:
            reached.set()
        asked = handler.headers.get("Range", "bytes=0-")
        start, end = asked.removeprefix("bytes=").split("-")
        if int(start) and start != end:
            assert reached.wait(60), "the requests were not made at the same time"
        return False

    return hold


@pytest.mark.parametrize(
    "gib", [pytest.param(100, marks=pytest.mark.long), 1], ids=lambda gib: f"{gib} GiB"
)
def test_only_records_are_read(run: Run, server: Counting, gib: int) -> None:
    """A stream of data: under 1 % of its bytes, no more requests than chunks, many at a time."""
    chunks = gib << 10
    make_huge(server.folder / "huge.bin", chunks)
    server.fault = together(8)
    found = report(run, f"{server.url}/huge.bin", "--device-size", f"{gib}G")
    assert found["verdict"] == "whole"
    assert found["transfer"]["moved"] == server.moved < (gib << 30) // 100
    assert found["transfer"]["requests"] <= server.requests <= chunks
    assert server.most >= 8


@captures_but(MORE)
def test_every_capture(run: Run, capture: Capture, tmp_path: Path) -> None:
    """Plain or compressed, the report is that of the file."""
    packed = tmp_path / "packed.gz"
    shutil.copy(CAPTURES / f"{capture.name}.bin.gz", packed)
    os.symlink(capture.path, tmp_path / "plain")
    with serving(tmp_path) as server:
        for name in ("plain", "packed.gz"):
            wanted = report(run, tmp_path / name, *capture.hints())
            found = report(run, f"{server.url}/{name}", *capture.hints())
            size = (tmp_path / name).stat().st_size
            transfer = found.pop("transfer")
            assert transfer["size"] == size
            assert transfer["moved"] <= size + (1 << 20)
            assert found | {"stream": ""} == wanted | {"stream": ""}
            assert run("info", f"{server.url}/{name}").status == 0


def test_other_commands_read_it_once(run: Run, server: Counting) -> None:
    url = f"{server.url}/whole.bin"
    assert (
        run("dump", url, "--output", "jsonl").out
        == run("dump", server.folder / "whole.bin", "--output", "jsonl").out
    )
    image = server.folder / "disk.img"
    assert run("replay", url, "--image", image, "--create").status == 0
    assert run("validate", url, "--image", image).status == 0


@pytest.mark.parametrize("command", ["dump", "validate"])
def test_data_is_read_from_end_to_end(run: Run, server: Counting, command: str) -> None:
    """By dump, and where it is compared: each byte once, in large pieces."""
    path, image = server.folder / "huge.bin", server.folder / "disk.img"
    make_huge(path, 32)
    image.write_bytes(bytes(32 << 20))
    words = {"dump": [], "validate": ["--image", image, "--device-size", "32M"]}
    run(command, f"{server.url}/huge.bin", *words[command])
    # One byte tells whether the server has ranges.
    assert server.moved == path.stat().st_size + 1
    assert server.requests < 32


def test_a_server_without_ranges(run: Run, server: Counting) -> None:
    server.ranges = False
    found = report(run, f"{server.url}/whole.bin")
    assert found["verdict"] == "whole"
    assert found["transfer"]["size"] is None


def test_a_server_that_does_not_tell_whether_it_has_ranges(run: Run, server: Counting) -> None:
    """As that of Python's http.server: an object that is not read at once is read from its start."""
    make_huge(server.folder / "large.bin", 12)
    wanted = report(run, server.folder / "large.bin", "--device-size", "12M")
    for ranges in (False, True):
        server.ranges, server.stated = ranges, False
        found = report(run, f"{server.url}/large.bin", "--device-size", "12M")
        transfer = found.pop("transfer")
        assert (transfer["size"] is not None) == ranges
        assert found | {"stream": ""} == wanted | {"stream": ""}


def test_a_quiet_report_is_one_line(run: Run, server: Counting) -> None:
    for command in ("validate", "info"):
        assert run(command, f"{server.url}/whole.bin", "-q").out.count("\n") == 1
        assert "moved in" in run(command, f"{server.url}/whole.bin").out


def test_nobody_listens(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fails(run("validate", f"http://127.0.0.1:{port}/x.bin"), 4, "Connection refused")


def test_a_server_without_ranges_that_breaks_off(run: Run, server: Counting) -> None:
    def broken(handler: Any, number: int) -> bool:
        if number < 2:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(WHOLE[:1000])
        handler.close_connection = True
        return True

    server.ranges, server.fault = False, broken
    fails(run("validate", f"{server.url}/whole.bin"), 4, "whole.bin: ")


def test_an_empty_object(run: Run, server: Counting) -> None:
    (server.folder / "empty").touch()
    fails(run("validate", f"{server.url}/empty"), 3, "empty")


def status(code: int, first: int = 1) -> Any:
    """Return a fault: requests from number ``first`` on get this status."""

    def answer(handler: Any, number: int) -> bool:
        if number >= first:
            handler.send_error(code)
        return number >= first

    return answer


def cut(handler: Any, number: int) -> bool:
    """Break off in the middle of an answer."""
    if number < 3:
        return False
    handler.send_response(206)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x")
    handler.close_connection = True
    return True


def too_much(handler: Any, number: int) -> bool:
    """Answer with all of the object, whatever was asked for."""
    if number < 3:
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    handler.close_connection = True
    return True


def changing(handler: Any, number: int) -> bool:
    if number == 3:
        path = handler.server.folder / "huge.bin"
        later = path.stat().st_mtime_ns + 1
        os.utime(path, ns=(later, later))
    return False


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(403), "HTTP status 403"),
        (status(429, 4), "HTTP status 429"),
        (status(503, 4), "HTTP status 503"),
        (cut, "huge.bin: "),
        (too_much, "huge.bin: "),
        (changing, "the object changed while it was read"),
        (status(404, 10**9), "none: HTTP status 404"),
    ],
    ids=["403", "429", "503", "cut", "too much", "changing", "missing"],
)
def test_faults_of_a_server(run: Run, server: Counting, fault: Any, message: str) -> None:
    """One line, which has no secret, for the stream; the others are done."""
    make_huge(server.folder / "huge.bin", 32)
    server.fault = fault
    name = "none" if "none" in message else "huge.bin"
    url = server.url.replace("http://", "http://user:hunter2@")
    words = [f"{url}/{name}?signature=hunter2", server.folder / "whole.bin"]
    for command in ("validate", "info"):
        server.requests = 0
        fails(run(command, words[0]), 4, message)
        server.requests = 0
        outcome = run(command, *words, "--output", "json")
        assert outcome.status == 4
        verdicts = [stream["verdict"] for stream in outcome.json["streams"]]
        assert verdicts == ["failed", "whole"]
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert "hunter2" not in outcome.out + outcome.err


def test_secrets_are_not_shown(run: Run, server: Counting) -> None:
    url = server.url.replace("http://", "http://user:hunter2@")
    for kind in ("human", "json", "junit", "sarif", "github"):
        words = ["validate", f"{url}/whole.bin?signature=hunter2", "-v", "--output", kind]
        outcome = run(*words)
        assert outcome.status == 0
        assert "whole.bin" in outcome.out
        assert "hunter2" not in outcome.out + outcome.err


def test_no_server_and_no_protocol(run: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fails(run("validate", f"http://127.0.0.1:{unused.getsockname()[1]}/x"), 4, "/x: ")
    fails(run("validate", "nosuch://x/y"), 2, "URLs of 'nosuch' are not supported")
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    fails(run("send", image, "--to", "s3://x/y"), 2, "streams cannot be written to a URL")


def test_fsspec_is_an_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    fails(run("validate", "memory://x"), 4, "install blkmig[remote]")


def test_another_store(run: Run) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/many/a.bin", WHOLE)
    store.pipe("/many/deep/b.bin", raw.qemu(raw.block(0, 8), raw.block(4096, 8)))
    store.pipe("/many/c.txt", b"no stream, but a text")
    try:
        for names in (["memory://many/"], ["memory://many/*.bin", "memory://many/deep/b.bin"]):
            document = run("validate", *names, "--output", "json").json
            found = [stream["stream"] for stream in document["streams"]]
            assert found == ["memory:///many/a.bin", names[-1] if names[1:] else
                             "memory:///many/deep/b.bin"]  # fmt: skip
        fails(run("validate", "memory://many/x*"), 4, "no object matches 'memory://many/x*'")
        fails(run("validate", "memory://many/deep"), 4, "is a directory")
    finally:
        store.rm("/many", recursive=True)


# -- S3


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A server of moto's, as environment for its clients."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (the extra remote)")
    pytest.importorskip("moto.server", reason="moto is not installed (the extra test-remote)")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield {
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "hunter2",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            process.terminate()


@pytest.mark.long
def test_a_bucket(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real captures in a bucket, by two processes; no such object and no such bucket."""
    for key, value in s3.items():
        monkeypatch.setenv(key, value)
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("captures")
    names = sorted(path.name for path in CAPTURES.glob("*.bin.gz"))
    for name in names:
        store.put(str(CAPTURES / name), f"captures/deep/{name}")
    make_huge(tmp_path / "huge", 32)
    store.put(str(tmp_path / "huge"), "captures/huge.bin")
    words = [sys.executable, "-m", "blkmig_cli", "validate", "--output", "json", "--jobs", "2"]
    urls = ["s3://captures/deep/", "s3://captures/h*.bin", "s3://captures/none", "s3://nobucket/x"]
    done = subprocess.run([*words, *urls], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    streams = document["streams"]
    assert [stream["stream"] for stream in streams] == [
        *(f"s3://captures/deep/{name}" for name in names), "s3://captures/huge.bin", *urls[2:]
    ]  # fmt: skip
    local = subprocess.run(
        [*words, *(str(CAPTURES / name) for name in names)], capture_output=True, check=False
    )
    wanted = [stream["verdict"] for stream in json.loads(local.stdout)["streams"]]
    assert [one["verdict"] for one in streams] == [*wanted, "unknown", "failed", "failed"]
    assert streams[-3]["transfer"]["moved"] < 9 << 20
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = subprocess.run([*words, "s3://captures/huge.bin"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "redentials" in done.stderr
