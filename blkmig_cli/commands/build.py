"""``blkmig build``: writes a stream from a spec."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import SpecError, failing
from blkmig_cli.spec.files import beside, read_spec
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import count, escape
from blkmig_cli.transport.payloads import FileRange
from blkmig_cli.transport.target import open_target, resolve_content, write_events
from blkmig_cli.wire.events import Payload


@click.command("build", cls=Command)
@click.argument("spec", metavar="SPEC")
@options.target_option
@options.quiet_option
@options.verbose_option
def command(spec: str, target: str | None, quiet: bool, verbose: bool) -> int:
    """Make a stream from a description.

    SPEC is a file, or - for stdin: the output of dump --spec (JSON Lines), or a JSON or
    YAML document.  For tests, it may contain invalid values: they are written without
    checks if they fit the fields of the format.

    \b
    Examples:
      blkmig dump stream.bin --spec | blkmig build - --to copy.bin
      blkmig build broken.yaml --to broken.bin
    """
    with ExitStack() as stack:
        folder = Path()
        file: BufferedIOBase
        if spec == "-":
            file = cast(BufferedIOBase, sys.stdin.buffer)
        else:
            folder = Path(spec).parent
            with failing(spec):
                file = stack.enter_context(open(spec, "rb"))
        uses = FileUses()
        uses.add("the spec", 0 if spec == "-" else spec, writes=False)
        sink = stack.enter_context(open_target(target, uses))
        named: set[str] = set()

        def resolve(payload: Payload) -> Iterator[bytes | memoryview]:
            found = beside(payload, folder)
            if isinstance(found, FileRange) and found.path not in named:
                named.add(found.path)
                uses.add("a file of the spec", found.path, writes=False)
            return resolve_content(found)

        try:
            write_events(read_spec(file), sink, resolve)
        except ValueError as error:
            raise SpecError(f"{escape(spec)}: after {sink.written} bytes: {error}") from None
        options.log(verbose and not quiet, f"{count(sink.written, 'byte')} written")
    return 0
