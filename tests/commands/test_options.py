"""Values of options: how they are split, and what is refused with status 2 and one line."""

from pathlib import Path

import pytest

from blkmig_cli.commands.options import device_values, hints_of, split_device
from blkmig_cli.errors import UsageError
from tests.conftest import Run, fails
from tests.support import raw

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.img", (None, "a.img")),
        ("d=a.img", ("d", "a.img")),
        ("d=a=b.img", ("d", "a=b.img")),
        ("=a.img", ("", "a.img")),
        ("./a=b", (None, "./a=b")),
        ("../a=b", (None, "../a=b")),
        ("/dev/disk/by-id/a=b", (None, "/dev/disk/by-id/a=b")),
        ("a/b=c.img", ("a/b", "c.img")),
        (".=a.img", (".", "a.img")),
        ("d=./a=b", ("d", "./a=b")),
    ],
)
def test_split_device(text: str, found: tuple[str | None, str]) -> None:
    assert split_device(text) == found


def test_values_by_device() -> None:
    assert device_values("--image", ("a=b", "=c", "d")) == {"a": "b", "": "c", None: "d"}
    for values in (("a=b", "a=c"), ("b", "c"), ("a=",), ("",)):
        with pytest.raises(UsageError, match=r"^--image "):
            device_values("--image", values)


def test_hints() -> None:
    hints = hints_of(("b=64k", "d:b=4k", "x=y=2M"), ("48 MiB", "d=3M", "=1G", "e=f=max"))
    assert hints.sizes == {None: 48 * MIB, "d": 3 * MIB, "": 1 << 30}
    assert hints.largest == {"e=f"}
    assert hints.granularities == {(None, "b"): 65536, ("d", "b"): 4096, (None, "x=y"): 2 * MIB}


SIZES = [
    "", "x", "=", "d=", "1Q", "48MB", "-512", "513", "100", "d=1.5", "5.012 MiB", "9" * 20,
    "9" * 4000, "d=" + "9" * 4000, "max=512x", "MAX", "8E", "d=8388608T",
]  # fmt: skip
GRANULARITIES = [
    "64k", "=64k", "b=", "b=7", "b=0", "b=256", "b=1000", "b=4G", "b=x", "b=" + "9" * 20,
    "b" * 4000, "b=max", "b=" + "9" * 4000,
]  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_what_is_no_disk_size(run: Run, text: str) -> None:
    outcome = run("validate", "missing", "--device-size", text)
    fails(outcome, 2, "--device-size")
    assert len(outcome.err) < 300


@pytest.mark.parametrize("text", GRANULARITIES)
def test_what_is_no_granularity(run: Run, text: str) -> None:
    outcome = run("validate", "missing", "--granularity", text)
    fails(outcome, 2, "--granularity")
    assert len(outcome.err) < 300


def test_one_value_for_each(run: Run) -> None:
    for words in (
        ["--device-size=1M", "--device-size=2M"],
        ["--device-size=d=1M", "--device-size=d=max"],
        ["--granularity=b=64k", "--granularity=b=64k"],
        ["--image=d=a", "--image=d=b"],
    ):
        fails(run("validate", "missing", *words), 2, "the second ")


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A disk of about 4 MiB by its progress."""
    path = tmp_path / "s.bin"
    bits = raw.bitmap_start() + raw.bitmap_bits(0, 4 * 2048, bytes(8)) + raw.COMPLETE
    records = [raw.progress(0), raw.block(0, 8), raw.progress(24), raw.block(2048, 8)]
    records += [raw.progress(49), raw.block(4096, 8), raw.progress(74), raw.block(6144, 8)]
    path.write_bytes(raw.qemu(*records))
    (tmp_path / "b.bin").write_bytes(raw.qemu(*records, bitmaps=bits))
    return path


def test_as_large_as_the_stream_allows(run: Run, stream: Path) -> None:
    words = ["validate", stream, "--output", "json", "--device-size"]
    bounds = run(*words[:-1]).report["devices"][0]["inferred-size"]
    most = bounds["max"]
    assert bounds["min"] < most
    for value in ("max", "d=max"):
        (device,) = run(*words, value).report["devices"]
        assert device["size"] == most
    # What the stream states is all that it allows.
    stated = ["validate", stream.with_name("b.bin"), "--output", "json", "--device-size=max"]
    assert run(*stated).report["devices"][0]["size"] == 4 * MIB
    image = stream.with_name("image")
    image.write_bytes(bytes(4 * MIB))
    (device,) = run(*words, "max", "--image", image).report["devices"]
    assert device["size"] == most  # an option counts before an image


COMMANDS = ["validate", "info", "map", "extract", "convert", "replay"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--device-size=x=4M"], "no device 'x'; there is the device 'd'"),
        (["--device-size=x=max"], "no device 'x'"),
        (["--granularity=x=64k"], "no bitmap 'x'; there is the bitmap 'd/b'"),
        (["--granularity=x:b=64k"], "no bitmap 'x:b'"),
    ],
)
def test_what_is_not_in_the_stream(
    run: Run, stream: Path, command: str, words: list[str], text: str
) -> None:
    out = stream.with_name("out")
    more: dict[str, list[object]] = {
        "extract": ["--to", out],
        "convert": ["--to", out],
        "replay": [f"--image={out}", "--create"],
    }
    outcome = run(command, stream.with_name("b.bin"), *words, *more.get(command, []))
    assert outcome.status == 2, outcome
    assert text in outcome.err
    assert not out.exists()


def test_several_streams(run: Run, stream: Path) -> None:
    """A device is that of any of them."""
    other = stream.with_name("other")
    other.write_bytes(raw.qemu(raw.block(0, 8, "e")))
    words = ["validate", stream, other, "--device-size=e=1M"]
    assert "no device" not in run(*words).err
    outcome = run(*words, "--device-size=x=1M")
    assert outcome.status == 2
    assert "no device 'x'; there are the devices 'd', 'e'" in outcome.err
    # Of a damaged stream, not all is known.
    other.write_bytes(other.read_bytes()[:-10])
    assert run(*words, "--device-size=x=1M").status == 3
