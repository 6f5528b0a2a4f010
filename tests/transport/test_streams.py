"""Where a STREAM may come from: paths, URIs, pipes, compressed or not; and the exits of real processes."""

import gzip
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.transport.source import open_stream
from tests.conftest import Run, fails
from tests.support import raw, zstd
from tests.support.feed import events, piped

#: For tests that read in this process: those of processes of their own always scan.
with_both_engines = pytest.mark.usefixtures("engine")

STREAM = raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=b"\5" * raw.CHUNK))
BLKMIG = [sys.executable, "-m", "blkmig_cli"]


def call(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*BLKMIG, *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


@pytest.fixture
def expected(stream: Path, run: Run) -> str:
    outcome = run("dump", stream, "--output", "jsonl", "--payload", "sha256")
    assert outcome.status == 0
    return outcome.out


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "two-gzip-members": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]),
}


@with_both_engines
@pytest.mark.parametrize("packer", PACKERS)
def test_compressed(run: Run, tmp_path: Path, expected: str, packer: str) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(PACKERS[packer](STREAM))
    assert run("dump", packed, "--output", "jsonl", "--payload", "sha256").out == expected
    image = tmp_path / "disk"
    assert run("replay", packed, "--image", image, "--create", "--device-size", "2M").status == 0
    assert image.read_bytes() == bytes(raw.CHUNK) + b"\5" * raw.CHUNK


@with_both_engines
@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_and_cut(run: Run, tmp_path: Path, packer: str) -> None:
    packed = tmp_path / "packed"
    data = PACKERS[packer](STREAM)
    packed.write_bytes(data[: len(data) - 12])
    outcome = run("validate", packed)
    assert outcome.status == 3
    assert len(outcome.err.splitlines()) == 1


@with_both_engines
def test_damaged_gzip(run: Run, tmp_path: Path) -> None:
    data = bytearray(gzip.compress(STREAM))
    data[-6] ^= 0xFF
    (tmp_path / "packed").write_bytes(data)
    outcome = run("validate", tmp_path / "packed")
    assert outcome.status == 3
    assert "damaged" in outcome.err


@with_both_engines
def test_file_uri_with_offset(run: Run, tmp_path: Path, expected: str) -> None:
    path = tmp_path / "later"
    path.write_bytes(b"x" * 777 + STREAM)
    words = ("--output", "jsonl", "--payload", "sha256")
    assert run("dump", f"file:{path},offset=777", *words).out == expected
    assert run("dump", f"file:{path}", *words).status == 3
    image = tmp_path / "disk"
    outcome = run("replay", f"file:{path},offset=777", "--image", image, "--create")
    assert outcome.status == 0
    assert image.read_bytes() == bytes(raw.CHUNK) + b"\5" * raw.CHUNK


@with_both_engines
@pytest.mark.parametrize("end", ["", ",offset=0"])
@pytest.mark.parametrize("words", [["scrub"], ["extract"], ["convert", "--normalize"]])
def test_a_file_uri_is_no_target(run: Run, stream: Path, words: list[str], end: str) -> None:
    for target in (stream, f"file:{stream}"):
        outcome = run(*words, f"file:{stream}{end}", "--device-size=2M", "--to", target)
        fails(outcome, 2, "are the same file")
    assert stream.read_bytes() == STREAM


@with_both_engines
def test_exec(run: Run, stream: Path, expected: str) -> None:
    words = ("--output", "jsonl", "--payload", "sha256")
    assert run("dump", f"exec:cat {stream}", *words).out == expected
    assert run("validate", f"exec:cat {stream}").status == 0
    outcome = run("validate", f"exec:cat {stream}; exit 5")
    assert outcome.status == 4
    assert "status 5" in outcome.err


@with_both_engines
def test_fd(run: Run, stream: Path, expected: str) -> None:
    fd = os.open(stream, os.O_RDONLY)
    try:
        words = ("dump", f"fd:{fd}", "--output", "jsonl", "--payload", "sha256")
        assert run(*words).out == expected
    finally:
        os.close(fd)
    assert run("dump", "fd:987").status == 4


