"""The overview of a stream: its report, the accounts of its bytes, and suggested next steps."""

from collections.abc import Iterator
from dataclasses import replace

from blkmig_cli.checks.report import Report, failed_report
from blkmig_cli.checks.survey import read_contents
from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import BlkmigError
from blkmig_cli.operations.advice import Step, next_steps, reading_options
from blkmig_cli.operations.reading import Reading, each_report
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.rest import continued_state


@dataclass(frozen=True, slots=True)
class Info:
    """The report on a stream, its accounts, and next steps; ``size`` in bytes, if known."""

    report: Report
    accounts: Accounts
    steps: list[Step]
    size: int | None


def info(stream: str, reading: Reading) -> Iterator[Info]:
    """Yield the overview of each stream in the STREAM, in order; with bases, that of the only one.

    Damage is in a report's ``failure``.  Raises FailureError where the input fails, and with bases as
    :meth:`Reading.contents`.
    """
    if reading.bases:
        yield _info_of_chain(stream, reading)
        return
    reading = replace(reading, number=1)
    with reading.open(stream, by_range=True) as opened:
        found: list[Info] = []

        def judge(one: Stream) -> Report:
            found.append(_info(one, opened.argument, reading))
            return found[-1].report

        for _ in each_report(opened, judge):
            yield found.pop()


def failed_info(stream: str, error: BlkmigError) -> Info:
    """Return the overview of a stream that could not be opened or read because of ``error``."""
    return Info(failed_report(stream, error), Accounts(), [], None)


def _info_of_chain(stream: str, reading: Reading) -> Info:
    """Return the overview of an increment and the streams under it; the accounts are its own."""
    accounts = Accounts()
    with reading.contents(stream, accounts) as contents:
        report = contents.report
        _settle(accounts, report)
        return Info(report, accounts, [], contents.stream.input.size)


def _settle(accounts: Accounts, report: Report) -> None:
    exact = {device.disk.name: device.size.exact for device in report.devices}
    accounts.settle({name: size for name, size in exact.items() if size is not None})


def _info(stream: Stream, argument: str, reading: Reading) -> Info:
    accounts = Accounts()
    with reading.progress("reading", stream.input.size) as tick:
        decoder = reading.decoder(stream.input)
        report = read_contents(stream, decoder, reading.hints, tick, accounts).report
    _settle(accounts, report)
    alone = stream.number == 1 and report.next_stream is None
    size = stream.input.size if alone else None
    if size is None and report.failure is None:
        size = accounts.total
    configuration = accounts.configuration
    rest = configuration is not None and continued_state(configuration.machine) is not None
    options = reading_options(reading) + ([] if alone else [f"--stream {stream.number}"])
    steps = next_steps(report, argument, options, rest=rest)
    return Info(report, accounts, steps, size)
