"""Addresses: one parser for STREAM and TARGET, so that the same text means the same for both."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.errors import UsageError
from blkmig_cli.system.address import Address, has_query, parse_address, parse_target
from blkmig_cli.text import escape
from tests.conftest import Run, fails
from tests.support import raw

ADDRESSES: dict[str, dict[str, Any]] = {
    "-": {"scheme": "-"},
    "a": {"scheme": "file", "path": "a"},
    "/a/b c": {"scheme": "file", "path": "/a/b c"},
    "./exec:cat": {"scheme": "file", "path": "./exec:cat"},
    "c:x": {"scheme": "file", "path": "c:x"},
    "exec": {"scheme": "file", "path": "exec"},
    "EXEC:x": {"scheme": "file", "path": "EXEC:x"},
    "a,offset=5": {"scheme": "file", "path": "a,offset=5"},
    "file:a": {"scheme": "file", "path": "a"},
    "file:-": {"scheme": "file", "path": "-"},
    "file:exec:cat": {"scheme": "file", "path": "exec:cat"},
    "file:/a,offset=0": {"scheme": "file", "path": "/a", "offset": 0},
    "file:a,offset=64k": {"scheme": "file", "path": "a", "offset": 65536},
    "file:a,offset=9223372036854775807": {"scheme": "file", "path": "a", "offset": 2**63 - 1},
    "exec:cat <a:b": {"scheme": "exec", "command": "cat <a:b"},
    "fd:0": {"scheme": "fd", "descriptor": 0},
    "fd:2147483647": {"scheme": "fd", "descriptor": 2**31 - 1},
    "unix:/run/s": {"scheme": "unix", "path": "/run/s"},
    "tcp:localhost:4444": {"scheme": "tcp", "host": "localhost", "port": 4444},
    "tcp:[::1]:65535": {"scheme": "tcp", "host": "::1", "port": 65535},
    "tcp::0": {"scheme": "tcp", "host": "", "port": 0},
}

MALFORMED = [
    "",
    "file:",
    "file:,offset=1",
    "file:a,offset=",
    "file:a,offset=x",
    "file:a,offset=-1",
    "file:a,offset=1,offset=2",
    "file:a,offset=9223372036854775808",
    "file:a,offset=99999999999999999999",
    "file:a,offset=99999999999999999999G",
    "file:a,offset=" + "9" * 5000,
    "exec:",
    "exec: ",
    "fd:",
    "fd:x",
    "fd:-1",
    "fd:+1",
    "fd:1 ",
    "fd:\u0661",
    "fd:2147483648",
    "fd:99999999999999999999",
    "fd:" + "9" * 5000,
    "unix:",
    "tcp:",
    "tcp:localhost",
    "tcp:localhost:",
    "tcp:localhost:x",
    "tcp:localhost:-1",
    "tcp:localhost:65536",
    "tcp:localhost:99999999999999999999",
    "tcp:localhost:" + "9" * 5000,
    "tcp:a..b:80",
    "tcp:" + "a" * 300 + ":80",
    "tcp:\udcff:80",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_address(text: str) -> None:
    assert parse_address(text) == Address(text, **ADDRESSES[text])


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_addresses(run: Run, text: str) -> None:
    fails(run("validate", text), 2, f"invalid address '{escape(text)}'")
    fails(run("build", "/dev/null", "--to", text), 2, "invalid address '")


def test_a_null_character() -> None:
    with pytest.raises(UsageError, match="null"):
        parse_address("a\0b")


@pytest.mark.parametrize("text", [text for text in ADDRESSES if ",offset=" not in text])
def test_a_target_is_the_same_address(text: str) -> None:
    assert parse_target(text) == parse_address(text)


@pytest.mark.parametrize("offset", ["0", "5", "1M"])
def test_a_target_with_an_offset(run: Run, tmp_path: Path, offset: str) -> None:
    stream = tmp_path / "s"
    stream.write_bytes(raw.qemu(raw.block(0, 8)))
    target = f"file:{tmp_path}/t,offset={offset}"
    outcome = run("scrub", stream, "--device-size", "1M", "--to", target)
    fails(outcome, 2, "a target cannot have an offset")
    assert list(tmp_path.iterdir()) == [stream]


def test_the_default_target_is_stdout() -> None:
    assert parse_target(None) == Address("-", "-")


def test_the_file_of_an_address() -> None:
    for text, read, written in (
        ("-", 0, 1),
        ("fd:7", 7, 7),
        ("file:a", "a", "a"),
        ("a", "a", "a"),
        ("exec:cat a", None, None),
        ("unix:a", None, None),
        ("tcp:a:1", None, None),
    ):
        address = parse_address(text)
        assert address.file(writes=False) == read
        assert address.file(writes=True) == written


@given(st.text(max_size=40) | st.text(max_size=20).map("tcp:{}".format))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        assert parse_address(text).text == text
    except UsageError as error:
        message = str(error)
        assert message.isprintable()


def test_an_existing_file_does_not_change_what_an_address_means(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a command as TARGET is the same command as STREAM."""
    monkeypatch.chdir(tmp_path)
    stream = raw.qemu(raw.block(0, 8))
    name = "exec:cat > out; exit 7"
    Path(name).write_bytes(stream)
    scrub = ("scrub", "--device-size", "1M", "-q")
    fails(run(*scrub, f"./{name}", "--to", name), 4, f"{name} ended with status 7")
    assert Path("out").read_bytes() == stream
    fails(run("validate", name), 4, f"{name} ended with status 7")
    assert Path("out").read_bytes() == b""
    for path in (f"./{name}", f"file:{name}"):
        assert run("validate", path).status == 0
        assert run(*scrub, "exec:cat e*", "--to", path).status == 0
        assert Path(name).read_bytes() == stream
    fails(run(*scrub, f"./{name}", "--to", f"file:{name}"), 2, "are the same file")


@pytest.mark.parametrize("name", ["fd:9", "file:x", "tcp:h:1", "unix:x"])
def test_a_file_called_as_a_uri(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(raw.qemu(raw.block(0, 8)))
    assert run("validate", f"./{name}").status == 0
    assert run("scrub", f"./{name}", "--device-size", "1M", "--to", f"./{name}2", "-q").status == 0
    assert Path(f"{name}2").read_bytes() == Path(name).read_bytes()


@pytest.mark.parametrize("scheme", ["s3", "https"])
@pytest.mark.parametrize(
    ("behind", "query"), [("", False), ("?a", True), ("#a", True), ("?a#b", True)]
)
def test_a_url_with_more_than_a_name(scheme: str, behind: str, query: bool) -> None:
    assert has_query(f"{scheme}://host/name{behind}") == query
    assert not has_query(f"file:name{behind}")
