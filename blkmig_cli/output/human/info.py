"""The human output of ``blkmig info``: one screen, or all of it (-v)."""

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blkmig_cli.contents.accounts import KINDS, Accounts
from blkmig_cli.operations.info import Info
from blkmig_cli.output.human import report as shown
from blkmig_cli.output.human.console import table as new_table
from blkmig_cli.text import escape, exact_size, human_size
from blkmig_cli.wire.identity import Identity

_SECTIONS_MAX = 4
# Shown without -v, so that three disks fit a terminal of 24 lines.
_BITMAPS, _FINDINGS = 5, 3
# What the guest did when the disks were read; of a paused one, and of an image not in use, there is
# nothing to say.
_MOMENTS = {
    "paused": "",
    "frozen": " with the guest's file systems frozen",
    "crash": " while the guest was running",
}


def info_text(info: Info, out: Console, *, detailed: bool) -> None:
    """Print name, verdict, next steps, disks, bitmaps, findings, and what the bytes are.

    ``detailed``: all bitmaps and findings, and tables of the bytes and sections.
    """
    bitmaps, findings = (None, None) if detailed else (_BITMAPS, _FINDINGS)
    shown.heading(info.report, out)
    _listing(_facts(info), out)
    if info.report.identity is not None:
        _listing(_identity(info.report.identity), out)
    if not detailed and info.accounts.total:
        _listing(_kinds(info.accounts), out)
    for step in info.steps:
        out.print(Text.assemble(("next: ", "bold"), escape(step.why), ":" if step.command else ""))
        if step.command is not None:
            out.print(Text(f"  {step.command}", "cyan"), soft_wrap=True)
    if any(device.disk.has_blocks for device in info.report.devices):
        out.print()
        shown.disks_table(info.report, out)
    if info.report.bitmaps:
        out.print()
        shown.bitmaps_table(info.report, out, bitmaps)
    if info.report.findings:
        out.print()
        shown.findings_text(info.report, out, findings)
    if detailed:
        out.print()
        out.print(_bytes(info.accounts))
        if any(info.accounts.sections):
            out.print()
            out.print(_sections(info.accounts))


def _listing(items: list[str], out: Console) -> None:
    """Print ``items`` indented, separated by commas; no item is divided where a line is full."""
    line = ""
    for item in items:
        if line and cell_len(f"  {line}, {item},") > out.width:
            out.print(Text(f"  {line},"), soft_wrap=True)
            line = ""
        line = f"{line}, {item}" if line else item
    out.print(Text(f"  {line}"), soft_wrap=True)


def _facts(info: Info) -> list[str]:
    accounts = info.accounts
    facts = [] if info.size is None else [exact_size(info.size)]
    if accounts.version is not None:
        facts.append(f"QEVM version {accounts.version}")
    if accounts.configuration is not None:
        facts.append(f"machine {escape(accounts.configuration.machine)}")
        capabilities = accounts.configuration.capabilities
        if capabilities:
            facts.append("capabilities " + " ".join(map(escape, capabilities)))
    return facts


def _identity(identity: Identity) -> list[str]:
    created = f"created {identity.created}{_MOMENTS[identity.consistency]}"
    facts = [f"id {identity.id}", created]
    if identity.incremental:
        facts.insert(1, f"changes since {identity.base or 'an unknown base'}")
    return facts


def _kinds(accounts: Accounts) -> list[str]:
    return [f"{human_size(size)} {kind}" for kind, size in accounts.kinds.items() if size]


def _bytes(accounts: Accounts) -> Table:
    table = new_table("BYTES", "SIZE", "SHARE", "", right=("SIZE", "SHARE"))
    for kind, meaning in KINDS.items():
        size = accounts.kinds[kind]
        if size:
            share = f"{100 * size / accounts.total:.2f} %"
            table.add_row(kind, human_size(size), share, Text(meaning, "dim"))
    if accounts.overhead is not None:
        overhead = f"{100 * accounts.overhead:.2f} %"
        table.add_row("", "", overhead, Text("bitmaps and records, relative to the data", "dim"))
    return table


def _sections(accounts: Accounts) -> Table:
    """Return a table of the largest sections, with the others combined."""
    table = new_table("SECTION", "PARTS", "SIZE", right=("PARTS", "SIZE"))
    named = [(name, section) for name, section in accounts.sections.items() if name]
    by_size = sorted(named, key=lambda item: -item[1].size)
    for name, section in by_size[:_SECTIONS_MAX]:
        table.add_row(escape(name), f"{section.parts:,}", human_size(section.size))
    rest = [section for _, section in by_size[_SECTIONS_MAX:]]
    if rest:
        parts = sum(section.parts for section in rest)
        size = human_size(sum(section.size for section in rest))
        table.add_row(f"{len(rest)} more", f"{parts:,}", size)
    return table
