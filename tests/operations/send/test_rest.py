"""Sending the rest of a stream: what excludes it, and disks that are not those of the token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.resume_token import Received, ResumeToken, digest_of
from blkmig_cli.operations.send.changes import ALL, SendChanges
from blkmig_cli.operations.send.rest import check_received, check_rest_options, rest_options
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.wire.rest import rest_machine
from tests.support.strategies import MemoryImage

MIB = 1 << 20
CONTENT = bytes(range(256)) * 8192  # 2 MiB


def token(*received: Received) -> ResumeToken:
    return ResumeToken(received or (Received("d", MIB, "0" * 64),))


@pytest.mark.parametrize(
    ("options", "changes", "identity", "excluded"),
    [
        ({}, ALL, True, None),
        ({"dialect": "classic", "zero_blocks": False}, SendChanges(mark="m"), True, None),
        ({}, SendChanges({None: "b"}), True, "--since"),
        ({"skip_unallocated": True}, ALL, True, "--skip-unallocated"),
        ({"disks": False}, ALL, True, "--bitmaps-only"),
        ({}, ALL, False, "--no-identity"),
        ({"container": "none"}, ALL, True, "--container none"),
        ({"machine": "pc"}, ALL, True, "--machine"),
        ({"dialect": "v1"}, ALL, True, "--dialect v1"),
        ({"dialect": "v2"}, ALL, True, "--dialect v2"),
    ],
)
def test_options_that_a_token_excludes(
    options: dict[str, Any], changes: SendChanges, identity: bool, excluded: str | None
) -> None:
    check_rest_options(None, SendOptions(**options), changes, identity=identity)
    if excluded is None:
        check_rest_options(token(), SendOptions(**options), changes, identity=identity)
        return
    with pytest.raises(UsageError) as error:
        check_rest_options(token(), SendOptions(**options), changes, identity=identity)
    assert str(error.value) == f"--from-token and {excluded} exclude each other"


def disk(size: int, *bitmaps: str, device: str = "d") -> Disk:
    return Disk(device, MemoryImage(bytes(size)), [DirtyBitmap(name, 65536) for name in bitmaps])


def test_the_options_of_the_rest() -> None:
    options = SendOptions("classic", zero_blocks=False)
    assert rest_options(None, options, [disk(MIB)]) is options
    known = token(Received("d", MIB, "0" * 64), Received("e", 512, "1" * 64, True))
    disks = [disk(2 * MIB, "b"), disk(512, "b", device="e"), disk(512, device="f")]
    assert rest_options(known, options, disks) == SendOptions(
        "classic", machine=rest_machine(known.id), zero_blocks=False, received={"d": MIB, "e": 512}
    )


SHORT = "; send the whole stream, to replay --restart"


@pytest.mark.parametrize(
    ("received", "disks", "error", "said"),
    [
        (Received("x", MIB, ""), [disk(MIB), disk(MIB, device="e")], UsageError,
         "--from-token is for a disk 'x', not for 'd', 'e'; "
         "specify the images of the interrupted send, as DEVICE=IMAGE"),
        (Received("d", MIB, "", True), [disk(MIB)], UsageError,
         "--from-token: the interrupted stream has bitmaps of 'd'; "
         "repeat its options, such as --bitmaps"),
        (Received("d", MIB + 1, ""), [disk(MIB)], FailureError,
         f"memory does not begin with the {MIB + 1} bytes that were received: "
         f"it has {MIB} bytes (device 'd'){SHORT}"),
        (Received("d", 2 * MIB + 1, ""), [disk(MIB + 512)], FailureError,
         f"memory does not begin with the {2 * MIB + 1} bytes that were received: "
         f"it has {MIB + 512} bytes (device 'd'){SHORT}"),
    ],
)  # fmt: skip
def test_disks_that_are_not_those_of_the_token(
    received: Received, disks: list[Disk], error: type[BlkmigError], said: str
) -> None:
    with pytest.raises(error) as raised:
        rest_options(token(received), SendOptions(), disks)
    assert str(raised.value) == said


@pytest.mark.parametrize("length", [MIB, 2 * MIB])
@pytest.mark.parametrize("size", [MIB + 512, 2 * MIB])
def test_as_much_as_the_last_chunk_has_may_have_been_received(length: int, size: int) -> None:
    found = rest_options(token(Received("d", length, "")), SendOptions(), [disk(size)])
    assert found.received == {"d": length}


class Shown:
    """Progress that is noted."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.disks: set[str | None] = set()

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Any]:
        self.steps.append((what, total))

        def tick(done: int, disk: str | None = None) -> None:
            self.disks.add(disk)

        yield tick


def test_what_was_received_is_compared() -> None:
    image, shown = MemoryImage(CONTENT), Shown()
    digest = digest_of(image, MIB + 512, lambda *_: None)
    known = token(Received("d", MIB + 512, digest))
    check_received(known, {"d": image}, shown)
    assert shown.steps == [("comparing", MIB + 512)]
    assert shown.disks == {"d"}
    image.content[MIB + 512] ^= 1
    check_received(known, {"d": image}, shown)
    image.content[MIB + 511] ^= 1
    with pytest.raises(FailureError) as error:
        check_received(known, {"d": image}, shown)
    assert str(error.value) == (
        f"memory does not begin with the {MIB + 512} bytes that were received: "
        f"it was written since, or is another disk (device 'd'){SHORT}"
    )
    check_received(None, {"d": image}, shown)
