"""All that there is to know of a stream at a glance: its report, where its bytes went, what next."""

from dataclasses import dataclass

from blkmig_cli.checks.checker import Report
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.operations.advice import Step, next_steps


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
    stream = contents.stream
    alone = stream.number == 1 and report.next_stream is None
    size = stream.input.size if alone else None
    if size is None and report.failure is None:
        size = accounts.total
    steps = next_steps(report, stream.argument, None if alone else stream.number)
    return Info(report, accounts, steps, size)
