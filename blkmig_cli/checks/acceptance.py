"""Which error findings a command accepts, and with which option.

An error that is not accepted ends a command with exit status 1, and nothing is written; one that ended
the reading of the stream, with 3 (or 4).
"""

from collections.abc import Mapping

#: Those that state that not all chunks were sent.
UNSENT = ("missing-chunks", "bulk-unfinished", "salvaged")
_UNFINISHED = (*UNSENT, "section-unfinished")

#: In place of an option: accepted without any.
ALWAYS = ""
#: By command and option: the check ids that are accepted.
ACCEPTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "validate": {"--incremental": ("missing-chunks", "salvaged")},
    "replay": {
        "--incremental": ("missing-chunks", "salvaged"),
        "--allow-incomplete": (*_UNFINISHED, "bitmap-incomplete"),
        "--no-bitmaps": ("bitmap-incomplete", "bitmap-size"),
        "--bitmaps-only": _UNFINISHED,
    },
    "convert": {
        "--incremental": UNSENT,
        "--no-bitmaps": ("bitmap-incomplete", "bitmap-size"),
    },
    "extract": {
        # They say nothing of the content of the disk.
        ALWAYS: ("device-state", "bitmap-incomplete", "bitmap-size", "progress-contradiction"),
        "--allow-incomplete": (*_UNFINISHED, "merged-devices"),
    },
}
#: The commands that give a finding, if not all do.
GIVEN_BY: Mapping[str, tuple[str, ...]] = {
    "size-unknown": ("replay", "extract"),
    "wrong-base": ("replay",),
    "image-differs": ("validate",),
    "manifest-differs": ("validate", "replay"),
}


def accepted(command: str, options: Mapping[str, bool]) -> frozenset[str]:
    """Return the check ids that ``command`` accepts with those of ``options`` that are given."""
    found = ACCEPTED[command]
    return frozenset(check for option, given in options.items() if given for check in found[option])


def accepting(command: str, check: str) -> list[str]:
    """Return the options with which ``command`` accepts the error ``check``."""
    return [option for option, checks in ACCEPTED[command].items() if check in checks]
