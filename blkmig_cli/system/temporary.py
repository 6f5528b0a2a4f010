"""The folder for large temporary files."""

import os

# As qemu-img: /tmp is often in memory.
_DEFAULT = "/var/tmp"  # noqa: S108


def temporary_folder() -> str:
    """Return the folder in TMPDIR, or /var/tmp."""
    return os.environ.get("TMPDIR", _DEFAULT)
