"""The help of a command, with its options in sections, and shell completion.

Both are derived from the names of the options and from their metavars.
"""

import glob
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Options that are not listed here are under the last heading.
_SECTIONS = {
    "Stream": (
        "dialect", "from_dialect", "container", "normalize", "machine", "granularities",
        "device_sizes", "number", "no_zero_blocks", "skip_unallocated", "own_id", "no_identity",
    ),
    "Several streams": ("files_from", "null", "jobs", "cluster", "summary", "catalogue"),
    "Images": (
        "images", "formats", "image_format", "stated_format", "format_options", "create",
        "overwrite", "force_share",
    ),
    "Increments": (
        "bases", "base", "since", "otherwise", "mark", "drop", "manifests", "verify_base",
        "no_base_check",
    ),
    "Bitmaps": (
        "all_bitmaps", "names", "bitmap", "bitmaps_from", "bitmaps_to", "bitmaps_only", "no_bitmaps",
    ),
    "Checks": (
        "incremental", "allow_incomplete", "manifest",
        "for_qemu", "strict", "ignore", "list_checks", "explained",
    ),
    "Selection": (
        "disks", "excluded", "list_disks", "show_all", "device", "devices", "types", "sectors", "limit",
    ),
    "Guest": (
        "mode", "downtime", "max_passes", "max_bandwidth", "on_no_converge", "then", "scratch",
        "scratch_limit", "freeze", "agent", "socket", "clean_up",
    ),
    "Writing": ("dry_run", "estimate", "token_text", "print_token", "resume", "restart", "verify", "force"),
    "Output": (
        "target", "ranges", "totals", "svg", "payload", "as_spec", "output", "junit", "sarif", "quiet",
        "verbose",
    ),
}  # fmt: skip
_REST = "Others"
_FEW = 6  # the most options in a list without headings
_COLUMN = 28
_NAMES_A_FILE = re.compile(r"\b(STREAM|SPEC|TARGET|IMAGE|FILE)\b|^[AB]$")


class Command(click.Command):
    """A command of blkmig."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for param in self.params:
            if param.type is click.STRING and _NAMES_A_FILE.search(param.metavar or ""):
                param.type = _File()

    def sections(self, ctx: click.Context) -> dict[str, list[click.Option]]:
        """Return the options that are shown, under their headings."""
        left = {
            param.name or "": param
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and param.get_help_record(ctx) is not None
        }
        if len(left) <= _FEW:
            return {"Options": list(left.values())}
        found = {
            section: [left.pop(name) for name in names if name in left]
            for section, names in _SECTIONS.items()
        }
        found[_REST] = list(left.values())
        return {section: options for section, options in found.items() if options}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their sections, all in the same two columns."""
        sections = {
            section: [option.get_help_record(ctx) or ("", "") for option in options]
            for section, options in self.sections(ctx).items()
        }
        # Wider terms are on a separate line.
        terms = [term for rows in sections.values() for term, _ in rows]
        width = max(len(term) for term in terms if len(term) <= _COLUMN)
        for section, rows in sections.items():
            with formatter.section(section):
                padded = [(term.ljust(width), text) for term, text in rows]
                formatter.write_dl(padded, col_max=width)


class _File(click.types.StringParamType):
    """A file name, perhaps after ``DEVICE=``; or a URI, which is not completed."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Return the marker for the shell's own completion of files, or the files after ``DEVICE=``."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (slow to load)

        device, equals, begin = incomplete.partition("=")
        if not equals or os.sep in device:
            return [CompletionItem(incomplete, type="file")]
        found = sorted(glob.glob(f"{glob.escape(begin)}*"))
        return [
            CompletionItem(f"{device}={path}{os.sep if os.path.isdir(path) else ''}")
            for path in found
        ]


def one_of(
    explained: dict[str, str],
) -> "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]":
    """Return a function that completes the keys of ``explained``; some shells show the explanation."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (slow to load)

        return [
            CompletionItem(key, help=text)
            for key, text in explained.items()
            if key.startswith(incomplete)
        ]

    return complete
