"""``import blkmig_cli``: the public library, in the way that its users call it."""

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import pytest

import blkmig_cli
from blkmig_cli.wire.events import Block, Header
from blkmig_cli.wire.runs.columns import Run as Rows
from blkmig_cli.wire.runs.columns import expand
from tests.conftest import Capture, get_capture
from tests.support import raw

MIB = 1 << 20
DIRTY = raw.bitmap_start() + raw.bitmap_bits(0, 6144, b"\3".ljust(8, b"\0")) + raw.COMPLETE


def filled(sector: int, device: str = "d", byte: int = 7) -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


@pytest.fixture
def path(tmp_path: Path) -> str:
    content = raw.qemu(filled(2048, byte=9), filled(0), raw.block(4096, 8), bitmaps=DIRTY)
    (tmp_path / "s.bin").write_bytes(content)
    return str(tmp_path / "s.bin")


def test_all_that_is_public_is_there() -> None:
    homes = [name for names in blkmig_cli._HOMES.values() for name in names]
    assert sorted([*homes, *blkmig_cli._MODULES]) == sorted(blkmig_cli.__all__)
    assert sorted(dir(blkmig_cli)) == sorted([*blkmig_cli.__all__, "__version__"])
    for name in homes:
        assert getattr(blkmig_cli, name).__name__ == name
    for name, module in blkmig_cli._MODULES.items():
        assert getattr(blkmig_cli, name).__name__ == f"blkmig_cli.{module}"
    with pytest.raises(AttributeError, match="nonsense"):
        blkmig_cli.nonsense  # noqa: B018


def test_events_and_runs(path: str) -> None:
    with blkmig_cli.open(path) as stream:
        events = list(stream.events())
        assert list(expand(stream.runs())) == events
        assert not any(isinstance(event, Rows) for event in events)
        assert stream.size == Path(path).stat().st_size == events[-1].offset + events[-1].length


def test_two_open_streams_are_independent(path: str) -> None:
    with blkmig_cli.open(path) as stream:
        expected = list(stream.events())
        seen = []
        for event in stream.events():
            seen.append(event)
            assert stream.devices == ["d"]
            assert stream.disk().read(1) == b"\7"
        assert seen == expected
        assert list(zip(stream.events(), stream.events(), strict=True)) == [
            (event, event) for event in expected
        ]


@pytest.mark.parametrize("way", ["file", "memory", "exec"])
def test_data_of_events(path: str, way: str) -> None:
    content = Path(path).read_bytes()
    named: Any = {"file": path, "memory": io.BytesIO(content), "exec": f"exec:cat {path}"}[way]
    with blkmig_cli.open(named) as stream:
        blocks = [
            (event, stream.read(event.data))
            for event in stream.events()
            if isinstance(event, Block) and event.data is not None
        ]
        assert [(event.sector, data[:2], len(data)) for event, data in blocks] == [
            (2048, b"\t\t", MIB),
            (0, b"\7\7", MIB),
        ]
        first = blocks[0][0].data
        assert first is not None
        if way == "file":
            assert stream.read(first) == bytes([9]) * MIB
        else:
            with pytest.raises(blkmig_cli.UsageError, match="has gone past"):
                stream.read(first)


