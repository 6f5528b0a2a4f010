"""Runs the commands of the tours, as in a clone's folder demo/, and updates their output there.

Usage: python docs/make_tour.py

A block that ends in ``...`` keeps its number of lines.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/damaged.md")


def document(page: str) -> str:
    """Return a page with the current output of its commands."""
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name)
        (clone / "demo").mkdir()
        (clone / "tests").symlink_to(ROOT / "tests")
        return re.sub(
            r"(?<=```console\n).*?(?=```)",
            lambda block: _block(block[0], clone / "demo"),
            (ROOT / page).read_text(),
            flags=re.DOTALL,
        )


def _block(text: str, folder: Path) -> str:
    lines = []
    for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *before = example.splitlines()
        printed = _run(command, folder)
        if before[-1:] == ["..."]:
            printed = [*printed[: len(before) - 1], "..."]
        lines += [f"$ {command}", *printed]
    return "".join(f"{line}\n" for line in lines)


def _run(command: str, folder: Path) -> list[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return [line.rstrip() for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(document(page))
