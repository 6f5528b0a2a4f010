"""Replays in a folder of their own: small streams, what stands there before and after."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome, fails
from tests.support import raw

MIB = 1 << 20
BLKMIG = [sys.executable, "-m", "blkmig_cli"]


def filled(byte: int, length: int = MIB) -> bytes:
    return bytes([byte]) * length


def data(sector: int, byte: int, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, filled(byte))


BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
#: Two chunks of data, and a bitmap that states the disk's size.
STREAM = raw.qemu(data(0, 1), data(2048, 2), bitmaps=BITMAP)
DISK = filled(1) + filled(2)
#: The second chunk is missing, as the bitmap shows.
GAP = raw.qemu(data(0, 1), bitmaps=BITMAP)
TWO = raw.qemu(data(0, 1), data(0, 2, "e"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in this folder, with names that have no folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(content: bytes, name: str = "s.bin") -> str:
    Path(name).write_bytes(content)
    return name


def here() -> dict[str, bytes | str | None]:
    """Return what is in the folder: files by content, links by target."""
    found: dict[str, bytes | str | None] = {}
    for path in Path().iterdir():
        found[path.name] = os.readlink(path) if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            found[path.name] = path.read_bytes()
    return found


def refused(
    outcome: Outcome, status: int, words: str, before: dict[str, bytes | str | None]
) -> None:
    """One line, the exit status, and nothing has changed."""
    fails(outcome, status, words)
    assert here() == before


def source(kind: str, name: str = "s.bin") -> str:
    return name if kind == "file" else f"exec:cat {name}"


both_sources = pytest.mark.parametrize("kind", ["file", "pipe"])


class InOrder:
    """Stands for ``Overlap``: runs each job at once, in this thread."""

    def __enter__(self) -> "InOrder":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, _: object, __: int, ___: int, job: Callable[[], None]) -> None:
        job()

    def wait(self, _: object, __: int, ___: int) -> None:
        pass

    def drain(self) -> None:
        pass
