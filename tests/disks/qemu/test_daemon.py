"""What is said to a storage daemon, and what its answers mean, with a program that says what a test wants."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.qemu.daemon import PROGRAM, StorageDaemon
from blkmig_cli.errors import FailureError

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
DONE: dict[str, Any] = {"return": {}}
READY = (GREETING, DONE, DONE)
Said = dict[str, Any] | bytes
Start = Callable[..., StorageDaemon]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return what starts a daemon that says everything before it is asked, and notes all requests.

    It ends when there are no more.
    """
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def started(*said: Said, then: str = "cat >requests", **options: Any) -> StorageDaemon:
        text = b"".join(
            each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in said
        )
        (tmp_path / "said").write_bytes(text)
        script = (
            f"#!/bin/sh\ntrap '' TERM\ncd '{tmp_path}'\nprintf %s \"$*\" >words\ncat said\n{then}\n"
        )
        (tmp_path / PROGRAM).write_text(script)
        (tmp_path / PROGRAM).chmod(0o700)
        return StorageDaemon("the\ndisk", **options)

    return started


def requests(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "requests").read_bytes().splitlines()]


def test_what_is_asked(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    answers = ({"return": [1]}, {"event": "STOP"}, {"return": "x"}, {"return": None})
    daemon = start(
        *READY, *answers, folder=str(tmp_path / "sockets"),
    )  # fmt: skip
    assert not daemon.has_ended
    assert daemon.execute("one", some_name="a\udcff") == [1]
    assert daemon.request({"execute": "two"}) == "x"
    assert daemon.execute("three") is None
    path = Path(daemon.path)
    assert (path.name, path.parent.parent) == ("nbd", tmp_path / "sockets")
    assert path.parent.name.startswith("blkmig-")
    assert path.parent.is_dir()
    daemon.remove_socket()
    assert not path.parent.exists()
    daemon.close()
    assert daemon.has_ended
    assert requests(tmp_path) == [
        {"execute": "qmp_capabilities"},
        {"execute": "nbd-server-start",
         "arguments": {"addr": {"type": "unix", "data": {"path": daemon.path}}}},
        {"execute": "one", "arguments": {"some-name": "a\udcff"}},
        {"execute": "two"},
        {"execute": "three", "arguments": {}},
    ]  # fmt: skip
    words = (tmp_path / "words").read_text()
    assert words == "--chardev stdio,id=qmp --monitor chardev=qmp"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"class": "GenericError", "desc": "no\tnode"}, "the\\x0adisk: no\\x09node"),
        ({}, "the\\x0adisk: it failed"),
        ({"desc": "x" * 401}, f"the\\x0adisk: {'x' * 400}"),
        (
            {"desc": 'Failed to get "write" lock'},
            'the\\x0adisk is in use: Failed to get "write" lock; end the other program first, or '
            "use -U to read it all the same",
        ),
        (
            {"desc": "Failed to lock byte 100"},
            "the\\x0adisk is in use: Failed to lock byte 100; end the other program first, or use -U "
            "to read it all the same",
        ),
        ({"desc": "It Failed to lock byte 100"}, "the\\x0adisk: It Failed to lock byte 100"),
    ],
)
def test_commands_that_fail(start: Start, error: dict[str, Any], message: str) -> None:
    """Others can follow."""
    daemon = start(*READY, {"error": error}, {"return": 5})
    with pytest.raises(FailureError) as caught:
        daemon.execute("one")
    assert str(caught.value) == message
    assert daemon.execute("two") == 5
    daemon.close()


@pytest.mark.parametrize("answer", [b"hello\n", b"[1]\n", b"\n", b"null\n", b"\xff\n"])
def test_answers_that_are_not_qmp(start: Start, answer: bytes) -> None:
    daemon = start(*READY, answer)
    with pytest.raises(FailureError, match=rf"disk: {PROGRAM} answered something else than QMP$"):
        daemon.execute("one")
    daemon.close()
    daemon = start(answer)
    with pytest.raises(FailureError, match="something else than QMP"):
        daemon.execute("one")
    daemon.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_start_that_fails(start: Start, failing: int) -> None:
    said: list[Said] = [READY[0], DONE, DONE, DONE]
    said[1 + failing] = {"error": {"desc": "no socket"}}
    daemon = start(*said)
    with pytest.raises(FailureError, match=r"disk: no socket$"):
        daemon.execute("one")
    daemon.close()


