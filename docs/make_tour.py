"""Runs the commands of the tour in README.md, and updates their output there.

Usage: python docs/make_tour.py

A block that ends in ``...`` keeps its number of lines.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "README.md"
CAPTURES = {
    "stream": "bitmaps-7.2-with-blocks",
    "incomplete": "classic-incomplete",
    "tail": "classic-tail",
}


def document() -> str:
    """Return README.md with the current output of its commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stream, capture in CAPTURES.items():
            packed = ROOT / "tests" / "captures" / f"{capture}.bin.gz"
            with gzip.open(packed) as source, open(folder / f"{stream}.bin", "wb") as target:
                shutil.copyfileobj(source, target)
            shutil.copy(packed, folder / f"{stream}.bin.gz")
        return re.sub(
            r"(?<=```console\n).*?(?=```)",
            lambda block: _block(block[0], folder),
            TARGET.read_text(),
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
    TARGET.write_text(document())
