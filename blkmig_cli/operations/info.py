"""All that there is to know of a stream at a glance: its report, where its bytes went, what next."""

from dataclasses import dataclass
from typing import Any

from blkmig_cli.checks.checker import Report
from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.contents.stream_disk import Contents
from blkmig_cli.operations.advice import Step, next_steps
from blkmig_cli.output.events_json import report_json


@dataclass(frozen=True, slots=True)
class Info:
    """The report on a stream, its accounts, and the steps that help; ``size`` in bytes, if known."""

    report: Report
    accounts: Accounts
    steps: list[Step]
    size: int | None


def info_of(contents: Contents, accounts: Accounts) -> Info:
    """What there is to know of a stream, once it has been read; ``accounts`` took its events."""
    report = contents.report
    exact = {device.disk.name: device.size.exact for device in report.devices}
    accounts.settle({name: size for name, size in exact.items() if size is not None})
    size = contents.stream.input.size
    if size is None and report.failure is None:
        size = accounts.total
    return Info(report, accounts, next_steps(report), size)


def info_json(info: Info) -> dict[str, Any]:
    """The document of ``blkmig info --output json``."""
    accounts, configuration = info.accounts, info.accounts.configuration
    return {
        "version": 1,
        **report_json(info.report),
        "size": info.size,
        "stream-version": accounts.version,
        "machine": None if configuration is None else configuration.machine,
        "capabilities": list(configuration.capabilities or ()) if configuration else [],
        "bytes": accounts.kinds,
        "metadata-per-data": accounts.overhead,
        "sections": [
            {"name": name or None, "parts": section.parts, "bytes": section.size}
            for name, section in accounts.sections.items()
        ],
        "next": [{"why": step.why, "command": step.command} for step in info.steps],
    }
