"""``blkmig live``: writes the disks of a running QEMU as a stream."""

import re
import signal
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import UsageError
from blkmig_cli.output.progress import Note, progress
from blkmig_cli.text import brief, parse_size

if TYPE_CHECKING:
    from blkmig_cli.operations.live.request import LiveRequest, PassesOptions, SnapshotOptions

_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s)", re.ASCII)


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    found = _TIME.fullmatch(value)
    if found is None:
        raise UsageError(f"--downtime: invalid time {brief(value)}: expected e.g. 300ms, 1.5s")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def _size(_: click.Context, option: click.Parameter, value: str | None) -> int | None:
    try:
        size = None if value is None else parse_size(value)
    except ValueError as error:
        raise UsageError(f"{option.opts[0]}: {error}") from None
    if size == 0:
        raise UsageError(f"{option.opts[0]}: invalid size '0': must be at least 1 byte")
    return size


@click.command("live", cls=Command)
@click.argument("monitor", metavar="MONITOR")
@options.target_option
@click.option("--list", "list_disks", is_flag=True,
              help="List the disks, and whether and why each would be captured.")  # fmt: skip
@click.option("--clean-up", is_flag=True,
              help="Remove from QEMU what killed runs of this command have left there.")  # fmt: skip
@click.option("--disk", "disks", multiple=True, metavar="[DEVICE=]ID",
              help="Capture this drive, device (id or QOM path) or node; repeatable.")  # fmt: skip
@click.option("--exclude", "excluded", multiple=True, metavar="ID",
              help="Leave out this disk; repeatable.")  # fmt: skip
@click.option("--mode", type=click.Choice(["passes", "snapshot"]), default="passes", show_default=True,
              help="The disks as at the end, in passes; or as at the start, with a scratch.")  # fmt: skip
@click.option("--downtime", default="300ms", show_default=True, metavar="TIME", callback=_seconds,
              help="How long the guest may be paused, e.g. 300ms, 1.5s.")  # fmt: skip
@click.option("--max-passes", type=click.IntRange(min=0), default=30, show_default=True, metavar="N",
              help="The most passes over what the guest has written meanwhile.")  # fmt: skip
@click.option("--max-bandwidth", metavar="SIZE", callback=_size,
              help="The most bytes per second to write while the guest runs, e.g. 50M.")  # fmt: skip
@click.option("--on-no-converge", type=click.Choice(["fail", "pause"]), default="fail", show_default=True,
              help="What to do if the guest writes too fast: fail, or pause it for longer.")  # fmt: skip
@click.option("--then", type=click.Choice(["resume", "leave-paused"]), default="resume", show_default=True,
              help="What becomes of the guest at the end.")  # fmt: skip
@click.option("--scratch", metavar="DIR",
              help="Folder for a temporary file (default: TMPDIR, or /var/tmp).")  # fmt: skip
@click.option("--scratch-limit", metavar="SIZE", callback=_size,
              help="The most bytes of that file; if it is full, the capture fails.")  # fmt: skip
@click.option("--freeze", type=click.Choice(["auto", "require", "no"]), default="auto", show_default=True,
              help="Freeze the guest's file systems for the snapshot, through its agent.")  # fmt: skip
@click.option("--agent", metavar="PATH",
              help="The socket of the guest agent (qemu-ga) in the guest.")  # fmt: skip
@click.option("--bitmaps", "all_bitmaps", is_flag=True, help="Send all bitmaps of the disks.")
@click.option("--bitmap", "names", multiple=True, metavar="[DEVICE:]NAME",
              help="Send this bitmap; repeatable.")  # fmt: skip
@options.stream_form_options
@options.increment_options
@click.option(
    "--id", "own_id", metavar="UUID", help="The id of the stream (default: a random one)."
)
@click.option("--no-identity", is_flag=True, help="Do not state an id in the stream.")
@click.option("--manifest", metavar="FILE",
              help="Write digests of what is in the stream to FILE.")  # fmt: skip
@click.option("--socket", metavar="PATH",
              help="Have QEMU create its NBD socket at PATH (default: one that it is given).")  # fmt: skip
@options.for_qemu_option
@options.output_option("human", "json")
@options.quiet_option
def command(
    monitor: str,
    target: str | None,
    list_disks: bool,
    clean_up: bool,
    output: str,
    quiet: bool,
    **given: Any,
) -> int:
    """Make a stream of the disks and bitmaps of a running QEMU.

    MONITOR is qmp:unix:PATH, a QMP monitor that no other program uses at the same
    time.  In passes, all of the disks is sent, then, again and again, what the guest has
    written meanwhile; for the rest, it is paused for a moment, which is also that of
    the bitmaps.  As a snapshot, the disks are sent as they were at the start; what
    the guest overwrites meanwhile is saved in a temporary file before.

    \b
    Examples:
      blkmig live qmp:unix:/run/vm.qmp --list
      blkmig live qmp:unix:/run/vm.qmp --bitmaps --to stream.bin
      blkmig live qmp:unix:/run/vm.qmp --disk a=virtio0 --max-bandwidth 50M
      blkmig live qmp:unix:/run/vm.qmp --downtime 1s --to tcp:host:4444
      blkmig live qmp:unix:/run/vm.qmp --mode snapshot --agent /run/qga --to s.bin
      blkmig live qmp:unix:vm.qmp --mark b0 --to s0.bin
      blkmig live qmp:unix:vm.qmp --since b0 --mark b1 --base s0.bin --to s1.bin
      blkmig live qmp:unix:/run/vm.qmp --clean-up
    """
    if list_disks and clean_up:
        raise UsageError("--list excludes --clean-up")
    if (list_disks or clean_up) and target is not None:
        raise UsageError(
            f"{'--list' if list_disks else '--clean-up'} writes no stream; leave out --to"
        )
    if list_disks:
        return _list(monitor, output)
    if clean_up:
        return _clean_up(monitor, output)
    if output == "json" and target in (None, "-"):
        raise UsageError("--output json: stdout is the target of the stream", hint="use --to FILE")
    return _capture(monitor, target, output, quiet, given)


