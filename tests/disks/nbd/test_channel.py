"""Bytes to and from a server over a socket: whole, cut, refused, and never waited for in vain."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from blkmig_cli.disks.image import FilePart
from blkmig_cli.disks.nbd.channel import LATE, BrokenError, SocketChannel
from blkmig_cli.errors import FailureError
from blkmig_cli.system.nbd_uri import parse_nbd_uri

MIB = 1 << 20
#: A key that needs a password, and its certificate.
KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAiJAwkJb80lhQICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQI2zT6kYStaDAEgZCaYGO/sAXGylaE
Z53XNIUp3bIlrxsdsP+I6MsHJ6GX4xmd7UciM6pgBy8zbPbU4Lx1aEuqMTQOzZm9
YNzfU62+ivrzJmUabvOPa188sAl2cPCZ4sXan7N9/EFq1+GuVBD9CVY8jcAqWweY
04a0vGv8MKRQh8gLZmJZRaZH0AoK+DbhJlo8CvouF0bcDSKCrW0=
-----END ENCRYPTED PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBcDCCARWgAwIBAgIUQTpK3K4VTQQB4kNX8ca9rABRptowCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYzAgFw0yNjExMjgwOTQ4NTRaGA8yMTI2MTEwNDA5NDg1NFow
DDEKMAgGA1UEAwwBYzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBwQLiu9J98n
ptHr7rOhiEQYI/pgCyhOwPrhOiqSNz9yaRUkS+O8eEjAFVFkrCE+q8N5Jw0kYGH3
RcH60x1AC0GjUzBRMB0GA1UdDgQWBBSFAlZqoXsjV3lKxHjHaasbYFI38jAfBgNV
HSMEGDAWgBSFAlZqoXsjV3lKxHjHaasbYFI38jAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQCqFeiEVczajl4/gBCNOXgxMuPkfbBB/w1ypHQuAo3d
hgIhAImG4vkZkr947/o/WVGqxN56ML590cwHnbjIUQwa+AWf
-----END CERTIFICATE-----
"""


