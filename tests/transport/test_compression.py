"""Targets compressed by their name: unpacking gives what was written; a failed command leaves no target."""

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import StreamError
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport import compression
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.target import open_target
from tests.conftest import Run, fails
from tests.support import raw, zstd

MIB = 1 << 20


UNPACK = {".gz": gzip.decompress, ".xz": lzma.decompress, ".zst": zstd.decompress}
every_suffix = pytest.mark.parametrize("suffix", UNPACK)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(MIB) + bytes(2 * MIB) + b"text ".ljust(8) * (MIB >> 3))
    return path


@every_suffix
def test_send(run: Run, disk: Path, suffix: str) -> None:
    plain, packed = disk.with_name("s.bin"), disk.with_name(f"s.bin{suffix}")
    assert run("send", disk, "--no-identity", "--to", plain).status == 0
    outcome = run("send", disk, "--no-identity", "--to", packed, "-v")
    assert outcome.status == 0
    assert f"{plain.stat().st_size:,} bytes written" in outcome.err
    assert UNPACK[suffix](packed.read_bytes()) == plain.read_bytes()
    assert packed.stat().st_size < plain.stat().st_size
    # And our own reader takes it.
    assert run("validate", packed, "--image", disk).status == 0


@every_suffix
def test_convert(run: Run, unpacked: Path, tmp_path: Path, suffix: str) -> None:
    stream, plain, packed = unpacked / "classic-none.bin", tmp_path / "v2", tmp_path / f"v2{suffix}"
    assert run("convert", stream, "--dialect", "v2", "--to", plain).status == 0
    assert run("convert", stream, "--dialect", "v2", "--to", packed).status == 0
    assert UNPACK[suffix](packed.read_bytes()) == plain.read_bytes()


@every_suffix
def test_build_and_scrub(run: Run, unpacked: Path, tmp_path: Path, suffix: str) -> None:
    stream, spec = unpacked / "classic-tail.bin", tmp_path / "s.spec"
    spec.write_text(run("dump", stream, "--spec").out)
    built, clean = tmp_path / f"built{suffix}", tmp_path / f"clean{suffix}"
    assert run("build", spec, "--to", f"file:{built}").status == 0
    assert UNPACK[suffix](built.read_bytes()) == stream.read_bytes()
    words = ["--device-size", "2738176", "--to"]
    assert run("scrub", stream, *words, tmp_path / "clean.bin").status == 0
    assert run("scrub", built, *words, clean).status == 0
    assert UNPACK[suffix](clean.read_bytes()) == (tmp_path / "clean.bin").read_bytes()


@every_suffix
def test_nothing_is_left_of_a_failure(run: Run, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"old{suffix}"
    target.write_bytes(b"as it was")
    spec = tmp_path / "s.spec"
    spec.write_text(
        '{"blkmig-spec": 1}\n{"type": "raw", "payload": {"fill": 7, "length": 3000000}}\n?'
    )
    fails(run("build", spec, "--to", target), 3, "line 3")
    spec.unlink()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"as it was"


@every_suffix
def test_an_input_is_no_target(run: Run, tmp_path: Path, suffix: str) -> None:
    stream = tmp_path / f"s{suffix}"
    stream.write_bytes(raw.qemu(raw.block(0, 8)))
    fails(run("scrub", stream, "--device-size", "1M", "--to", stream), 2, "are the same file")


def test_only_files_are_compressed_by_name(run: Run, disk: Path) -> None:
    by_command = disk.with_name("s.gz")
    assert run("send", disk, "--no-identity", "--to", f"exec:cat > {by_command}").status == 0
    assert run("send", disk, "--no-identity", "--to", disk.with_name("s.bin")).status == 0
    assert by_command.read_bytes() == disk.with_name("s.bin").read_bytes()


@pytest.mark.parametrize(("name", "copied"), [("s.bin", True), ("s.gz", False)])
def test_plain_targets_take_the_fast_way(
    run: Run, disk: Path, monkeypatch: pytest.MonkeyPatch, name: str, copied: bool
) -> None:
    """The image's bytes go to a plain file without passing through the program's objects."""
    ways: set[str] = set()

    def noting(way: Callable[..., object]) -> Callable[..., object]:
        def call(image: RawImage, *words: int, **more: bool) -> object:
            if words != (0, 512):  # what the image begins with is looked at first
                ways.add(way.__name__)
            return way(image, *words, **more)

        return call

    monkeypatch.setattr(RawImage, "places", noting(RawImage.places))
    monkeypatch.setattr(RawImage, "read", noting(RawImage.read))
    assert run("send", disk, "--to", disk.with_name(name)).status == 0
    assert ("places" in ways) == copied
    assert ("read" in ways) == (not copied)


@settings(max_examples=30)
@given(
    suffix=st.sampled_from(sorted(UNPACK)),
    pieces=st.lists(
        st.tuples(st.sampled_from(["write", "copy", "flush"]), st.integers(0, 400_000))
    ),
)
def test_any_pieces(disk: Path, suffix: str, pieces: list[tuple[str, int]]) -> None:
    """However writes, copies and flushes are mixed, the bytes come out in their order."""
    content, expected = disk.read_bytes(), b""
    target = disk.with_name(f"t{suffix}")
    image = open_raw(str(disk), writable=False)
    with open_target(str(target), FileUses()) as sink:
        for way, number in pieces:
            data = content[number : 2 * number]
            if way == "write":
                sink.write(data)
            elif way == "copy":
                sink.copy(image, number, len(data))
            else:
                sink.flush()
                continue
            expected += data
        assert sink.written == len(expected)
        assert type(sink) is not Sink
    image.close()
    assert UNPACK[suffix](target.read_bytes()) == expected


def unpacked_with(
    module: object, packed: bytes, piece: int
) -> tuple[bytes, type[Exception] | None]:
    """What comes out of gzip data, and the kind of error that ends it."""
    found, target = b"", memoryview(bytearray(piece))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "_deflate", lambda: module)
        readinto = compression.unpacked("gzip", io.BytesIO(packed))
        try:
            while count := readinto(target):
                found += target[:count]
        except StreamError as error:
            return found, type(error)
    return found, None


@settings(max_examples=100)
@given(
    st.lists(st.binary(max_size=5000), min_size=1, max_size=3),
    st.sampled_from(["whole", "cut", "flip", "padded"]),
    st.integers(0),
    st.sampled_from([1 << 18, 100, 7]),
)
def test_isal_gives_what_zlib_gives(parts: list[bytes], how: str, at: int, piece: int) -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    members = [bytearray(gzip.compress(part * 3, 6, mtime=0)) for part in parts]
    if how == "flip":  # behind the header, of which ISA-L checks less
        member = members[at % len(members)]
        member[10 + at % (len(member) - 10)] ^= 1 << at % 8
    packed = bytearray(b"".join(members))
    if how == "cut":
        del packed[at % len(packed) :]
    elif how == "padded":
        packed += bytes(at % 5000)
    data, error = unpacked_with(zlib, bytes(packed), piece)
    other, other_error = unpacked_with(isal_zlib, bytes(packed), piece)
    assert (other_error is None) == (error is None)
    if how != "flip":
        assert (other, other_error) == (data, error)
    elif error is None:
        assert other == data
