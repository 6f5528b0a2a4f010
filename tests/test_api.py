"""``import blkmig_cli``: the public library, in the way that its users call it."""

import hashlib
import inspect
import io
import subprocess
import sys
from pathlib import Path

import pytest

import blkmig_cli
from blkmig_cli.runs import Run as Rows
from blkmig_cli.runs import expand
from tests import raw
from tests.conftest import Capture

MIB = 1 << 20
DIRTY = raw.bitmap_start() + raw.bitmap_bits(0, 6144, b"\3".ljust(8, b"\0")) + raw.COMPLETE


def filled(sector: int, device: str = "d", byte: int = 7) -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


@pytest.fixture
def path(tmp_path: Path) -> str:
    content = raw.qemu(filled(2048, byte=9), filled(0), raw.block(4096, 8), bitmaps=DIRTY)
    (tmp_path / "s.bin").write_bytes(content)
    return str(tmp_path / "s.bin")


def test_importing_it_costs_nothing() -> None:
    script = "import sys, blkmig_cli; print(sorted(sys.modules)); blkmig_cli.open; print(len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert "numpy" not in first
    assert "construct" not in first
    assert int(second) > first.count("'") // 2


def test_all_that_is_public_is_there_and_explained() -> None:
    for name in blkmig_cli.__all__:
        thing = getattr(blkmig_cli, name)
        assert inspect.getdoc(thing)
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if inspect.isfunction(value) and not member.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{member}"
    with pytest.raises(AttributeError, match="nonsense"):
        blkmig_cli.nonsense  # noqa: B018


def test_events_and_runs(path: str) -> None:
    with blkmig_cli.open(path) as stream:
        events = list(stream.events())
        assert list(expand(stream.runs())) == events
        assert not any(isinstance(event, Rows) for event in events)
        assert stream.size == Path(path).stat().st_size == events[-1].offset + events[-1].length


def test_a_disk_is_a_file(path: str) -> None:
    wanted = bytes([7]) * MIB + bytes([9]) * MIB + bytes(MIB)
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
        with io.BufferedReader(stream.disk("d", 2 * MIB)) as buffered:
            assert [byte for (byte,) in iter(lambda: buffered.read(1), b"")] == list(
                wanted[: 2 * MIB]
            )
        with pytest.raises(blkmig_cli.UsageError, match="the stream has 'd'"):
            stream.disk("e")


def test_captures(capture: Capture) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    sizes = {name: disk["size"] for name, disk in capture.truth["devices"].items()}
    granularities = {
        (bitmap["device"], bitmap["name"]): bitmap["granularity"]
        for bitmap in capture.truth["bitmaps"]
    }
    whole = "incomplete" not in capture.name and "incremental" not in capture.name
    with blkmig_cli.open(
        str(capture.path), sizes=sizes, granularities=granularities
    ) as stream:  # fmt: skip
        assert stream.report().complete is whole
        for device in stream.report().devices:
            name = device.disk.name
            if device.disk.has_blocks and whole:
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
    for dialect in ("qemu", "v1", "v2"):
        with blkmig_cli.open_image(str(image)) as disk:
            events = blkmig_cli.send([blkmig_cli.Disk("d", disk, [bitmap])], dialect=dialect)
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
    cut = tmp_path / "cut"
    cut.write_bytes(Path(path).read_bytes()[: MIB + 500])
    with blkmig_cli.open(str(cut)) as stream:
        assert isinstance(stream.report().failure, blkmig_cli.StreamError)
        assert stream.disk().seek(0, io.SEEK_END) == 2 * MIB
        with pytest.raises(blkmig_cli.StreamError):
            list(stream.events())
    with pytest.raises(blkmig_cli.FailureError), blkmig_cli.open(str(tmp_path / "none")):
        pass
