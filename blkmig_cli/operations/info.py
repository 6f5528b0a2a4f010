"""What there is to know of a stream at a glance: its report, where its bytes went, the next steps."""

from dataclasses import dataclass

from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import Report
from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.operations.advice import Step, next_steps
from blkmig_cli.operations.reading import Reading


@dataclass(frozen=True, slots=True)
class Info:
    """The report on a stream, its accounts, and the steps that help; ``size`` in bytes, if known."""

    report: Report
    accounts: Accounts
    steps: list[Step]
    size: int | None


def info(stream: str, reading: Reading) -> Info:
    """Return what there is to know of the STREAM; damage is in the report's ``failure``.

    Raises UsageError for hints of what is not in the stream, FailureError where the input fails.
    """
    accounts = Accounts()
    with reading.contents(stream, accounts) as contents:
        report, size = contents.report, contents.stream.input.size
    Names.of(report).check_hints(reading.hints)
    exact = {device.disk.name: device.size.exact for device in report.devices}
    accounts.settle({name: size for name, size in exact.items() if size is not None})
    if size is None and report.failure is None:
        size = accounts.total
    return Info(report, accounts, next_steps(report), size)
