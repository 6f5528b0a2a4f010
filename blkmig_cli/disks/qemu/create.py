"""Creating images of formats other than raw, with qemu-img."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.text import escape

#: The program, and the package that has it.
PROGRAM = "qemu-img"
PACKAGE = "qemu-utils"
_SHOWN = 400
# Options that would write another file than the image: qemu-img empties an existing data file.
_REFUSED = {
    "data_file": "it would empty that file; docs/qemu.md has a way that keeps its content",
    "data_file_raw": "it needs data_file",
    "size": "it is that of the disk",
}


def check_options(options: Sequence[str]) -> None:
    """Raise UsageError for options of -o that would write other files than the image."""
    for text in options:
        for part in text.split(","):
            key, _, value = part.partition("=")
            fault = _REFUSED.get(key.strip())
            if key.strip() == "subformat" and "Extent" in value:
                fault = "the image would consist of several files"
            if fault is not None:
                raise UsageError(f"-o {escape(part)} is refused: {fault}")


def create(path: str, image_format: str, size: int, options: Sequence[str]) -> None:
    """Create an image of ``size`` bytes at ``path``, whose file exists.

    ``options``: as for ``qemu-img create -o``.  Raises FailureError where qemu-img is missing or fails.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise FailureError(f"{PROGRAM} is missing", hint=f"install {PACKAGE}")
    words = [program, "create", "-q", "-f", image_format]
    for text in options:
        words += ["-o", text]
    # A name with a colon would be a protocol's.
    words += ["--", os.path.abspath(path), str(size)]
    try:
        with failing(PROGRAM):
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=limits.PEER_SILENT,
            )
    except subprocess.TimeoutExpired:
        raise FailureError(f"{escape(path)}: {PROGRAM} did not end") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
        text = lines[-1].removeprefix(f"{PROGRAM}: ")[:_SHOWN]
        raise FailureError(f"{escape(path)}: {PROGRAM} create: {escape(text)}")