@pytest.fixture
def peers() -> Iterator[tuple[SocketChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = SocketChannel(ours)
    try:
        yield channel, theirs
    finally:
        channel.close()
        theirs.close()


Peers = tuple[SocketChannel, socket.socket]


def later() -> float:
    return time.monotonic() + 60


def never() -> None:
    raise AssertionError


def test_receiving(peers: Peers) -> None:
    channel, theirs = peers
    view = memoryview(bytearray(4))
    assert not channel.receive(view, 0, waits=False)
    theirs.sendall(b"abcdef")
    assert channel.receive(view, 0, waits=False)
    assert bytes(view) == b"abcd"
    assert channel.receive(view[1:3], later())
    assert bytes(view) == b"aefd"
    assert channel.receive(view[:0], 0)


def test_an_answer_that_has_begun_is_waited_for(peers: Peers) -> None:
    channel, theirs = peers
    theirs.sendall(b"ab")
    view = memoryview(bytearray(4))
    with pytest.raises(BrokenError, match=f"^{LATE}$"):
        channel.receive(view, 0, waits=False)
    assert bytes(view) == b"ab\0\0"


@pytest.mark.parametrize("waits", [False, True])
def test_a_server_that_hangs_up(peers: Peers, waits: bool) -> None:
    channel, theirs = peers
    theirs.sendall(b"ab")
    theirs.close()
    with pytest.raises(BrokenError, match=r"^the server closed the connection$"):
        channel.receive(memoryview(bytearray(3)), later(), waits=waits)


def test_a_server_that_does_not_answer(peers: Peers) -> None:
    channel, _ = peers
    for deadline in (0, time.monotonic() - 1):
        with pytest.raises(BrokenError, match=f"^{LATE}$"):
            channel.receive(memoryview(bytearray(1)), deadline)


def test_sending(peers: Peers) -> None:
    channel, theirs = peers
    channel.send(memoryview(b"abc"), later(), never)
    channel.send(memoryview(b""), 0, never)
    channel.send(memoryview(b"de"), 0, never)
    assert theirs.recv(9) == b"abcde"


@pytest.mark.parametrize("sendfile", [True, False])
@pytest.mark.parametrize("length", [0, 1, 300_000, 299_999])
def test_sending_from_a_file(peers: Peers, tmp_path: Path, length: int, sendfile: bool) -> None:
    """With the system's help, or where it refuses; the bytes around stay there."""
    channel, theirs = peers
    assert channel.sends_files
    content = bytes(range(256)) * 2000
    (tmp_path / "f").write_bytes(content)
    refusal = OSError(22, "Invalid argument")
    with (tmp_path / "f").open("rb") as file, patch.object(
        os, "sendfile", os.sendfile if sendfile else lambda *_: (_ for _ in ()).throw(refusal)
    ):  # fmt: skip
        channel.send(FilePart(file.fileno(), 1000, length), later(), never)
    channel.send(memoryview(b"end"), later(), never)
    received = b""
    while len(received) < length + 3:
        received += theirs.recv(1 << 20)
    assert received == content[1000 : 1000 + length] + b"end"


def test_a_file_that_became_shorter(peers: Peers, tmp_path: Path) -> None:
    channel, theirs = peers
    (tmp_path / "f").write_bytes(b"abc")
    with (
        (tmp_path / "f").open("rb") as file,
        pytest.raises(BrokenError, match=r"^the file that is written from became shorter$"),
    ):
        channel.send(FilePart(file.fileno(), 1, 3), later(), never)
    assert theirs.recv(9) == b"bc"


def test_a_file_that_cannot_be_read(peers: Peers) -> None:
    channel, _ = peers
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenError, match=r"^reading what is to be written: "):
        channel.send(FilePart(writer, 0, 3), later(), never)
    os.close(writer)


def taking(theirs: socket.socket) -> tuple[Callable[[], None], list[int]]:
    """Return what takes bytes whenever it is called, and how many it took."""
    taken: list[int] = []

    def take() -> None:
        taken.append(len(theirs.recv(8 * MIB)))

    return take, taken


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_while_the_server_sends_and_takes_nothing(peers: Peers, tmp_path: Path, kind: str) -> None:
    """It is not waited for: its answers may be taken meanwhile."""
    channel, theirs = peers
    theirs.sendall(b"answer")
    take, taken = taking(theirs)
    (tmp_path / "f").write_bytes(bytes(8 * MIB))
    with (tmp_path / "f").open("rb") as file:
        data = FilePart(file.fileno(), 0, 8 * MIB) if kind == "file" else memoryview(bytes(8 * MIB))
        channel.send(data, later(), take)
    assert taken
    theirs.setblocking(False)
    while sum(taken) < 8 * MIB:
        take()
    assert sum(taken) == 8 * MIB


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_server_that_takes_nothing(peers: Peers, tmp_path: Path, kind: str) -> None:
    channel, _ = peers
    (tmp_path / "f").write_bytes(bytes(8 * MIB))
    with (tmp_path / "f").open("rb") as file:
        data = FilePart(file.fileno(), 0, 8 * MIB) if kind == "file" else memoryview(bytes(8 * MIB))
        with pytest.raises(BrokenError, match=f"^{LATE}$"):
            channel.send(data, 0, never)


def test_sending_to_a_server_that_left(peers: Peers) -> None:
    channel, theirs = peers
    theirs.close()
    for data in (memoryview(b"abc"), FilePart(os.open("/dev/zero", os.O_RDONLY), 0, 9)):
        with pytest.raises(BrokenError, match=r"^Broken pipe$"):
            channel.send(data, later(), never)
        if isinstance(data, FilePart):
            os.close(data.fd)


def test_requests_do_not_wait_for_others_on_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        channel = SocketChannel(ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not ours.getblocking()
        channel.close()
        assert ours.fileno() == -1


URI = "nbds://localhost/?tls-certificates={}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "No such file or directory; the folder must have ca-cert.pem"),
        ({"ca-cert.pem": "nothing"}, "no certificate or crl found; the folder must have ca-cert"),
        ({"ca-cert.pem": CERTIFICATE, "client-cert.pem": CERTIFICATE}, "No such file or directory"),
        ({"ca-cert.pem": CERTIFICATE, "client-cert.pem": "", "client-key.pem": KEY}, "the folder"),
        # Nobody is asked for its password.
        ({"ca-cert.pem": CERTIFICATE, "client-cert.pem": CERTIFICATE, "client-key.pem": KEY},
         "the folder must have ca-cert.pem, and client-key.pem with client-cert.pem"),
    ],
)  # fmt: skip
def test_certificates_that_are_of_no_use(
    peers: Peers, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    channel, _ = peers
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    uri = parse_nbd_uri(URI.format(tmp_path))
    with pytest.raises(FailureError, match="the certificates in ") as caught:
        channel.start_tls(uri, later())
    assert str(caught.value).startswith(f"{uri}: the certificates in {tmp_path}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(("said", "words"), [(b"HTTP/1.1 400 \r\n", "wrong version"), (b"", "")])
def test_no_tls_from_the_server(peers: Peers, tmp_path: Path, said: bytes, words: str) -> None:
    """It says something else, or hangs up."""
    channel, theirs = peers
    (tmp_path / "ca-cert.pem").write_text(CERTIFICATE)
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenError, match=f"^TLS: .*{words}") as caught:
        channel.start_tls(parse_nbd_uri(URI.format(tmp_path)), later())
    assert "_" not in str(caught.value)