def test_exports_that_are_removed(start: Start, tmp_path: Path) -> None:
    """The event may come before or after the answer, and those of others in between."""
    gone = [{"event": "BLOCK_EXPORT_DELETED", "data": {"id": name}} for name in "abc"]
    daemon = start(
        *READY, gone[1], DONE, gone[2], gone[0], DONE, DONE, {"event": "STOP"}, gone[1],
        {"return": 7},
    )  # fmt: skip
    for name in "acb":
        daemon.remove_export(name)
    assert daemon.execute("last") == 7
    daemon.close()
    assert requests(tmp_path)[2:5] == [
        {"execute": "block-export-del", "arguments": {"id": name, "mode": "hard"}} for name in "acb"
    ]


@pytest.mark.parametrize(
    ("said", "last"),
    [
        ("", ""),
        ("echo one >&2; echo two >&2", ": two"),
        ("printf '%0450d' 0 >&2", ": " + "0" * 400),
    ],
)
def test_a_daemon_that_ends(start: Start, said: str, last: str) -> None:
    message = f"the\\x0adisk: {PROGRAM} ended{last}"
    with pytest.raises(FailureError) as caught, closing(start(then=f"{said}\nexit 1")) as daemon:
        daemon.execute("one")
    assert str(caught.value) == message
    daemon = start(*READY, then=f"read -r _\nread -r _\n{said}\nexit 1")
    with pytest.raises(FailureError) as caught:
        daemon.execute("one")
    assert str(caught.value) == message
    daemon.close()


def test_a_daemon_that_does_not_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = start(*READY, {"return": 3})
    assert daemon.execute("one") == 3
    with monkeypatch.context() as patch:
        patch.setattr(limits, "PEER_SILENT", 0)
        with pytest.raises(FailureError, match=rf"disk: no answer of {PROGRAM} in 0 seconds$"):
            daemon.execute("two")
    daemon.close()


@pytest.mark.parametrize("scratch", [False, True])
def test_the_end(start: Start, tmp_path: Path, scratch: bool) -> None:
    """It may finish its work, unless its images are not needed."""
    daemon = start(*READY, DONE, then="cat >requests\necho done >end", scratch=scratch)
    daemon.execute("one")
    folder = Path(daemon.path).parent
    daemon.close()
    assert daemon.has_ended
    assert (tmp_path / "end").exists() == (not scratch)
    assert not folder.exists()


def test_no_socket(start: Start) -> None:
    daemon = start(*READY)
    with pytest.raises(FailureError, match=rf"{PROGRAM}: No such file or directory$"):
        daemon.connect()
    daemon.close()


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FailureError, match=rf"^{PROGRAM} is missing; install qemu-utils"):
        StorageDaemon("disk")


def test_the_number_of_threads(start: Start, tmp_path: Path) -> None:
    """It is made once, and changed then; a QEMU that does not have it is as before."""
    refused: Said = {"error": {"desc": "invalid object type: main-loop"}}
    daemon = start(*READY, refused, DONE, DONE, DONE)
    for number in (1, 2, 3, 64):
        daemon.limit_threads(number)
    daemon.close()
    made = {"qom-type": "main-loop", "id": "loop"}
    changed = {"path": "/objects/loop", "property": "thread-pool-max"}
    assert [(each["execute"], each["arguments"]) for each in requests(tmp_path)[2:]] == [
        ("object-add", made | {"thread-pool-max": 1}),
        ("object-add", made | {"thread-pool-max": 2}),
        ("qom-set", changed | {"value": 3}),
        ("qom-set", changed | {"value": 64}),
    ]
