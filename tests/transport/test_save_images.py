"""libvirt's save images, in every form that its header can say; the headers are written with struct."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.transport.save_image import SaveImage, save_image
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from tests.conftest import Run, fails
from tests.support import raw, zstd

CASES = Path(__file__).parents[1] / "cases"
STREAM = raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=b"\5" * raw.CHUNK))
DISK = bytes(raw.CHUNK) + b"\5" * raw.CHUNK
SIZE = ["--device-size", "2M"]
XML = b"<domain type='kvm'/>\0".ljust(600, b"\0")
FORMS = {
    "file": "{}",
    "pipe": "exec:cat {}",
    "offset": "file:{},offset=0",
    "stdin": "exec:gzip -dc {}.gz",
}
FORMATS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip.compress,
    2: bz2.compress,
    3: lzma.compress,
    5: zstd.compress,
}
every_form = pytest.mark.parametrize("form", FORMS)


def save(
    stream: bytes,
    number: int = 0,
    *,
    magic: bytes = b"LibvirtQemudSave",
    version: int = 2,
    length: int | None = None,
    order: str = "<",
) -> bytes:
    data_length = len(XML) if length is None else length
    numbers = struct.pack(f"{order}5I", version, data_length, 1, number, 0)
    return magic + numbers + bytes(56) + XML + stream


def put(folder: Path, data: bytes, form: str) -> str:
    path = folder / "l.save"
    path.write_bytes(data)
    path.with_name("l.save.gz").write_bytes(gzip.compress(data))
    return FORMS[form].format(path)


@every_form
@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("order", ["<", pytest.param(">", marks=pytest.mark.long)])
@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.long), 2])
def test_the_stream_in_it_is_read(
    run: Run, tmp_path: Path, form: str, number: int, order: str, version: int
) -> None:
    packed = FORMATS[number](STREAM)
    stream = put(tmp_path, save(packed, number, order=order, version=version), form)
    plain = tmp_path / "plain.bin"
    plain.write_bytes(STREAM)
    # Offsets are those of the stream, as if it stood alone.
    words = ("--output", "jsonl", "--payload", "sha256")
    assert run("dump", stream, *words).out == run("dump", plain, *words).out
    image = tmp_path / "disk"
    assert run("replay", stream, "--image", image, "--create", *SIZE).status == 0
    assert image.read_bytes() == DISK
    assert run("extract", stream, *SIZE, "--to", image).status == 0
    assert image.read_bytes() == DISK


@every_form
@pytest.mark.parametrize("number", [0, 1])
def test_an_unfinished_one_is_no_success(run: Run, tmp_path: Path, form: str, number: int) -> None:
    """Even where all of the stream is there."""
    packed = save(FORMATS[number](STREAM), number, magic=b"LibvirtQemudPart")
    stream = put(tmp_path, packed, form)
    outcome = run("validate", stream, *SIZE, "--output", "json")
    assert outcome.status == 3
    (finding,) = [f for f in outcome.report["findings"] if f["severity"] == "error"]
    assert finding["id"] == "truncated"
    assert "libvirt did not finish" in finding["message"]
    for words in (
        ["replay", "--image", tmp_path / "disk", "--create"],
        ["extract", "--to", tmp_path / "disk"],
        ["convert", "--to", tmp_path / "disk"],
        ["scrub", "--to", tmp_path / "disk"],
        ["map"],
    ):
        outcome = run(words[0], stream, *words[1:], *SIZE, "-q")
        assert outcome.status == 3, outcome
        assert "libvirt did not finish" in outcome.err
        assert not (tmp_path / "disk").exists()
    out = tmp_path / "salvaged"
    assert run("salvage", stream, *SIZE, "--to", out, "-q").status == 1
    assert run("extract", out, *SIZE, "--to", tmp_path / "disk").status == 0
    assert (tmp_path / "disk").read_bytes() == DISK


@every_form
def test_a_cut_one(run: Run, tmp_path: Path, form: str) -> None:
    whole = save(STREAM)
    for cut in (20, 91, 92, 300, 692, 699, 700, 2000, len(whole) - 1):
        stream = put(tmp_path, whole[:cut], form)
        outcome = run("validate", stream, "--output", "json")
        assert outcome.status == 3
        found = outcome.report["findings"][0]["id"]
        assert found == ("not-a-stream" if 92 <= cut <= 692 else "truncated"), cut


@every_form
def test_mapped_ram_in_a_sparse_one(run: Run, tmp_path: Path, form: str) -> None:
    """Its offsets count from the start of the file, header included."""
    before = len(save(b""))
    capability = (
        b"\5" + raw.name("configuration/capabilities") + struct.pack(">II", 1, 1)
        + raw.name("mapped-ram")
    )  # fmt: skip
    head = raw.HEADER + raw.configuration() + capability
    pages = before + 1000
    header = raw.name("a") + struct.pack(">QIQQQ", 4096, 1, 4096, 0, pages)
    ram = raw.start(2, "ram", 4, struct.pack(">Q", 4096 | 4) + header)
    body = (head + ram).ljust(1000, b"\xaa") + bytes(4096)
    body += struct.pack(">Q", 0x10) + raw.footer(2) + raw.EOF
    stream = put(tmp_path, save(body, 6), form)
    lines = run("dump", stream, "--output", "jsonl", "--all").out.splitlines()
    assert len(lines) == 7
    assert run("validate", stream).status == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            save(STREAM, 4),
            "compressed with lzop, which is not supported; unpack what follows byte 692",
        ),
        (save(STREAM, 9), "compressed with format 9, which is not supported"),
        (save(STREAM, version=3), "unknown header version"),
        (save(STREAM, version=0), "unknown header version"),
        (save(STREAM, length=limits.SAVE_DATA_MAX + 1), "bytes of XML"),
        (save(STREAM, length=0xFFFFFFFF), "bytes of XML"),
        (save(STREAM, 1), "the gzip data is damaged"),
        (save(STREAM, 2), "the bzip2 data is damaged"),
        (save(STREAM, 3), "the xz data is damaged"),
        (save(STREAM, 5), "the zstd data is damaged"),
        (save(bz2.compress(STREAM)[:-4], 2), "the bzip2 data is truncated"),
    ],
)
@every_form
def test_what_is_refused(run: Run, tmp_path: Path, form: str, data: bytes, words: str) -> None:
    stream = put(tmp_path, data, form)
    for command in ("validate", "dump", "map"):
        outcome = run(command, stream, "-q")
        assert outcome.status == 3
        assert words in outcome.err
    assert run("validate", stream, "--output", "json").report["findings"][0]["severity"] == "error"


@pytest.mark.parametrize(
    ("head", "error", "said", "offset"),
    [
        (save(b"")[:91], TruncatedError, "libvirt save image truncated at byte 91, inside its header", 91),
        (b"LibvirtQemudPart", TruncatedError, "libvirt save image truncated at byte 16, inside its header",
         16),
        (save(b"", version=3), MalformedError, "libvirt save image with an unknown header version",
         0),
        (save(b"", length=limits.SAVE_DATA_MAX + 1), MalformedError,
         f"libvirt save image with {limits.SAVE_DATA_MAX + 1} bytes of XML", 0),
        (save(b"", 9), StreamError,
         "libvirt save image compressed with format 9, which is not supported", None),
    ],
)  # fmt: skip
def test_a_header_that_is_refused(
    head: bytes, error: type[StreamError], said: str, offset: int | None
) -> None:
    with pytest.raises(StreamError) as raised:
        save_image(head[:92])
    assert type(raised.value) is error
    assert (raised.value.message, raised.value.offset) == (said, offset)
    expected = "unpack what follows byte 692 of it, and read that" if offset is None else None
    assert raised.value.hint == expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("number", "compression"),
    [(0, None), (1, "gzip"), (2, "bzip2"), (3, "xz"), (5, "zstd"), (6, None)],
)
@pytest.mark.parametrize("length", [0, 5, limits.SAVE_DATA_MAX])
def test_a_header(order: str, number: int, compression: str | None, length: int) -> None:
    head = save(b"", number, order=order, length=length)[:92]
    assert save_image(head) == SaveImage(92 + length, compression, None)
    found = save_image(save(b"", number, order=order, magic=b"LibvirtQemudPart")[:92])
    assert found is not None
    assert isinstance(found.damage, TruncatedError)
    assert str(found.damage) == "libvirt did not finish writing this save image"
    assert save_image(b"QEVM") is None
    assert save_image(b"") is None


def test_two_bzip2_members_are_one_stream(run: Run, tmp_path: Path) -> None:
    packed = bz2.compress(STREAM[:99]) + bz2.compress(STREAM[99:])
    assert run("validate", put(tmp_path, save(packed, 2), "file"), *SIZE).status == 0


def test_the_case(run: Run, tmp_path: Path) -> None:
    """A real save image, packed and unpacked; the stream in it begins at byte 688."""
    packed, path = CASES / "libvirt.save.gz", tmp_path / "l.save"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    with open_stream(f"file:{path},offset=688") as stream:
        expected = list(Decoder(stream.input))
    assert expected[0].offset == 0
    for name in (str(packed), str(path), f"exec:cat {path}"):
        with open_stream(name) as stream:
            assert list(Decoder(stream.input)) == expected
    report = run("validate", path, "--output", "json").report
    assert [(d["name"], d["chunks"]) for d in report["devices"]] == [
        ("drive-virtio-disk0", 7),
        ("drive-ide1", 6),
    ]
    fails(run("dump", path, "--spec", "--payload", "ref"), 2, "path of an uncompressed file")
