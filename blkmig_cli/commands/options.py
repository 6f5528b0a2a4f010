"""Options that several commands share, and parsing of their values."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blkmig_cli.checks.compatibility import Version, parse_version
from blkmig_cli.checks.names import split_bitmap
from blkmig_cli.disks.formats import check_format
from blkmig_cli.errors import UsageError
from blkmig_cli.output.json_writer import write_json
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.system.nbd_uri import is_nbd
from blkmig_cli.text import escape, parse_size, quote
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.system.sockets import Say
    from blkmig_cli.wire.decoder import Decoder
    from blkmig_cli.wire.schema_io import Input

_F = TypeVar("_F", bound=Callable[..., Any])

DEVICE_SIZE_HELP = "Size of a disk, e.g. 20G, or max: the most that the stream allows."

_SHOWN = 80
# Prefixes of a path that contains "=" and is not DEVICE=PATH.
_PATHS = ("/", "./", "../")


#: --stream: the number of the stream to read in a file with several.
number_option = click.option(
    "--stream", "number", type=click.IntRange(min=1), metavar="N",
    help="Number of the stream in a file with several, one after the other.",
)  # fmt: skip


#: --base: the streams under an increment.
base_option = click.option(
    "--base", "bases", multiple=True, metavar="STREAM",
    help="A stream under an increment; repeatable, in any order.",
)  # fmt: skip


def stream_form_options(function: _F) -> _F:
    """Add --dialect, --container and --machine: the form of a new stream."""
    for option in (
        click.option("--machine", default="none", show_default=True, help="Machine type to state."),
        click.option(
            "--container",
            type=click.Choice(["qemu", "none"]),
            default="qemu",
            show_default=True,
            help="Container of the block records.",
        ),
        click.option(
            "--dialect",
            type=click.Choice(["qemu", "classic", "v1", "v2"]),
            default="qemu",
            show_default=True,
            help="Dialect to write.",
        ),
    ):
        function = option(function)
    return function


def increment_options(function: _F) -> _F:
    """Add --since, --else, --mark, --drop and --base: how an increment is made."""
    for option in (
        click.option(
            "--base",
            metavar="BASE",
            help="The stream before an increment: a STREAM, its manifest, or its id.",
        ),
        click.option(
            "--drop",
            multiple=True,
            metavar="NAME",
            help="Remove this bitmap when the stream is stored; repeatable.",
        ),
        click.option(
            "--mark",
            metavar="NAME",
            help="Create this bitmap in each disk, for the next --since.",
        ),
        click.option(
            "--else",
            "otherwise",
            type=click.Choice(["full"]),
            help="Send a disk whole if that bitmap is missing or inconsistent.",
        ),
        click.option(
            "--since",
            multiple=True,
            metavar="[DEVICE:]NAME",
            help="Send only what is dirty in this bitmap: an increment.",
        ),
    ):
        function = option(function)
    return function


def since_values(texts: tuple[str, ...]) -> dict[str | None, str]:
    """Return the bitmaps of --since by device, None without; raises UsageError."""
    found: dict[str | None, str] = {}
    for text in texts:
        device, name = split_bitmap(text)
        if device in found:
            raise UsageError("--since is specified twice", hint="use --since DEVICE:NAME")
        if not name:
            raise UsageError(f"--since: {quote(text)} names no bitmap")
        found[device] = name
    return found


def stream_options(function: _F) -> _F:
    """Add --dialect, --container, --granularity and --device-size: how a stream is read."""
    for option in (
        click.option(
            "--device-size",
            "device_sizes",
            multiple=True,
            metavar="[DEVICE=]SIZE",
            help=DEVICE_SIZE_HELP,
        ),
        click.option(
            "--granularity",
            "granularities",
            multiple=True,
            metavar="[DEVICE:]NAME=SIZE",
            help="Granularity of a bitmap in a v1 stream.",
        ),
        click.option(
            "--container",
            type=click.Choice(["auto", "qemu", "none"]),
            default="auto",
            show_default=True,
            help="Container of the block records.",
        ),
        click.option(
            "--dialect",
            type=click.Choice(["auto", "classic", "v1", "v2", "qemu"]),
            default="auto",
            show_default=True,
            help="Dialect of the block records.",
        ),
    ):
        function = option(function)
    return function


format_option = click.option(
    "-f", "formats", multiple=True, metavar="[DEVICE=]FORMAT",
    help="Format of the images, or of one of them: raw, qcow2, vmdk, ...",
)  # fmt: skip


def formats_of(values: tuple[str, ...]) -> dict[str | None, str]:
    """Return the values of -f by device (None: all others); raises UsageError for an unknown format."""
    return {device: check_format(name) for device, name in device_values("-f", values).items()}


force_share_option = click.option(
    "-U", "--force-share", is_flag=True, help="Read images that another program is writing."
)

target_option = click.option(
    "--to", "target", metavar="TARGET",
    help="File, URL... to write to (default: stdout); .gz, .xz and .zst are compressed.",
)  # fmt: skip


def _version(_: click.Context, __: click.Parameter, value: str | None) -> Version | None:
    try:
        return None if value is None else parse_version(value)
    except ValueError as error:
        raise UsageError(f"--for-qemu: {error}") from None


for_qemu_option = click.option(
    "--for-qemu",
    metavar="VERSION",
    callback=_version,
    help="Warn of what a QEMU of this version, such as 7.2, cannot load.",
)

verbose_option = click.option("-v", "--verbose", is_flag=True, help="Print more on stderr.")


def echo_line(message: str) -> None:
    """Print a line on stderr, after all output so far."""
    sys.stdout.flush()
    click.echo(f"blkmig: {message}", err=True)


def log(verbose: bool, message: str) -> None:
    """Print a line on stderr if ``verbose`` (-v)."""
    if verbose:
        echo_line(message)


def saying(quiet: bool) -> "Say":
    """Return a function that prints on stderr, unless ``quiet``, that the program waits for a peer."""
    return lambda message: None if quiet else echo_line(message)


def warn(message: str) -> None:
    """Print a warning on stderr, also with -q: the result may not be the intended one."""
    echo_line(f"warning: {message}")


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="No progress, no notes; reports of one line."
)


def echo_json(document: Any) -> None:
    """Print a document of ``--output json``; it may contain ``json_writer.Items`` in place of lists."""
    write_json(document, sys.stdout.write)


def output_option(*kinds: str) -> Callable[[_F], _F]:
    """Return --output; the first of ``kinds`` is the default."""
    return click.option(
        "--output", type=click.Choice(kinds), default=kinds[0], show_default=True, help="Form of the output."
    )  # fmt: skip


def hints_of(granularities: tuple[str, ...], device_sizes: tuple[str, ...]) -> Hints:
    """Parse the values of --granularity and --device-size as hints; raises UsageError."""
    hints = Hints()
    for text in device_sizes:
        device, equals, value = text.rpartition("=")
        name = device if equals else None
        if name in hints.sizes or name in hints.largest:
            raise UsageError(f"--device-size {_shown(text)}: the second size of this device")
        if value == "max":
            hints.largest.add(name)
        else:
            hints.sizes[name] = _size("--device-size", value)
            if hints.sizes[name] % SECTOR_SIZE:
                raise UsageError(
                    f"--device-size {_shown(text)}: a disk's size is a multiple of {SECTOR_SIZE}"
                )
    for text in granularities:
        name, equals, value = text.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--granularity {_shown(text)}: expected [DEVICE:]NAME=SIZE")
        key = split_bitmap(name)
        if key in hints.granularities:
            raise UsageError(f"--granularity {_shown(text)}: the second one of this bitmap")
        hints.granularities[key] = _size("--granularity", value)
        fault = granularity_fault(hints.granularities[key])
        if fault is not None:
            raise UsageError(f"--granularity {_shown(text)}: {fault}")
    return hints


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _shown(text: str) -> str:
    """Return the value of an option as part of one line."""
    return escape(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def device_values(option: str, values: tuple[str, ...]) -> dict[str | None, str]:
    """Return ``[DEVICE=]PATH`` values by device; raises UsageError for two of one device."""
    found: dict[str | None, str] = {}
    for text in values:
        device, path = split_device(text)
        if device in found:
            raise UsageError(f"{option} {_shown(text)}: the second one of this device")
        if not path:
            raise UsageError(f"{option} {_shown(text)}: no file is specified")
        found[device] = path
    return found


def split_device(text: str) -> tuple[str | None, str]:
    """Split ``[DEVICE=]PATH`` at its first ``=``, unless it is clearly a path (``./a=b``, ``/a=b``).

    An NBD URI, which may contain one, is not split.

    The device is None where none is specified, and empty for the unnamed one (``=PATH``).
    """
    if is_nbd(text):
        return None, text
    device, equals, path = text.partition("=")
    if not equals or device.startswith(_PATHS):
        return None, text
    return device, path


def decoder_factory(
    dialect: str, container: Any, number: int | None, *, keep_state: bool = False
) -> "Callable[[Input, Hints], Decoder]":
    """Return a function that makes a decoder according to the options of a stream.

    It takes an input at its start, and moves it to the stream ``number``.
    """
    from blkmig_cli.wire.several import decoder_of  # noqa: PLC0415 (numpy is slow to load)

    def make(source: "Input", hints: Hints) -> "Decoder":
        return decoder_of(
            source,
            number,
            hints=hints,
            dialect=dialect,
            container=container,
            keep_state=keep_state,
        )

    return make
