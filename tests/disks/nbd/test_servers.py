"""Real servers that are slow, fail, do one thing at a time, or are reached in TLS; several threads."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.image import FilePart
from blkmig_cli.disks.nbd.image import NbdImage, image_on, open_nbd
from blkmig_cli.errors import FailureError
from blkmig_cli.system.nbd_uri import parse_nbd_uri
from tests.support.nbd import nbdkit, opened, qcow2, qemu_nbd, run, served, uri
from tests.support.peers import deaf_port

KIB, MIB = 1 << 10, 1 << 20


def piece(at: int) -> bytes:
    return (at + 1).to_bytes(4, "big") * (MIB // 4)


def written_by_two(image: NbdImage, number: int) -> None:
    """Two threads write a MiB at a time, a third one reads what they wrote before."""
    with ThreadPoolExecutor(3) as pool:

        def write(at: int) -> None:
            image.write(at * MIB, memoryview(piece(at)))
            assert pool.submit(image.read, at * MIB, MIB).result() == piece(at)

        with ThreadPoolExecutor(2) as writers:
            list(writers.map(write, range(number)))
    image.flush()


@pytest.mark.parametrize("kind", ["qcow2", "one at a time", "out of order"])
def test_threads(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "qcow2":
            disk = qcow2(tmp_path / "disk", 16 * MIB)
            path = stack.enter_context(qemu_nbd(disk, format="qcow2"))
        elif kind == "one at a time":
            # It does not take a request as long as nobody takes its answer.
            path = stack.enter_context(
                nbdkit("--filter=noparallel", "memory", "16M", "serialize=all-requests")
            )
        else:
            path = stack.enter_context(
                nbdkit("--filter=delay", "--filter=cow", "memory", "16M", "delay-read=3ms")
            )
        image = stack.enter_context(opened(path, writable=True))
        written_by_two(image, 16)
        run("nbdcopy", uri(path), tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"".join(piece(at) for at in range(16))


def test_threads_that_share_a_block(tmp_path: Path) -> None:
    """Each writes its part of blocks of 4 KiB, and none of the others'."""
    sizes = ("blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M")
    words = ("memory", "1M", "blocksize-error-policy=error", *sizes)
    server = nbdkit("--filter=blocksize-policy", *words)
    with server as path, opened(path, writable=True) as image:

        def write(at: int) -> None:
            image.write(at * 1000, memoryview(bytes([at % 255 + 1]) * 1000))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(300)))
        truth = b"".join(bytes([at % 255 + 1]) * 1000 for at in range(300))
        assert image.read(0, len(truth)) == truth


def test_a_server_that_fails(tmp_path: Path) -> None:
    flag = tmp_path / "fails"
    words = ("error=EIO", "error-rate=100%", f"error-file={flag}")
    with (
        nbdkit("--filter=error", "memory", "4M", *words) as path,
        opened(path, writable=True) as image,
    ):
        image.write(0, memoryview(b"x" * MIB))
        flag.touch()
        failing: dict[str, Callable[[], object]] = {
            "reading 512 KiB at its byte 1048576": lambda: image.read(MIB, 5),
            "writing 1 MiB at its byte 2097152": lambda: image.write(
                2 * MIB, memoryview(b"y" * MIB)
            ),
            # It asks first what has to be zeroed.
            "the block status of 1 MiB at its byte 0": lambda: image.zero(0, MIB),
            "the block status of 4 MiB at its byte 0": lambda: list(image.extents()),
        }
        for what, act in failing.items():
            with pytest.raises(FailureError, match=f"{what} failed: Input/output error"):
                act()
        flag.unlink()
        assert image.read(0, MIB) == b"x" * MIB


