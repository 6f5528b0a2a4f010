"""A send that is cut off and continued with a token ends as if nothing had happened, or is refused."""

import io
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blkmig_cli
from blkmig_cli import ReplayRequest, SendBitmaps
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.operations.replay import writer
from blkmig_cli.operations.resume_token import Received, parse_token, token_of
from blkmig_cli.operations.send.send import send
from tests.conftest import Run, fails
from tests.support import nbd, qcow2, raw
from tests.support.long import examples
from tests.support.qcow2 import needs_qemu_utils, qemu_img
from tests.support.replays import data, folder, here, put, refused  # noqa: F401 (an autouse fixture)
from tests.support.strategies import Shown, bitmaps, contents

MIB = 1 << 20
SLOW = settings(max_examples=examples(15, 600))
DISK = bytes(range(256)) * 4096 + bytes(MIB) + b"\6" * MIB + b"\7" * MIB + b"\5" * (MIB // 2)
#: What of its stream has two chunks of data, and one of zeros between them.
THREE_CHUNKS = 2 * MIB + 4096


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put what was received on stable storage after every chunk or two."""
    monkeypatch.setattr(writer, "_CHECKPOINT", MIB + 1)


class Killed(BaseException):
    """A receiver ends without a chance to say anything."""


class Dying(io.BytesIO):
    """A pipe whose reader is killed when it has read everything."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if not count:
            raise Killed
        return count


def cut(stream: bytes, at: int, request: ReplayRequest, *, killed: bool = False) -> None:
    """Replay only the first ``at`` bytes of a stream."""
    pipe = Dying(stream[:at]) if killed else io.BytesIO(stream[:at])
    with suppress(Killed):
        assert not blkmig_cli.replay(pipe, request).accepted


def sent(
    images: dict[str, str], marks: SendBitmaps | None = None, token: str | None = None
) -> bytes:
    """Return the stream of images, which are raw, whatever they look like."""
    Path("sent").unlink(missing_ok=True)
    known = None if token is None else parse_token("", token)
    send(images, "sent", bitmaps=marks, token=known, formats={None: "raw"})
    return Path("sent").read_bytes()


@dataclass(frozen=True)
class Case(Shown):
    disks: list[bytes]
    bitmaps: list[list[DirtyBitmap]]

    def __repr__(self) -> str:
        return f"<disks of {[len(disk) for disk in self.disks]} bytes>"

    def make(self) -> tuple[dict[str, str], ReplayRequest]:
        """Make the images to send; return them, and the request to replay them."""
        for old in Path().iterdir():
            old.unlink()
        images = {}
        for number, (disk, marks) in enumerate(zip(self.disks, self.bitmaps, strict=True)):
            path = images[f"drive{number}"] = f"{number}.img"
            Path(path).write_bytes(disk)
            if marks:
                names = {bitmap.name: bitmap for bitmap in marks}
                write_bitmaps(f"{path}.bitmaps.json", BitmapFile(len(disk), names))
        targets: dict[str | None, str] = {device: f"new{path}" for device, path in images.items()}
        return images, ReplayRequest(targets, create=True, formats={None: "raw"})

    def check(self, disks: list[bytes]) -> None:
        """Check that the new images are ``disks``, with the bitmaps."""
        for number, (disk, marks) in enumerate(zip(disks, self.bitmaps, strict=True)):
            assert Path(f"new{number}.img").read_bytes() == disk
            beside = Path(f"new{number}.img.bitmaps.json")
            assert beside.exists() is bool(marks)
            if marks:
                found = read_bitmaps(str(beside)).bitmaps
                assert set(found) == {bitmap.name for bitmap in marks}
                assert all(found[bitmap.name].same(bitmap, len(disk)) for bitmap in marks)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    disks = draw(st.lists(contents(4 * MIB), min_size=1, max_size=2))
    with_bitmaps = draw(st.booleans())
    marks = [[draw(bitmaps(len(disk), "b"))] if with_bitmaps else [] for disk in disks]
    return Case(disks, marks)


#: How much of a stream arrives, whether its reader is killed, and whether its disks change places.
CUTS = st.tuples(st.floats(0, 1), st.booleans(), st.booleans())


def all_of(case: Case) -> SendBitmaps | None:
    return SendBitmaps() if any(case.bitmaps) else None


@pytest.mark.scaled
@SLOW
@given(cases(), st.lists(CUTS, min_size=1, max_size=3), st.booleans())
def test_cut_anywhere_and_continued(
    case: Case, cuts: list[tuple[float, bool, bool]], in_file: bool
) -> None:
    """Also several times, in another order, and when the receiver is killed.

    What has arrived is not sent again.
    """
    images, request = case.make()
    token, received = None, 0
    for part, killed, turned in cuts:
        images = dict(reversed(images.items())) if turned else images
        stream = sent(images, all_of(case), token=token)
        resuming = replace(request, resume=token is not None)
        cut(stream, int(part * (len(stream) - 1)), resuming, killed=killed)
        try:
            token = blkmig_cli.resume_token(request)
        except blkmig_cli.FailureError:
            # Nothing has arrived: from the start, then.
            assert token is None
            for path in Path().glob("new*"):
                path.unlink()
            continue
        now = sum(disk.length for disk in parse_token("", token).disks)
        assert now >= received
        received = now
    rest = sent(images, all_of(case), token=token)
    last = rest if in_file else io.BytesIO(rest)
    result = blkmig_cli.replay(last, replace(request, resume=token is not None))
    assert result.accepted
    assert result.report.verdict == "whole"
    case.check(case.disks)
    if token is not None:
        chunks = sum(-(-len(disk) // MIB) for disk in case.disks)
        arrived = sum(disk.length // MIB for disk in parse_token("", token).disks)
        found = sum(device.disk.chunks for device in result.report.devices)
        assert found <= chunks - arrived


@pytest.mark.scaled
@SLOW
@given(cases(), st.floats(0, 1), st.integers(0, 1 << 40), st.binary(min_size=1, max_size=9))
def test_a_disk_that_has_changed(case: Case, part: float, place: int, change: bytes) -> None:
    """It is refused where the change has been received, or else the result is the disk as it is now."""
    images, request = case.make()
    stream = sent(images, all_of(case))
    cut(stream, int(part * (len(stream) - 1)), request)
    try:
        token = blkmig_cli.resume_token(request)
    except blkmig_cli.FailureError:
        return
    before, *others = case.disks
    now = bytearray(before)
    place %= len(now)
    now[place : place + len(change)] = change[: len(now) - place]
    Path("0.img").write_bytes(now)
    length = parse_token("", token).disks[0].length
    if now[:length] != before[:length]:
        with pytest.raises(blkmig_cli.FailureError, match="was written since"):
            sent(images, all_of(case), token=token)
        assert not Path("sent").exists()
        return
    rest = sent(images, all_of(case), token=token)
    assert blkmig_cli.replay(io.BytesIO(rest), replace(request, resume=True)).accepted
    case.check([bytes(now), *others])


@contextmanager
def interrupted(run: Run, *, at: int = THREE_CHUNKS) -> Iterator[str]:
    """A transfer of DISK as disk.img that was cut at byte ``at``; yields the token."""
    put(DISK, "disk.img")
    assert run("send", "disk.img", "--to", "s.bin").status == 0
    done = run("replay", f"exec:head -c {at} s.bin", "--image", "new.img", "--create")
    assert done.status == 3
    before = here()
    done = run("replay", "--print-token", "--image", "new.img", "--create")
    assert done.status == 0, done
    assert done.out == done.out.strip() + "\n"
    assert here() == before
    yield done.out.strip()


REPLAY = ("replay", "rest.bin", "--image", "new.img", "--create", "--resume")


@pytest.fixture
def token(run: Run) -> Iterator[str]:
    with interrupted(run) as found:
        yield found


@pytest.fixture
def rest(run: Run, token: str) -> str:
    assert run("send", "disk.img", "--from-token", token, "--to", "rest.bin").status == 0
    return "rest.bin"


@pytest.mark.usefixtures("rest")
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_the_image_is_one_of_the_whole_stream(run: Run, kind: str) -> None:
    """The record of what it holds names the rest, for the next increment."""
    assert Path("rest.bin").stat().st_size < Path("s.bin").stat().st_size - 1.9 * MIB
    words = list(REPLAY)
    words[1] = "rest.bin" if kind == "file" else "exec:cat rest.bin"
    done = run(*words, "--verify", "--output", "json")
    assert done.status == 0, done
    assert done.report["verdict"] == "whole"
    assert Path("new.img").read_bytes() == DISK
    identity = run("validate", "rest.bin", "--output", "json").report["identity"]
    assert json.loads(Path("new.img.blkmig.json").read_text())["id"] == identity["id"]
    assert sorted(path.name for path in Path().glob("new.img*")) == [
        *("new.img", "new.img.blkmig.json", "new.img.replay.json")
    ]


@pytest.mark.usefixtures("rest")
def test_the_rest_alone_is_incomplete(run: Run) -> None:
    done = run("validate", "rest.bin", "--output", "json")
    assert done.status == 1
    assert done.report["verdict"] == "incomplete"
    assert done.report["devices"][0]["missing"] == [{"start": 0, "length": 3 * MIB}]
    (found,) = [one for one in done.report["findings"] if one["severity"] == "error"]
    assert found["id"] == "missing-chunks"
    assert "for replay --resume" in found["message"]
    shown = run("info", "rest.bin").out
    assert "blkmig replay rest.bin --image drive0=IMAGE --resume" in shown


@pytest.mark.usefixtures("rest")
def test_the_rest_is_for_no_other_images(run: Run) -> None:
    before = here()
    other = ("replay", "rest.bin", "--image", "other.img", "--create")
    for options in ((), ("--incremental",), ("--restart",)):
        refused(run(*other, *options), 2, "use --resume", before)
    refused(run(*other, "--resume"), 4, "not the rest of what", before)
    template = ("--image", "{device}.img", "--create", "--resume")
    refused(run("replay", "rest.bin", *template), 2, "one by one", before)
    refused(run(*REPLAY, "--image", "drive7=other.img"), 2, "drive7", before)
    refused(run(*REPLAY[:2], "--image", "drive7=new.img", "--resume"), 4, "not 'drive7'", before)
    # An image that was written since the token.
    with open("new.img.partial", "r+b") as file:
        file.seek(MIB)
        file.write(b"!")
    before = here()
    refused(run(*REPLAY), 4, "not the rest of what", before)
    with open("new.img.partial", "r+b") as file:
        file.truncate(MIB)
    before = here()
    refused(run(*REPLAY), 4, "were received", before)
    refused(run("replay", "--print-token", "--image", "new.img"), 4, "were received", before)


@pytest.mark.usefixtures("rest")
def test_after_a_part_of_the_rest_only_a_new_token_goes_on(run: Run) -> None:
    """Neither the first stream nor the first rest, which are of other states of the image."""
    words = list(REPLAY)
    words[1] = "exec:head -c 1200000 rest.bin"
    assert run(*words).status == 3
    before = here()
    refused(run(*REPLAY), 4, "get a new token", before)
    words[1] = "s.bin"
    refused(run(*words), 4, "is of another stream", before)
    again = run("replay", "--print-token", "--image", "new.img").out.strip()
    assert run("send", "disk.img", "--from-token", again, "--to", "rest.bin").status == 0
    assert run(*REPLAY).status == 0
    assert Path("new.img").read_bytes() == DISK
    before = here()
    refused(run(*REPLAY), 4, "is finished", before)
    refused(run("replay", "--print-token", "--image", "new.img"), 4, "is finished", before)


@pytest.mark.usefixtures("rest")
def test_the_whole_stream_still_resumes_and_restarts(run: Run) -> None:
    saved = {path: path.read_bytes() for path in Path().glob("new.img*")}
    for option in ("--resume", "--restart"):
        for path in Path().glob("new.img*"):
            path.unlink()
        for path, content in saved.items():
            path.write_bytes(content)
        assert run("replay", "s.bin", *REPLAY[2:5], option).status == 0
        assert Path("new.img").read_bytes() == DISK


def test_a_token_is_one_word_and_no_other_is_taken(run: Run, token: str) -> None:
    assert token.isascii()
    assert all(char.isalnum() or char in "-_" for char in token)
    before = here()
    wrong = ["", "x", token[:-1], token + "A", token[:40], token.swapcase(), token + "\n" + token]
    wrong += ["blkmig1-", "blkmig1-====", "blkmig1-\udc80", "blkmig1-" + "A" * (1 << 17)]
    for at in range(8, len(token), 7):
        wrong.append(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])
    for word in wrong:
        done = run("send", "disk.img", "--from-token", word, "--to", "rest.bin")
        refused(done, 2, "--from-token: not a resume token", before)
        assert len(done.err) < 300


@given(
    st.lists(
        st.builds(
            Received,
            st.text(max_size=8),
            st.integers(1, 1 << 62),
            st.text("0123456789abcdef", min_size=64, max_size=64),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda disk: disk.device,
    )
)
def test_a_token_states_what_it_was_made_of(disks: list[Received]) -> None:
    token = token_of(disks)
    assert parse_token("", str(token)) == token
    assert set(token.disks) == set(disks)
    assert token_of(reversed(disks)).id == token.id


def made(run: Run, document: object) -> str:
    """Return a token with this content, as somebody may make it."""
    import hashlib
    from base64 import urlsafe_b64encode

    payload = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    packed = urlsafe_b64encode(hashlib.sha256(payload).digest()[:16] + payload)
    return "blkmig1-" + packed.decode().rstrip("=")


ENTRY = {"bitmaps": False, "device": "drive0", "received": MIB, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("disks", "status", "words"),
    [
        ([ENTRY], 4, "does not begin with"),
        ([ENTRY | {"received": 1 << 62}], 4, "does not begin with"),
        ([ENTRY | {"received": 0}], 2, "nothing of 'drive0'"),
        ([ENTRY | {"received": -1}], 2, "not a number"),
        ([ENTRY | {"received": True}], 2, "not a number"),
        ([ENTRY | {"sha256": "0"}], 2, "not a digest"),
        ([ENTRY | {"device": 1}], 2, "not a string"),
        ([ENTRY | {"device": "\u001b[31m"}], 2, "\\x1b[31m"),
        ([ENTRY | {"bitmaps": True}], 2, "has bitmaps of 'drive0'"),
        ([ENTRY, ENTRY], 2, "not in order"),
        ([], 2, "its disks are none"),
        ({}, 2, "not a list"),
    ],
)
def test_a_token_that_somebody_made(run: Run, disks: object, status: int, words: str) -> None:
    put(DISK, "disk.img")
    before = here()
    token = made(run, {"version": 1, "disks": disks})
    done = run("send", "disk.img", "--from-token", token, "--to", "rest.bin")
    refused(done, status, words, before)


def test_a_token_of_another_version(run: Run) -> None:
    put(DISK, "disk.img")
    token = made(run, {"version": 2, "disks": [ENTRY]})
    fails(run("send", "disk.img", "--from-token", token), 2, "version 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", "b"), "--since"),
        (("--skip-unallocated",), "--skip-unallocated"),
        (("--bitmaps-only",), "--bitmaps-only"),
        (("--no-identity",), "--no-identity"),
        (("--container", "none"), "--container none"),
        (("--machine", "pc"), "--machine"),
        (("--dialect", "v2"), "--dialect v2"),
    ],
)
def test_options_that_a_token_excludes(
    run: Run, token: str, options: tuple[str, ...], words: str
) -> None:
    done = run("send", "disk.img", "--from-token", token, *options)
    fails(done, 2, f"--from-token and {words} exclude each other")


def test_what_is_received_of_nothing(run: Run) -> None:
    """There is no token where no part from the disk's start is on an image."""
    fails(run("replay", "--print-token"), 2, "one by one")
    for option in ("--restart", "--dry-run", "--bitmaps-only"):
        fails(run("replay", "--print-token", "--image", "a", option), 2, "--resume and --restart")
    fails(run("replay", "s.bin", "--print-token", "--image", "a"), 2, "takes no STREAM")
    template = ("--image", "{device}.img", "--create")
    fails(run("replay", "--print-token", *template), 2, "one by one")
    fails(run("replay", "--print-token", "--image", "a.img", "--create"), 4, "nothing was received")
    stream = put(raw.qemu(data(2048, 1), data(4096, 2)))
    assert run("replay", f"exec:cat {stream}", "--image", "a.img", "--create").status == 1
    fails(run("replay", "--print-token", "--image", "a.img"), 4, "nothing was received")


def test_a_journal_of_an_earlier_version(run: Run, token: str) -> None:
    """It does not say what was received, so that there is no token; --resume goes on."""
    journal = Path("new.img.replay.json")
    found = json.loads(journal.read_text())
    for key in ("device", "received", "has-bitmaps"):
        del found[key]
    journal.write_text(json.dumps(found))
    fails(run("replay", "--print-token", "--image", "new.img"), 4, "nothing was received")
    assert run("replay", "s.bin", *REPLAY[2:]).status == 0
    assert Path("new.img").read_bytes() == DISK


def test_several_images_must_all_be_there(run: Run) -> None:
    put(DISK, "a.img")
    put(DISK[::-1], "b.img")
    assert run("send", "a.img", "b.img", "--to", "s.bin").status == 0
    size = Path("s.bin").stat().st_size
    images = ["--image", "drive0=new0.img", "--image", "drive1=new1.img", "--create"]
    assert run("replay", f"exec:head -c {size - 2 * MIB} s.bin", *images).status == 3
    token = run("replay", "--print-token", *images).out.strip()
    assert [disk.device for disk in parse_token("", token).disks] == ["drive0", "drive1"]
    fails(run("send", "a.img", "--from-token", token), 2, "a disk 'drive1'")
    fails(run("send", "b.img", "a.img", "--from-token", token), 4, "does not begin")
    done = run("send", "a.img", "b.img", "--from-token", token, "--to", "rest.bin")
    assert done.status == 0
    before = here()
    refused(run("replay", "rest.bin", *images[:2], "--resume"), 4, "not the rest", before)
    swapped = ["--image", "drive1=new0.img", "--image", "drive0=new1.img", "--create", "--resume"]
    refused(run("replay", "rest.bin", *swapped), 4, "has received 'drive0', not 'drive1'", before)
    refused(run("replay", "--print-token", *swapped), 4, "has received 'drive0'", before)
    assert run("replay", "rest.bin", *images, "--resume").status == 0
    assert Path("new0.img").read_bytes() == DISK
    assert Path("new1.img").read_bytes() == DISK[::-1]


@pytest.mark.usefixtures("token")
def test_an_image_without_device_stays_with_its_device(run: Run, token: str) -> None:
    put(DISK[::-1], "other.img")
    images = ("drive7=other.img", "drive0=disk.img")
    assert run("send", *images, "--from-token", token, "--to", "rest.bin").status == 0
    partial = Path("new.img.partial").read_bytes()
    for stream in ("rest.bin", "exec:cat rest.bin"):
        done = run("replay", stream, *REPLAY[2:])
        fails(done, 2, "drive7")
        assert Path("new.img.partial").read_bytes() == partial
    words = ("replay", "rest.bin", "--image", "drive0=new.img", "--create", "--resume")
    assert run(*words, "--device", "drive0").status == 0
    assert Path("new.img").read_bytes() == DISK


@pytest.mark.usefixtures("token")
def test_the_size_may_be_stated_after_a_cut(run: Run) -> None:
    """What the cut stream made likely is no longer of importance."""
    size = ("--device-size", len(DISK))
    assert run("replay", "s.bin", *REPLAY[2:], *size).status == 0
    assert Path("new.img").read_bytes() == DISK


def test_an_image_in_place(run: Run) -> None:
    """Its old content is no part of what was received."""
    put(DISK, "disk.img")
    put(b"\xee" * len(DISK), "old.img")
    assert run("send", "disk.img", "--to", "s.bin").status == 0
    image = ("--image", "drive0=old.img")
    assert run("replay", "exec:head -c 1500000 s.bin", *image).status == 3
    token = run("replay", "--print-token", *image).out.strip()
    assert parse_token("", token).disks[0].length == 2 * MIB
    assert run("send", "disk.img", "--from-token", token, "--to", "rest.bin").status == 0
    assert run("replay", "exec:cat rest.bin", *image, "--resume").status == 0
    assert Path("old.img").read_bytes() == DISK


@needs_qemu_utils
def test_a_qcow2_image_with_bitmaps(run: Run) -> None:
    """Its size is known before the end of the stream by --device-size only."""
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", 4 * MIB)
    qemu_img("bitmap", "--add", "a.qcow2", "b0")
    qcow2.write(Path("a.qcow2"), "write -P 1 0 1M", "write -P 2 3M 1M")
    send = ("send", "a.qcow2", "--bitmaps")
    assert run(*send, "--to", "s.bin").status == 0
    image = ("--image", "new.qcow2", "--create", "--device-size", 4 * MIB)
    assert run("replay", "exec:head -c 1200000 s.bin", *image).status == 3
    before = here()
    token = run("replay", "--print-token", *image).out.strip()
    assert here() == before
    fails(run(*send[:2], "--from-token", token), 2, "repeat its options, such as --bitmaps")
    assert run(*send, "--from-token", token, "--to", "rest.bin").status == 0
    done = run("replay", "exec:cat rest.bin", *image, "--resume")
    assert done.status == 0, done
    qcow2.same(Path("new.qcow2"), "qcow2", Path("a.qcow2"), "qcow2")
    qcow2.check(Path("new.qcow2"))
    assert qcow2.stored_bitmaps(Path("new.qcow2")) == qcow2.stored_bitmaps(Path("a.qcow2"))


def test_the_estimate_is_of_the_rest(run: Run, token: str, rest: str) -> None:
    done = run("send", "disk.img", "--from-token", token, "--estimate")
    assert done.status == 0
    assert f"{Path(rest).stat().st_size:,} bytes" in done.out


def test_manifest_and_mark_are_those_of_the_whole_disk(run: Run, token: str) -> None:
    options = ("--manifest", "m.json", "--id", "00000000-0000-0000-0000-000000000001")
    words = ("send", "disk.img", "--from-token", token, "--to", "rest.bin", *options)
    assert run(*words).status == 0
    assert run(*REPLAY, "--manifest", "m.json").status == 0
    shown = subprocess.run(["sha256sum", "disk.img"], capture_output=True, text=True, check=True)
    assert json.loads(Path("m.json").read_text())["devices"][0]["sha256"] == shown.stdout.split()[0]


def test_a_token_for_too_many_disks() -> None:
    disks = [
        Received(f"drive{number}", MIB, "0" * 64)
        for number in itertools.islice(itertools.count(), 600)
    ]
    with pytest.raises(blkmig_cli.FailureError, match="a token for 600 disks"):
        token_of(disks).check_length()


@pytest.mark.usefixtures("token")
def test_a_token_that_would_be_too_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blkmig_cli.limits.TOKEN_MAX", 99)
    done = run("replay", "--print-token", "--image", "new.img", "--create")
    fails(done, 4, "a token for 1 disks would have over 99 bytes")


@pytest.mark.usefixtures("token")
def test_the_library_does_the_same() -> None:
    request = ReplayRequest({None: "new.img"}, create=True)
    token = blkmig_cli.resume_token(request)
    blkmig_cli.send({"drive0": "disk.img"}, Path("rest.bin"), token=token)
    assert blkmig_cli.replay(Path("rest.bin"), replace(request, resume=True)).accepted
    assert Path("new.img").read_bytes() == DISK
    with pytest.raises(blkmig_cli.UsageError, match="not a resume token"):
        blkmig_cli.send({"drive0": "disk.img"}, Path("rest.bin"), token=token[1:])


@needs_qemu_utils
def test_an_export(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is in the state folder; what lies behind the disk is left alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    put(DISK, "disk.img")
    put(b"\xa5" * (len(DISK) + MIB), "target")
    assert run("send", "disk.img", "--to", "s.bin").status == 0
    with nbd.qemu_nbd(Path("target")) as path:
        image = ("--image", f"drive0={nbd.uri(path)}", "--device-size", len(DISK))
        assert run("replay", f"exec:head -c {THREE_CHUNKS} s.bin", *image).status == 3
        token = run("replay", "--print-token", *image).out.strip()
        assert parse_token("", token).disks[0].length == 3 * MIB
        assert run("send", "disk.img", "--from-token", token, "--to", "rest.bin").status == 0
        assert run("replay", "exec:cat rest.bin", *image, "--resume").status == 0
    assert Path("target").read_bytes() == DISK + b"\xa5" * MIB