def test_every_kind_of_input(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path(path).read_bytes()
    behind = tmp_path / "behind"
    behind.write_bytes(b"something else" + content)
    packed = gzip.compress(content)
    with open(path, "rb") as plain, open(behind, "rb") as other, open(path, "rb", 0) as unbuffered:
        assert other.read(14) == b"something else"
        ways: list[tuple[Any, int | None]] = [
            (Path(path), len(content)),
            (content, len(content)),
            (plain, len(content)),
            (other, len(content)),
            (unbuffered, len(content)),
            (io.BytesIO(content), None),
            (packed, None),
            (io.BytesIO(packed), None),
            (gzip.GzipFile(fileobj=io.BytesIO(packed)), None),
        ]
        for way, size in ways:
            with blkmig_cli.open(way) as stream:
                assert stream.size == size
                assert stream.report().complete
                if size is not None:
                    assert stream.disk().read(1) == b"\7"
        assert not plain.closed
    monkeypatch.chdir(tmp_path)
    for name in ("exec:exit 7", "-", "fd:9"):
        Path(path).rename(name)
        path = name
        with blkmig_cli.open(Path(name)) as stream:  # a path object is never a URI
            assert stream.size == len(content)
        assert blkmig_cli.write([], Path(f"{name}.new")) == 0
        assert Path(f"{name}.new").exists()


def test_a_file_just_written_and_a_file_of_text(path: str, tmp_path: Path) -> None:
    with open(tmp_path / "new", "w+b") as file:
        file.write(Path(path).read_bytes()[:600])
        file.seek(0)
        file.seek(600)
        file.write(Path(path).read_bytes()[600:])
        file.seek(0)
        with blkmig_cli.open(file) as stream:
            assert stream.report().complete
    with open(path, encoding="latin-1") as text, pytest.raises(TypeError, match="binary"):
        blkmig_cli.open(text)  # type: ignore[arg-type]


def test_use_after_close(path: str) -> None:
    with blkmig_cli.open(path) as stream:
        disk, events = stream.disk(), stream.events()
        next(events)
        with stream.disk() as other:
            pass
        with pytest.raises(ValueError, match="closed"):
            other.read(1)
    assert stream.closed
    with pytest.raises(ValueError, match="closed"):
        disk.read(1)
    for reading in (events, stream.events(), stream.runs()):
        with pytest.raises(ValueError, match="closed"):
            list(reading)
    stream.close()


def test_a_size_that_the_stream_contradicts(path: str) -> None:
    with (
        blkmig_cli.open(path, sizes={"d": 3 * MIB - 512}) as stream,
        pytest.raises(blkmig_cli.IncompleteError, match="states a disk of 3145728 bytes"),
    ):
        stream.disk()


def test_a_disk_is_a_file(path: str) -> None:
    wanted = bytes([7]) * MIB + bytes([9]) * MIB + bytes(MIB)
    records = raw.qemu(filled(2048, byte=9), filled(0), raw.block(4096, 8))
    Path(path).write_bytes(records)  # without the bitmap, which states a size
    with blkmig_cli.open(path, sizes={"d": 3 * MIB - 512}) as stream:
        with stream.disk() as disk:
            assert disk.size == 3 * MIB - 512
            assert disk.read() == wanted[:-512]
            assert disk.read() == b""
            assert disk.seek(-700, io.SEEK_END) == disk.size - 700
            assert len(disk.read(1000) or b"") == 700
            assert disk.seek(MIB - 2) == disk.tell()
            assert disk.read(4) == b"\7\7\t\t"
            with pytest.raises(ValueError, match="before the disk's start"):
                disk.seek(-1)
            with pytest.raises(ValueError, match="whence"):
                disk.seek(0, 3)
        with io.BufferedReader(stream.disk("d")) as buffered:
            assert b"".join(iter(lambda: buffered.read(1001), b"")) == wanted[:-512]
        assert [(piece.start, piece.end, piece.kind) for piece in stream.disk().pieces()] == [
            (0, MIB, "data"),
            (MIB, 2 * MIB, "data"),
            (2 * MIB, 3 * MIB - 512, "zero"),
        ]
        for ask in (stream.disk, stream.bitmaps):
            with pytest.raises(blkmig_cli.UsageError, match=r"the device.* 'd'"):
                ask("e")


def test_captures(capture: Capture) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    sizes = {name: disk["size"] for name, disk in capture.truth["devices"].items()}
    granularities = {
        (bitmap["device"], bitmap["name"]): bitmap["granularity"]
        for bitmap in capture.truth["bitmaps"]
    }
    whole = "incomplete" not in capture.name and "incremental" not in capture.name
    with blkmig_cli.open(str(capture.path), sizes=sizes, granularities=granularities) as stream:
        assert stream.report().complete is whole
        for device in stream.report().devices:
            name = device.disk.name
            if device.disk.has_blocks and not whole:
                with pytest.raises(blkmig_cli.IncompleteError):
                    stream.disk(name)
            elif device.disk.has_blocks:
                digest = hashlib.file_digest(stream.disk(name), "sha256").hexdigest()  # type: ignore[arg-type]
                assert digest == capture.truth["devices"][name]["sha256"]
        for bitmap in capture.truth["bitmaps"]:
            found = stream.bitmaps(bitmap["device"])[bitmap["name"]]
            dirty = [(item["start"], item["length"]) for item in bitmap["dirty"]]
            assert found.ranges(sizes[bitmap["device"]]) == dirty


def test_a_stream_is_made(path: str, tmp_path: Path) -> None:
    image, made = tmp_path / "disk", str(tmp_path / "made")
    image.write_bytes(bytes([5]) * MIB + bytes(MIB))
    bitmap = blkmig_cli.DirtyBitmap("b", 65536)
    bitmap.set_range(65536, 65536)
    dialects: list[Literal["qemu", "v1", "v2"]] = ["qemu", "v1", "v2"]
    for dialect in dialects:
        with blkmig_cli.open_image(str(image)) as disk:
            events = blkmig_cli.events_of([blkmig_cli.Disk("d", disk, [bitmap])], dialect=dialect)
            assert blkmig_cli.write(events, made) == Path(made).stat().st_size
        with blkmig_cli.open(
            made, sizes={None: 2 * MIB}, granularities={(None, "b"): 65536}
        ) as stream:
            assert stream.report().complete
            assert stream.disk().read() == image.read_bytes()
            assert stream.bitmaps()["b"].ranges(None) == [(65536, 65536)]


def test_a_pipe_is_read_once(path: str) -> None:
    with blkmig_cli.open(f"exec:cat {path}") as stream:
        assert stream.size is None
        assert stream.devices == ["d"]
        assert list(stream.bitmaps()) == ["b"]
        with pytest.raises(blkmig_cli.UsageError, match="only once"):
            list(stream.events())
        with pytest.raises(blkmig_cli.UsageError, match="to a file"):
            stream.disk()


def test_damage(path: str, tmp_path: Path) -> None:
    with blkmig_cli.open(Path(path).read_bytes()[: MIB + 500]) as stream:
        assert isinstance(stream.report().failure, blkmig_cli.StreamError)
        with pytest.raises(blkmig_cli.StreamError):
            stream.disk()
        assert stream.disk(allow_incomplete=True).size == 2 * MIB
        with pytest.raises(blkmig_cli.StreamError):
            list(stream.events())
    with pytest.raises(blkmig_cli.FailureError):
        blkmig_cli.open(str(tmp_path / "none"))
    with (
        pytest.raises(blkmig_cli.FailureError, match="status 7"),
        blkmig_cli.open(f"exec:cat {path}; exit 7") as failing,
    ):
        assert failing.report().complete


def test_sectors_that_were_not_sent(tmp_path: Path) -> None:
    content = raw.qemu(filled(0), filled(4096))
    with blkmig_cli.open(content, sizes={"d": 3 * MIB}) as stream:
        with pytest.raises(blkmig_cli.IncompleteError, match="1 MiB was not sent") as caught:
            stream.disk()
        assert caught.value.exit_status == 1
        disk = stream.disk(allow_incomplete=True)
        assert disk.read() == bytes([7]) * MIB + bytes(MIB) + bytes([7]) * MIB
        assert [piece.kind for piece in disk.pieces()] == ["data", "missing", "data"]


@pytest.mark.parametrize(
    "name", ["bitmaps-7.2-with-blocks", "classic-tail", "v1-blocks-and-bitmaps"]
)
def test_a_stream_is_copied(name: str, unpacked: Path) -> None:
    """What is read is what is written."""
    capture = get_capture(name, unpacked)
    granularities = {
        (bitmap["device"], bitmap["name"]): bitmap["granularity"]
        for bitmap in capture.truth["bitmaps"]
    }
    copy = io.BytesIO()
    with blkmig_cli.open(str(capture.path), granularities=granularities) as stream:
        written = blkmig_cli.write(stream.events(), copy, source=stream)
    assert written == len(copy.getvalue())
    assert copy.getvalue() == capture.data[:written]


def test_a_part_of_a_stream(tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_bytes(raw.qemu(filled(0), filled(0, "e", 8), filled(2048)))
    for name in (str(both), f"exec:cat {both}"):
        with blkmig_cli.open(name) as stream:
            kept = (e for e in stream.events() if not isinstance(e, Block) or e.device == "d")
            blkmig_cli.write(kept, tmp_path / "one", source=stream)
        assert (tmp_path / "one").read_bytes() == raw.qemu(filled(0), filled(2048))
    with blkmig_cli.open(both) as stream:
        with pytest.raises(TypeError, match="not being read"):
            blkmig_cli.write(stream.events(), io.BytesIO())
        with pytest.raises(blkmig_cli.UsageError, match="are the same file"):
            blkmig_cli.write(stream.events(), both, source=stream)


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    odd, fit = tmp_path / "odd", tmp_path / "fit"
    odd.write_bytes(bytes(700))
    fit.write_bytes(bytes(1024))
    late, wrong = blkmig_cli.DirtyBitmap("late", 512), blkmig_cli.DirtyBitmap("wrong", 1000)
    late.set_range(1024, 1)
    good = blkmig_cli.DirtyBitmap("good", 512)
    kinds: list[tuple[Path, str, list[blkmig_cli.DirtyBitmap], Any, str]] = [
        (odd, "d", [], {}, "not a multiple of 512"),
        (fit, "d", [late], {}, "dirty up to byte 1536"),
        (fit, "d", [wrong], {}, "granularity 1000"),
        (fit, "", [good], {}, "a device without a name"),
        (fit, "d" * 256, [], {}, "over 255 bytes"),
        (fit, "d", [good], {"dialect": "classic"}, "no place for bitmaps"),
        (fit, "d", [good], {"container": "none"}, "no place for bitmaps"),
        (fit, "d", [], {"dialect": "v3"}, "none of"),
    ]
    for path, device, bitmaps, options, message in kinds:
        with blkmig_cli.open_image(path) as image:
            disk = blkmig_cli.Disk(device, image, bitmaps)
            with pytest.raises(blkmig_cli.BlkmigError, match=message):
                blkmig_cli.events_of([disk], **options)
    with blkmig_cli.open_image(fit) as image:
        twice = [blkmig_cli.Disk("d", image), blkmig_cli.Disk("d", image)]
        with pytest.raises(blkmig_cli.UsageError, match="the same device"):
            blkmig_cli.events_of(twice)
    with pytest.raises(blkmig_cli.UsageError, match="'qcow2' is none of auto"):
        blkmig_cli.open(fit, container="qcow2")  # type: ignore[arg-type]


def test_a_file_that_fails_to_be_written() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(blkmig_cli.FailureError, match="No space left"):
        blkmig_cli.write([Header(0, 0, None, 3)], Full())


def test_what_the_commands_do(path: str, tmp_path: Path) -> None:
    """The library does what the commands do, with the same results as objects."""
    report = blkmig_cli.validate(path, sizes={"d": 3 * MIB})
    assert (report.verdict, report.exit_status()) == ("whole", 0)
    image, other = tmp_path / "d.img", tmp_path / "other.img"
    request = blkmig_cli.ReplayRequest(
        images={"d": str(image)}, create=True, hints=blkmig_cli.Hints({"d": 3 * MIB})
    )
    done = blkmig_cli.replay(path, request)
    assert done.accepted
    assert image.read_bytes() == content_of(path)
    options = blkmig_cli.ValidateOptions(images={"d": str(image)})
    assert blkmig_cli.validate(path, options).same == (("d", str(image)),)
    sent = blkmig_cli.send(
        {"d": image},
        tmp_path / "sent.bin",
        bitmaps=blkmig_cli.SendBitmaps(),
        manifest=tmp_path / "sent.json",
    )
    assert sent.written == (tmp_path / "sent.bin").stat().st_size
    made = blkmig_cli.convert(
        tmp_path / "sent.bin", tmp_path / "v2.bin", blkmig_cli.ConvertOptions("v2")
    )
    assert made.written == (tmp_path / "v2.bin").stat().st_size
    checked = blkmig_cli.ValidateOptions(
        manifest=blkmig_cli.read_manifest(str(tmp_path / "sent.json"))
    )
    assert blkmig_cli.validate(tmp_path / "v2.bin", checked).verdict == "whole"
    request = blkmig_cli.ReplayRequest(images={"d": str(other)}, create=True)
    assert blkmig_cli.replay((tmp_path / "v2.bin").read_bytes(), request).accepted
    assert other.read_bytes() == image.read_bytes()


def content_of(path: str) -> bytes:
    """The disk in the stream at ``path``, as the library reads it."""
    with blkmig_cli.open(path, sizes={"d": 3 * MIB}) as stream, stream.disk("d") as disk:
        return disk.readall()


def test_a_chain(tmp_path: Path) -> None:
    """An increment by a bitmap, and its fold onto the base."""
    image, base, increment = tmp_path / "d.img", tmp_path / "s0.bin", tmp_path / "s1.bin"
    image.write_bytes(b"\1" * (3 * MIB))
    blkmig_cli.send({"d": image}, base)
    image.write_bytes(b"\1" * MIB + b"\2" * (2 * MIB))
    bitmap = blkmig_cli.DirtyBitmap("b", 65536)
    bitmap.set_range(MIB, 2 * MIB)
    blkmig_cli.write_bitmaps(f"{image}.bitmaps.json", blkmig_cli.BitmapFile(3 * MIB, {"b": bitmap}))
    changes = blkmig_cli.SendChanges({None: "b"})
    identity = blkmig_cli.SendIdentity(base=str(base))
    sent = blkmig_cli.send({"d": image}, increment, changes=changes, identity=identity)
    assert 2 * MIB < sent.written < 3 * MIB
    folded = tmp_path / "folded.bin"
    blkmig_cli.fold([base, increment], folded)
    with blkmig_cli.open(folded) as stream, stream.disk() as disk:
        assert disk.read() == image.read_bytes() or not "they differ"
    with pytest.raises(blkmig_cli.IncompleteError, match="not an increment"):
        blkmig_cli.fold([increment, base], folded)
