"""Streams at URLs: by ranges of a server that counts, in an S3 store, and what goes wrong with them."""

import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")
pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra remote)")

import fsspec

from blkmig_cli import limits
from tests.conftest import CAPTURES, MORE, Capture, Run, captures_but, fails
from tests.output.test_ci_formats import WHOLE
from tests.output.test_json_schemas import hold
from tests.project.test_memory import make_huge
from tests.support import raw
from tests.support.http import running
from tests.support.ranges import Counting


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Counting]:
    (tmp_path / "whole.bin").write_bytes(WHOLE)
    with running(Counting(tmp_path)) as found:
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


@captures_but((*MORE, "bitmaps-7.2-with-blocks"))
def test_every_capture(run: Run, capture: Capture, tmp_path: Path) -> None:
    """Plain or compressed, the report is that of the file."""
    packed = tmp_path / "packed.gz"
    shutil.copy(CAPTURES / f"{capture.name}.bin.gz", packed)
    os.symlink(capture.path, tmp_path / "plain")
    with running(Counting(tmp_path)) as server:
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


def status(code: int, first: int = 1, last: float = float("inf"), after: str | None = None) -> Any:
    """Return a fault: requests from number ``first`` to ``last`` get this status.

    ``after``: they may be made again after so many seconds, or at this date.
    """

    def answer(handler: Any, number: int) -> bool:
        found = first <= number <= last
        if found:
            handler.send_response(code)
            if after is not None:
                handler.send_header("Retry-After", after)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        return found

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
        (status(429, 4, after="0"), "HTTP status 429"),
        (status(429, 4, after="3600"), "HTTP status 429"),
        (status(503, 4), "HTTP status 503"),
        (cut, "huge.bin: "),
        (too_much, "huge.bin: "),
        (changing, "the object changed while it was read"),
        (status(404, 10**9), "none: HTTP status 404"),
    ],
    ids=["403", "429", "429, later", "503", "cut", "too much", "changing", "missing"],
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


@pytest.mark.parametrize(
    ("code", "after", "ranges"),
    [
        (429, "0", True),
        (503, formatdate(0, usegmt=True), False),
        *(
            pytest.param(code, after, ranges, marks=pytest.mark.long)
            for code, after in ((429, None), (503, "0"))
            for ranges in (True, False)
        ),
    ],
)
def test_requests_that_are_refused_are_made_again(
    run: Run,
    server: Counting,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    after: str | None,
    ranges: bool,
) -> None:
    """At every stage: when the object is opened, while it is read, at its end."""
    monkeypatch.setattr("blkmig_cli.transport.store._FIRST_DELAY", 0.001)
    make_huge(server.folder / "huge.bin", 12)
    server.ranges = ranges
    words = [f"{server.url}/huge.bin", "--device-size", "12M"]
    wanted = report(run, *words)
    total = server.requests
    assert wanted["verdict"] == "whole"
    for first in range(1, total + 1):
        # A client asks with HEAD, and if that fails, with GET.
        server.requests, server.fault = 0, status(code, first, first + 2, after)
        found = report(run, *words)
        assert found["verdict"] == "whole", first
        assert server.requests > total


@pytest.mark.parametrize(
    ("name", "value", "requests"), [("THROTTLED_TRIES", 3, 6), ("THROTTLED_WAIT", 0, 2)]
)
def test_how_often_and_how_long_a_request_is_made_again(
    run: Run,
    server: Counting,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: int,
    requests: int,
) -> None:
    """The object is asked for with HEAD, and then with GET."""
    monkeypatch.setattr("blkmig_cli.transport.store._FIRST_DELAY", 0.001)
    monkeypatch.setattr(limits, name, value)
    server.fault = status(429)
    fails(run("validate", f"{server.url}/whole.bin"), 4, "whole.bin: HTTP status 429")
    assert server.requests == requests


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
    url = "http://user:hunter2@127.0.0.1/y?key=hunter2"
    outcome = run("send", image, "--to", url)
    fails(outcome, 2, "http://127.0.0.1/y: streams cannot be written to such a URL")


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's store in the memory of a process, with a folder ``t``."""
    store = fsspec.filesystem("memory")
    store.mkdir("/t")
    yield store
    store.rm("/t", recursive=True)


