"""What the images of an interrupted replay have received: its token, and the rest that continues it."""

from contextlib import closing
from dataclasses import replace
from io import BytesIO

from blkmig_cli.errors import FailureError, StreamError, UsageError
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.resume_token import Received, ResumeToken, token_of
from blkmig_cli.progress import Progress, no_progress
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.inputs import PipeInput
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.rest import REST_HEAD, state_at_start

_AGAIN = "get a new token with blkmig replay --print-token"


def resume_token(request: ReplayRequest, progress: Progress = no_progress) -> ResumeToken:
    """Return the token for what the images of ``request`` have received; nothing is changed.

    ``request`` is that of the interrupted replay; the images are read.  Raises UsageError where they are
    not specified one by one; FailureError where they fail or are in use, were written to the end, or have
    received nothing.
    """
    wanted = replace(request, resume=True)
    wanted.check(with_stream=True)
    with closing(Destinations(wanted, FileUses())) as destinations:
        destinations.open()
        disks = _received(destinations, progress)
    if not disks:
        raise FailureError(
            f"nothing was received in {_paths(destinations)}", hint="send the whole stream again"
        )
    token = token_of(disks)
    token.check_length()
    return token


def check_continued(
    stream: Stream, request: ReplayRequest, destinations: Destinations
) -> list[Received]:
    """Return what the images have received, if ``stream`` is the rest of it; empty for any other stream.

    Raises UsageError for a rest without --resume; FailureError where it continues another state of the
    images.
    """
    state = _state(stream, request)
    if state is None or request.dry_run or not (request.images and request.disks):
        return []
    if not request.resume:
        if request.allow_incomplete:
            return []
        raise UsageError(
            "the stream is the rest of an interrupted one, for the images that have received the first part",
            hint="use --resume",
        )
    received = _received(destinations, no_progress)
    if not received or token_of(received).id != state:
        raise FailureError(
            "the stream is not the rest of what the images have received", hint=_AGAIN
        )
    destinations.continue_with_rest()
    return received


def _received(destinations: Destinations, progress: Progress) -> list[Received]:
    """Return what the images have received; raises UsageError, FailureError as :func:`resume_token`."""
    if not any(True for _ in destinations):
        raise UsageError(
            "the images are not specified one by one", hint="use --image DEVICE=IMAGE for each"
        )
    if all(found.finished for found in destinations):
        raise FailureError(f"the replay to {_paths(destinations)} is finished")
    disks = []
    for device, found in destinations.items():
        with progress("reading", found.reception.length) as tick:
            received = found.reception.read(found.image, tick)
        if received is None:
            continue
        if device not in (None, received.device):
            raise FailureError(
                f"{escape(found.path)} has received {quote(received.device)}, not {quote(device)}"
            )
        disks.append(received)
    return disks


def _paths(destinations: Destinations) -> str:
    return ", ".join(escape(found.path) for found in destinations)


def _state(stream: Stream, request: ReplayRequest) -> str | None:
    """Return the state of the images that ``stream`` continues; None if it is not the rest of one."""
    if request.number not in (None, 1):
        return None
    head = BytesIO(stream.input.peek(REST_HEAD))
    try:
        return state_at_start(Decoder(PipeInput(head.readinto)))
    except StreamError:
        return None  # it is reported when the stream is read