INPUTS = {
    "empty": (b"", 3),
    "text": (b"This is no stream, but a text.\n", 3),
    "half a magic": (b"QEV", 3),
    "old version": (b"QEVM\0\0\0\2", 3),
    "qcow2": (b"QFI\xfb\0\0\0\3" + bytes(500), 3),
    "zeros": (bytes(4096), 3),
    "truncated": (STREAM[:-5], 3),
    "fine": (STREAM, 0),
}


@with_both_engines
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("command", ["dump", "validate"])
def test_inputs(run: Run, tmp_path: Path, command: str, name: str) -> None:
    data, status = INPUTS[name]
    (tmp_path / "x").write_bytes(data)
    outcome = run(command, tmp_path / "x")
    assert outcome.status == status
    assert len(outcome.err.splitlines()) == (status != 0)


@with_both_engines
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_not_replayed(run: Run, tmp_path: Path, name: str) -> None:
    data, status = INPUTS[name]
    (tmp_path / "x").write_bytes(data)
    outcome = run("replay", tmp_path / "x", "--image", tmp_path / "disk", "--create")
    assert outcome.status == status
    assert (tmp_path / "disk").exists() == (status == 0)


@with_both_engines
@pytest.mark.parametrize("command", ["dump", "validate", "replay"])
def test_no_such_input(run: Run, tmp_path: Path, command: str) -> None:
    more = ("--image", tmp_path / "disk", "--create") if command == "replay" else ()
    for name in (tmp_path, tmp_path / "away", f"file:{tmp_path}/away"):
        outcome = run(command, name, *more)
        assert outcome.status == 4
        assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_stdin(expected: str) -> None:
    done = call("dump", "-", "--output", "jsonl", "--payload", "sha256", stdin=STREAM)
    assert (done.returncode, done.stdout.decode()) == (0, expected)
    assert call("dump", "-", stdin=gzip.compress(STREAM)).returncode == 0


def test_stdin_is_a_file(stream: Path, tmp_path: Path) -> None:
    command = [*BLKMIG, "replay", "-", "--image", str(tmp_path / "disk"), "--create"]
    with open(stream, "rb") as file:
        assert subprocess.run(command, stdin=file, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "disk").read_bytes()[raw.CHUNK :] == b"\5" * raw.CHUNK


@pytest.mark.parametrize(
    ("data", "status"),
    [(STREAM, 0), (raw.qemu(raw.block(2048, 8)), 1), (STREAM[:50], 3)],
)
def test_process_exit_status(data: bytes, status: int) -> None:
    done = call("validate", "-", stdin=data)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_process_exit_status_of_words_and_files(tmp_path: Path) -> None:
    assert call("validate").returncode == 2
    assert call("nonsense").returncode == 2
    assert call("validate", tmp_path / "away").returncode == 4
    done = call("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(b"blkmig")


@pytest.mark.parametrize("command", ["dump", "validate", "replay"])
def test_help_has_examples(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert f"blkmig {command} stream.bin" in outcome.out


def test_closed_output_is_quiet(tmp_path: Path) -> None:
    """The reader of our output may close it: status 141, and nothing on stderr."""
    path = tmp_path / "long"
    path.write_bytes(raw.qemu(*[raw.block(2048 * i, 8) for i in range(20_000)]))
    command = [*BLKMIG, "dump", str(path), "--output", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


@with_both_engines
@pytest.mark.parametrize("period", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_truncated_gzip_gives_all_that_came_out_of_it(period: int, tmp_path: Path) -> None:
    """Also records that are fewer than the scanner's least run when the data ends."""
    part = raw.part(1, b"".join(raw.block(2048 * at, 8) for at in range(period)) + raw.EOS)
    data = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    data += (part + raw.footer(1)) * 300
    packer = zlib.compressobj(wbits=31)
    whole, _ = events(piped(data))
    for length in range(len(data) - 2 * len(part), len(data)):
        packed = packer.copy()
        path = tmp_path / "s.gz"
        path.write_bytes(packed.compress(data[:length]) + packed.flush(zlib.Z_SYNC_FLUSH))
        expected = [event for event in whole if event.offset + event.length <= length]
        with open_stream(str(path)) as stream:
            found, error = events(stream.input)
        assert found == expected
        assert error is not None
        assert "gzip data is truncated" in error