@pytest.mark.parametrize(
    "words",
    [
        ["send", "disk.img"],
        ["convert", "stream", "--dialect", "v2"],
        ["fold", "sent"],
        ["scrub", "stream"],
        ["salvage", "cut"],
        ["build", "spec"],
        ["extract", "stream", "--device", "d"],
        ["extract", "stream", "--bitmap", "b"],
        ["map", "stream", "--svg"],
    ],
    ids=lambda words: " ".join(words[::2]),
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_whatever_writes_a_file_writes_an_object(
    run: Run,
    tmp_path: Path,
    memory: Any,
    words: list[str],
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    Path("disk.img").write_bytes(b"x" * 4096)
    Path("stream").write_bytes(WHOLE)
    Path("cut").write_bytes(WHOLE[:-40])
    Path("spec").write_text(run("dump", "stream", "--spec").out)
    identity = ["--id", "00000000-0000-4000-8000-000000000000"]
    assert run("send", "disk.img", "--to", "sent", *identity).status == 0
    to = [] if "--svg" in words else ["--to"]
    identity = identity if words[0] == "send" else []
    done = [
        run(*words, *to, target, *identity)
        for target in (f"made{suffix}", f"memory://t/made{suffix}")
    ]
    assert done[0].status == done[1].status, done
    assert done[0].status == (words[0] == "salvage"), done
    assert Path(f"made{suffix}").stat().st_size
    assert memory.cat(f"/t/made{suffix}") == Path(f"made{suffix}").read_bytes()


def test_an_object_that_is_read_is_not_written(run: Run, memory: Any) -> None:
    memory.pipe("/t/a", WHOLE)
    for url in ("memory://t/a", "memory://t/a?x", "memory://u:p@t/a"):
        fails(run("convert", "memory://t/a", "--dialect", "v2", "--to", url), 2, "are the same")
    assert memory.cat("/t/a") == WHOLE


def test_images_are_not_written_to_urls(run: Run, memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WHOLE)
    words = ["extract", tmp_path / "a", "--device", "d", "--to", "memory://t/d.qcow2"]
    fails(run(*words), 2, "images of format qcow2 cannot be written to a URL")
    fails(run(*words, "-f", "qcow2"), 2, "is not a file")
    assert not memory.exists("/t/d.qcow2")
    assert run(*words, "-f", "raw").status == 0
    assert memory.cat("/t/d.qcow2")


@pytest.mark.parametrize(
    ("etag", "modified", "age", "unchanged"),
    [
        (True, False, 0, True),
        (False, True, 3600, True),
        (False, True, 30, False),  # it may change once more within the second
        (False, False, 3600, False),
    ],
)
def test_a_catalogue(
    run: Run,
    server: Counting,
    tmp_path: Path,
    etag: bool,
    modified: bool,
    age: int,
    unchanged: bool,
) -> None:
    """An object is read again if its etag, or its size and time, are others; or if it has none."""
    server.etag, server.modified = etag, modified
    path = server.folder / "whole.bin"
    changed = time.time() - age
    os.utime(path, (changed, changed))
    words = ["validate", f"{server.url}/whole.bin", "--catalogue", tmp_path / "c", "--output"]

    def check() -> tuple[bool, str]:
        server.moved = 0
        document = run(*words, "json").json
        assert (document["unchanged"] == 1) == (server.moved == 0)
        return document["unchanged"] == 1, document["streams"][0]["verdict"]

    assert check() == (False, "whole")
    assert check() == (unchanged, "whole")
    path.write_bytes(bytes(len(WHOLE)))
    os.utime(path, (changed - 5, changed - 5))
    assert check() == (False, "not-a-stream")
    # A query may be a secret, and is not kept.
    words[1] = f"{server.url}/whole.bin?signature=hunter2"
    assert [check()[0] for _ in range(2)] == [False, False]
    assert b"hunter2" not in (tmp_path / "c").read_bytes()


def test_an_object_that_is_gone_is_forgotten(run: Run, server: Counting, tmp_path: Path) -> None:
    words = ["validate", f"{server.url}/whole.bin", "--catalogue", tmp_path / "c"]
    assert run(*words).status == 0
    os.rename(server.folder / "whole.bin", server.folder / "away")
    fails(run(*words, "--output", "json"), 4, "HTTP status 404")
    database = sqlite3.connect(tmp_path / "c")
    assert database.execute("SELECT count(*) FROM captures").fetchone() == (0,)
    database.close()


def test_fsspec_is_an_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    fails(run("validate", "memory://x"), 4, "install blkmig[remote]")


def test_another_store(run: Run) -> None:
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