def test_an_export_that_is_smaller_than_it_says(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\1" * 2 * MIB)
    script = f"dd if={disk} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=64k 2>/dev/null"
    with nbdkit("eval", "get_size=echo 4M", f"pread={script}") as path, opened(path) as image:
        assert image.read(0, MIB) == b"\1" * MIB
        with pytest.raises(FailureError, match="reading 512 KiB at its byte 3145728 failed: "):
            image.read(3 * MIB, 10)


def test_a_server_that_is_killed(tmp_path: Path) -> None:
    with nbdkit("memory", "1G") as path:
        image = open_nbd(parse_nbd_uri(uri(path)), writable=True)
        image.write(0, memoryview(b"x"))
    with pytest.raises(FailureError, match=r"failed: (the server closed|Connection reset|Broken)"):
        image.read(0, 1)
    with pytest.raises(FailureError, match="No such file"):
        open_nbd(parse_nbd_uri(uri(path)), writable=False)
    image.close()


def test_a_slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with nbdkit("--filter=delay", "memory", "1M", "delay-read=3600") as path, opened(path) as image:
        monkeypatch.setattr(limits, "NBD_ANSWER_WAIT", 0.1)
        with pytest.raises(FailureError, match="failed: the server did not answer in time"):
            image.read(0, 1)


def test_nobody_there() -> None:
    with deaf_port() as port, pytest.raises(FailureError, match=f"{port}/x: Connection refused"):
        open_nbd(parse_nbd_uri(f"nbd://127.0.0.1:{port}/x"), writable=False)


def test_over_tcp(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as bound:
        port = bound.getsockname()[1]
        with served("nbdkit", "-f", "data", "1 2 3", "size=1000", on=bound):
            image = open_nbd(parse_nbd_uri(f"nbd://[::1]:{port}"), writable=False)
            assert (image.size, image.read(0, 4)) == (1000, b"\1\2\3\0")
            image.close()


def test_on_a_connected_socket(tmp_path: Path) -> None:
    """As of a child that was given the other end's listener."""
    with qemu_nbd(qcow2(tmp_path / "disk", MIB), "-r", format="qcow2") as path:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        image = image_on(peer, "", "disk.qcow2", writable=False)
        assert (image.path, image.size) == ("disk.qcow2", MIB)
        with pytest.raises(FailureError, match=r"^disk.qcow2 is an export of 1048576 bytes$"):
            image.resize(5)
        image.close()
        assert peer.fileno() == -1


# -- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of tls-certificates: an authority, a server ``localhost`` and a client."""
    folder = tmp_path_factory.mktemp("pki")

    def made(name: str, *words: object) -> None:
        days = ("-days", 2, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        files = ("-keyout", folder / f"{name}-key.pem", "-out", folder / f"{name}-cert.pem")
        run("openssl", "req", "-x509", *days, *files, *words)

    made("ca", "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signed = ("-CA", folder / "ca-cert.pem", "-CAkey", folder / "ca-key.pem")
    plain = ("-addext", "basicConstraints=critical,CA:FALSE")
    made("server", "-subj", "/CN=s", *signed, *plain, "-addext", "subjectAltName=DNS:localhost")
    made("client", "-subj", "/CN=c", *signed, *plain)
    return folder


@contextmanager
def in_tls(pki: Path, *words: object) -> Iterator[str]:
    options = ("--tls=require", f"--tls-certificates={pki}", "--tls-verify-peer")
    with nbdkit(*options, *words) as path:
        yield path


def test_tls(pki: Path, tmp_path: Path) -> None:
    with in_tls(pki, "memory", "16M") as path:
        secure = f"{uri(path, scheme='nbds+unix')}&tls-certificates={pki}"
        image = open_nbd(parse_nbd_uri(secure), writable=True)
        written_by_two(image, 16)
        assert list(image.extents()) == [(0, 16 * MIB)]
        with (pki / "ca-cert.pem").open("rb") as file:
            assert not image.write_part(0, FilePart(file.fileno(), 0, 100))
        image.close()
        run("nbdcopy", secure, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"".join(piece(at) for at in range(16))
        with pytest.raises(FailureError, match="the server requires TLS; use a URI that begins"):
            open_nbd(parse_nbd_uri(uri(path)), writable=False)


def test_tls_that_is_not_trusted(pki: Path, tmp_path: Path) -> None:
    (tmp_path / "ca-cert.pem").write_bytes((pki / "ca-cert.pem").read_bytes())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ca-cert.pem").write_text("nothing")
    with in_tls(pki, "memory", "1M") as path:
        base = uri(path, scheme="nbds+unix")
        for options, words in {
            "": "TLS: (self-signed certificate|unable to get local issuer)",
            f"&tls-certificates={pki}&tls-hostname=other": "TLS: Hostname mismatch",
            f"&tls-certificates={tmp_path}/bad": "the certificates in .*; the folder must have",
            f"&tls-certificates={tmp_path}/away": "the certificates in .*No such file",
        }.items():
            with pytest.raises(FailureError, match=words):
                open_nbd(parse_nbd_uri(base + options), writable=False)
        # Without a certificate of ours: in TLS 1.3 the refusal comes after the handshake.
        with pytest.raises(FailureError):
            open_nbd(parse_nbd_uri(f"{base}&tls-certificates={tmp_path}"), writable=False)


def test_a_server_without_tls(pki: Path) -> None:
    with nbdkit("memory", "1M") as path:
        secure = f"{uri(path, scheme='nbds+unix')}&tls-certificates={pki}"
        with pytest.raises(FailureError, match="the server refused STARTTLS"):
            open_nbd(parse_nbd_uri(secure), writable=False)


def test_interrupted(tmp_path: Path) -> None:
    """A thread that is interrupted in the middle of an answer leaves nothing to believe."""
    with nbdkit("memory", "16M") as path, opened(path) as image:

        class InterruptedHereError(BaseException):
            pass

        def interrupt(*_: object, **__: object) -> None:
            raise InterruptedHereError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("blkmig_cli.disks.nbd.replies.Replies.take", interrupt)
            with pytest.raises(InterruptedHereError):
                image.read(0, 1)
        with pytest.raises(FailureError, match="interrupted"):
            image.read(0, 1)
