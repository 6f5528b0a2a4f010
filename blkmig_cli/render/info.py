"""``blkmig info`` for people: one screen."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blkmig_cli.accounting import KINDS, Accounts
from blkmig_cli.info import Info
from blkmig_cli.render import report as shown
from blkmig_cli.render.console import table as new_table
from blkmig_cli.text import count, escape, human_size

_SECTIONS_MAX = 6


def info_text(info: Info, out: Console) -> None:
    """Source and verdict, disks, bitmaps, bytes, sections, findings, and what to do next."""
    shown.heading(info.report, out)
    out.print(Text("  " + ", ".join(_facts(info))), soft_wrap=False)
    out.print()
    shown.disks_table(info.report, out)
    if info.report.bitmaps:
        out.print()
        shown.bitmaps_table(info.report, out)
    out.print()
    out.print(_bytes(info.accounts))
    out.print(_sections(info.accounts))
    if info.report.findings:
        out.print()
        shown.findings_text(info.report, out)
    if info.steps:
        out.print()
    for step in info.steps:
        out.print(Text.assemble(("next: ", "bold"), escape(step.why), ":" if step.command else ""))
        if step.command is not None:
            out.print(Text(f"  {step.command}", "cyan"), soft_wrap=True)


def _facts(info: Info) -> list[str]:
    accounts = info.accounts
    facts = [] if info.size is None else [human_size(info.size)]
    if accounts.version is not None:
        facts.append(f"QEVM version {accounts.version}")
    if accounts.configuration is not None:
        facts.append(f"machine {escape(accounts.configuration.machine)}")
        capabilities = accounts.configuration.capabilities
        if capabilities:
            facts.append("capabilities " + " ".join(map(escape, capabilities)))
    return facts


def _bytes(accounts: Accounts) -> Table:
    table = new_table("BYTES", "SIZE", "SHARE", "", right=("SIZE", "SHARE"))
    for kind, meaning in KINDS.items():
        size = accounts.kinds[kind]
        if size:
            share = f"{100 * size / accounts.total:.2f} %"
            table.add_row(kind, human_size(size), share, Text(meaning, "dim"))
    if accounts.overhead is not None:
        overhead = f"{100 * accounts.overhead:.2f} %"
        table.add_row("", "", overhead, Text("bitmaps and records, measured by the data", "dim"))
    return table


def _sections(accounts: Accounts) -> Text:
    """The sections in a line or two, those of devices as one."""
    by_size = sorted(accounts.sections.items(), key=lambda item: -item[1].size)
    named = [(name, section) for name, section in by_size if name]
    texts = [
        f"{escape(name)} ({count(section.parts, 'part')}, {human_size(section.size)})"
        for name, section in named[:_SECTIONS_MAX]
    ]
    rest = named[_SECTIONS_MAX:]
    if rest:
        size = human_size(sum(section.size for _, section in rest))
        texts.append(f"{len(rest)} more ({size})")
    return Text("sections: " + ", ".join(texts) if texts else "no sections")
