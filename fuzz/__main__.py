"""Runs every target for some seconds, with seeds made from the captures.

Usage: python -m fuzz [SECONDS] [TARGET...]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.common import MAX_LENGTH
from fuzz.seeds import write_seeds, write_words

TARGETS = ("decoder", "scanner", "spec", "bitmapfile", "manifest", "replay", "nbd")


def main() -> int:
    """Run the targets; return the worst exit status."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    worst = 0
    for name in sys.argv[2:] or TARGETS:
        with tempfile.TemporaryDirectory(prefix="blkmig-fuzz-") as folder:
            seeds, dictionary = Path(folder) / "seeds", Path(folder) / "words"
            seeds.mkdir()
            write_seeds(name, seeds)
            write_words(dictionary)
            print(f"== {name}: {seconds} seconds", flush=True)
            words = [
                f"-max_total_time={seconds}",
                f"-max_len={MAX_LENGTH}",
                f"-dict={dictionary}",
                f"-artifact_prefix=fuzz-{name}-",
                "-print_final_stats=1",
            ]
            command = [sys.executable, "-m", f"fuzz.{name}", *words, str(seeds)]
            done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
            lines = done.stderr.splitlines()
            failed = done.returncode != 0
            told = lines[-40:] if failed else [line for line in lines if "executed_units" in line]
            print("\n".join(told))
            worst = max(worst, int(failed))
    return worst


if __name__ == "__main__":
    sys.exit(main())
