"""The work of ``blkmig validate``, apart from its options, so that its processes can load it."""

import json
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import click

from blkmig_cli import __version__
from blkmig_cli.checks.judge import found
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import Report, failed_report
from blkmig_cli.commands import options
from blkmig_cli.commands.many import Readers
from blkmig_cli.commands.work import Done, Job, NothingKnown, Work
from blkmig_cli.dataclass import dataclass
from blkmig_cli.operations.many.captures import Capture
from blkmig_cli.operations.many.tally import Tally
from blkmig_cli.operations.reading import Reading
from blkmig_cli.operations.validate import ValidateOptions, validate_all
from blkmig_cli.output.documents import report_json, without_base_json
from blkmig_cli.output.github import annotations, findings, write_step_summary
from blkmig_cli.output.human import report as shown
from blkmig_cli.output.human.checks import where_explained
from blkmig_cli.output.human.console import Form, console
from blkmig_cli.output.json_writer import Items, Late
from blkmig_cli.output.junit import JUnit
from blkmig_cli.output.sarif import Sarif
from blkmig_cli.system.atomic import replacing
from blkmig_cli.system.pipes import write_all

if TYPE_CHECKING:
    from blkmig_cli.output.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is printed and written: ``output``, and files of further kinds; ``summary``: no reports."""

    output: str
    summary: bool
    junit: str | None
    sarif: str | None
    strict: bool
    ignore: Collection[str]
    quiet: bool
    verbose: bool


def validate_captures(
    captures: list[Capture],
    reading: Reading,
    chosen: ValidateOptions,
    readers: Readers,
    outputs: Outputs,
    catalogue: str | None,
) -> int:
    """Validate ``captures`` with ``readers``, print the reports; return the exit status.

    Those that are unchanged in the ``catalogue`` are not read.  Raises UsageError, FailureError of the
    catalogue and files that are written, and where the only one is a STREAM that is named, and no other
    output than the human one is made, its errors.
    """
    run = _Validation(captures, reading, chosen, readers, outputs)
    if catalogue is None:
        return run.run()
    from blkmig_cli.output.catalogue import Catalogue  # noqa: PLC0415 (sqlite3 only where it is needed)

    with Catalogue(catalogue, _options(reading, chosen)) as known:
        return run.run(known)


def _options(reading: Reading, chosen: ValidateOptions) -> str:
    """Return all that the verdicts on unchanged streams depend on, as text."""
    hints = reading.hints
    return json.dumps(
        {
            "blkmig": __version__,
            "dialect": reading.dialect,
            "container": reading.container,
            "sizes": sorted(map(repr, hints.sizes.items())),
            "largest": sorted(map(repr, hints.largest)),
            "granularities": sorted(map(repr, hints.granularities.items())),
            "incremental": chosen.incremental,
            "for-qemu": None if chosen.for_qemu is None else str(chosen.for_qemu),
        }
    )


class _Validation:
    """One run of the command; see :func:`validate_captures`."""

    def __init__(
        self,
        captures: list[Capture],
        reading: Reading,
        chosen: ValidateOptions,
        readers: Readers,
        outputs: Outputs,
    ) -> None:
        self._chosen = chosen
        self._outputs = outputs
        self._hints = reading.hints
        self._out = console()
        prints = outputs.output == "human" and not outputs.summary
        job = Job(
            partial(validate_all, options=chosen),
            failed_report,
            Reading(reading.hints, reading.dialect, reading.container),
            partial(_text, ignore=outputs.ignore, brief=outputs.quiet) if prints else None,
            Form.of(self._out),
        )
        self._work = Work(
            captures,
            job,
            reading,
            readers,
            report_of=lambda report: report,
            raises=outputs.output == "human" and not (outputs.junit or outputs.sarif),
            streamed=prints or outputs.output in ("json", "github"),
            known=NothingKnown(),
        )
        self._names = Names()
        self._tally = Tally(strict=outputs.strict)
        self._files = [
            (path, document)
            for path, document in (
                (outputs.junit, JUnit(strict=outputs.strict)),
                (outputs.sarif, Sarif()),
            )
            if path is not None
        ]

    def run(self, catalogue: "Catalogue | None" = None) -> int:
        """Do all; return the exit status."""
        self._catalogue = catalogue
        if catalogue is not None:
            self._work.known = catalogue
        self._print()
        for path, document in self._files:
            with replacing(path) as fd:
                write_all(fd, memoryview(document.text().encode()))
        step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if self._outputs.output == "github" and step_summary:
            write_step_summary(step_summary, self._tally)
        self._names.check_hints(self._hints)
        self._names.check_devices("-f", self._chosen.formats)
        if not self._tally.rows:
            raise self._work.nothing_found()
        if self._outputs.output != "github":
            for line in self._tally.failures():
                options.echo_line(line)
        return self._tally.status

    def _print(self) -> None:
        """Print what the option --output says."""
        match self._outputs.output:
            case "human":
                for done in self._each():
                    for text in done.texts:
                        sys.stdout.write(text)
                        if (self._work.is_many or len(done.texts) > 1) and not self._outputs.quiet:
                            sys.stdout.write("\n")
                shown.without_base(self._tally, self._out)
                several = self._work.is_many or len(self._tally.rows) > 1
                several = several and not self._outputs.quiet
                if self._tally.rows and (several or self._outputs.summary):
                    shown.summary(self._tally, self._out)
                found_some = any(row.errors or row.warnings for row in self._tally.rows)
                if found_some and not (self._outputs.summary or self._outputs.quiet):
                    where_explained(self._out)
            case "json":
                document = {
                    "version": 1,
                    "streams": Items(lambda: map(report_json, self._reports())),
                    "passed-over": Late(lambda: self._tally.passed_over),
                }
                if self._catalogue is not None:
                    document["unchanged"] = Late(lambda: self._tally.unchanged)
                    document["without-base"] = Late(lambda: without_base_json(self._tally))
                options.echo_json(document)
            case "github":
                for report in self._reports():
                    for line in annotations(report):
                        click.echo(line)
                for report in self._tally.without_base:
                    for line in findings(report):
                        click.echo(line)
            case kind:
                results = JUnit(strict=self._outputs.strict) if kind == "junit" else Sarif()
                for report in chain(self._reports(), self._tally.without_base):
                    results.add(report)
                click.echo(results.text())

    def _reports(self) -> Iterator[Report]:
        for done in self._each():
            yield from done.results

    def _each(self) -> Iterator[Done[Report]]:
        """Yield what was done for each capture, after it was counted."""
        outputs = self._outputs
        for done in self._work.each("validating", quiet=outputs.quiet, verbose=outputs.verbose):
            reports = [report.ignoring(outputs.ignore) for report in done.results]
            for report in reports:
                self._tally.add(report)
                if self._hints.names_any or self._chosen.formats:
                    self._names.add(report)
                for _, document in self._files:
                    document.add(report)
            yield replace(done, results=reports)
        self._tally.passed_over = self._work.passed_over
        if self._catalogue is not None:
            self._tally.unchanged = self._work.unchanged
            self._add_without_base(self._catalogue)

    def _add_without_base(self, catalogue: "Catalogue") -> None:
        for address, base in catalogue.without_base():
            text = f"its base {base} is no stream of the catalogue"
            report = Report(address, findings=(found("base-missing", text),))
            report = report.ignoring(self._outputs.ignore)
            if report.findings:
                self._tally.add_without_base(report)
                for _, document in self._files:
                    document.add(report)


def _text(report: Report, form: Form, ignore: Collection[str], brief: bool) -> str:
    """Return the human output of a report; ``brief``: only the verdict."""
    show = partial(shown.heading, brief=True) if brief else shown.report_text
    return form.render(lambda out: show(report.ignoring(ignore), out))
