"""The work of ``blkmig info``, apart from its options, so that its processes can load it."""

import sys
from collections.abc import Iterator
from functools import partial

from blkmig_cli.checks.names import Names
from blkmig_cli.commands import options
from blkmig_cli.commands.many import Readers
from blkmig_cli.commands.work import Done, Job, NothingKnown, Work
from blkmig_cli.operations.info import Info, failed_info, info
from blkmig_cli.operations.many.captures import Capture
from blkmig_cli.operations.many.tally import Tally
from blkmig_cli.operations.reading import Reading
from blkmig_cli.output.documents import info_json
from blkmig_cli.output.human.console import Form, console
from blkmig_cli.output.human.info import info_text
from blkmig_cli.output.human.report import heading
from blkmig_cli.output.json_writer import Items, Late
from blkmig_cli.text import count


def show_captures(
    captures: list[Capture],
    reading: Reading,
    readers: Readers,
    output: str,
    *,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show ``captures``, which ``readers`` read; return the exit status.

    Raises UsageError, and the errors of the only one, if it is a STREAM that is named.
    """
    human = output == "human"
    plain = Reading(reading.hints, reading.dialect, reading.container, bases=reading.bases)
    show = partial(_text, detailed=verbose, brief=quiet) if human else None
    job = Job(info, failed_info, plain, show, Form.of(console()))
    work = Work(
        captures,
        job,
        reading,
        readers,
        report_of=lambda one: one.report,
        raises=True,
        streamed=True,
        known=NothingKnown(),
    )
    names, tally = Names(), Tally()

    def each() -> Iterator[Done[Info]]:
        for done in work.each("reading", quiet=quiet, verbose=verbose):
            for one in done.results:
                tally.add(one.report)
                if reading.hints.names_any:
                    names.add(one.report)
            yield done

    if human:
        before = ""
        for done in each():
            for text in done.texts:
                sys.stdout.write(before + text)
                before = "" if quiet else "\n"
        if work.passed_over and tally.rows and not quiet:
            sys.stdout.write(f"\n{count(work.passed_over, 'other file')} passed over\n")
    elif work.is_many:
        streams = Items(lambda: (info_json(one) for done in each() for one in done.results))
        document = {"version": 1, "streams": streams}
        options.echo_json({**document, "passed-over": Late(lambda: work.passed_over)})
    else:
        first, *further = [info_json(one) for done in each() for one in done.results]
        options.echo_json({**first, "further-streams": further})
    names.check_hints(reading.hints)
    if not tally.rows:
        raise work.nothing_found()
    for line in tally.failures():
        options.echo_line(line)
    return tally.failure_status


def _text(one: Info, form: Form, *, detailed: bool, brief: bool) -> str:
    """Return the human output of an overview; ``brief``: only the verdict."""
    if brief:
        return form.render(lambda out: heading(one.report, out, brief=True))
    return form.render(lambda out: info_text(one, out, detailed=detailed))