def _list(monitor: str, output: str) -> int:
    from blkmig_cli.operations.live.live import list_disks  # noqa: PLC0415

    disks = list_disks(monitor)
    if output == "json":
        from blkmig_cli.output.live_json import disks_json  # noqa: PLC0415

        options.echo_json(disks_json(disks))
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.live import disks_text  # noqa: PLC0415

        disks_text(disks, console())
    return 0


def _clean_up(monitor: str, output: str) -> int:
    from blkmig_cli.operations.live.live import remove_remnants  # noqa: PLC0415
    from blkmig_cli.output.live_json import cleaned_up_json  # noqa: PLC0415

    done = remove_remnants(monitor)
    if output == "json":
        options.echo_json(cleaned_up_json(done))
        return 0
    removed = [
        *(f"export {name}" for name in done.exports),
        *(f"bitmap {name}" for name in done.bitmaps),
        *(f"node {name}" for name in done.nodes),
        *(["the NBD server"] if done.server else []),
    ]
    click.echo(f"removed: {', '.join(removed) or 'nothing'}")
    for run in done.work:
        click.echo(f"left: what {run} has made, as it is at work")
    return 0


def _capture(
    monitor: str, target: str | None, output: str, quiet: bool, given: dict[str, Any]
) -> int:
    from blkmig_cli.operations.live.live import capture  # noqa: PLC0415
    from blkmig_cli.operations.send.stream import SendOptions  # noqa: PLC0415
    from blkmig_cli.output.live_json import report_json  # noqa: PLC0415

    for_qemu: Version | None = given["for_qemu"]
    # Stopped by Ctrl-Z, it would not take QEMU's answers, for which QEMU waits when the guest is reset.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    note = Note()
    report = capture(
        monitor,
        target,
        _request(given),
        SendOptions(given["dialect"], given["container"], given["machine"]),
        manifest=given["manifest"],
        for_qemu=for_qemu,
        progress=partial(progress, quiet=quiet, note=note),
        warn=options.warn,
        note=note,
    )
    if output == "json":
        options.echo_json(report_json(report))
    elif not quiet:
        from blkmig_cli.output.human.live import report_lines  # noqa: PLC0415 (rich is slow to load)

        for line in report_lines(report):
            options.echo_line(line)
    return 0


def _request(given: dict[str, Any]) -> "LiveRequest":
    from blkmig_cli.operations.live.request import LiveRequest  # noqa: PLC0415
    from blkmig_cli.operations.send.changes import SendChanges  # noqa: PLC0415
    from blkmig_cli.operations.send.identity import SendIdentity  # noqa: PLC0415

    if given["no_identity"] and (given["own_id"] is not None or given["base"] is not None):
        raise UsageError("--no-identity excludes --id and --base")
    since = options.since_values(given["since"])
    with_bitmaps = given["all_bitmaps"] or given["names"]
    return LiveRequest(
        tuple(options.split_device(text) for text in given["disks"]),
        given["excluded"],
        given["names"] if with_bitmaps else None,
        _mode(given),
        given["max_bandwidth"],
        given["socket"],
        None if given["no_identity"] else SendIdentity(given["own_id"], given["base"]),
        SendChanges(since, {}, given["otherwise"] is not None, given["mark"], given["drop"]),
    )


def _mode(given: dict[str, Any]) -> "PassesOptions | SnapshotOptions":
    """Return the options of the mode; raises UsageError for those of the other one."""
    from blkmig_cli.operations.live.request import PassesOptions, SnapshotOptions  # noqa: PLC0415

    kinds = {"passes": PassesOptions, "snapshot": SnapshotOptions}
    context = click.get_current_context()
    for mode, kind in kinds.items():
        for each in fields(kind):
            source = context.get_parameter_source(each.name)
            if mode != given["mode"] and source == ParameterSource.COMMANDLINE:
                option = f"--{each.name.replace('_', '-')}"
                raise UsageError(f"{option} is for --mode {mode}")
    kind = kinds[given["mode"]]
    made: PassesOptions | SnapshotOptions = kind(
        **{each.name: given[each.name] for each in fields(kind)}
    )
    return made
