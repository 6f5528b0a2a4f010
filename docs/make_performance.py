"""Puts the tables of a bench.json into docs/performance.md.

Usage: python docs/make_performance.py bench.json
"""

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("performance.md")


def main(source: str) -> None:
    """Replace the text between the page's marks."""
    found = json.loads(Path(source).read_text())
    text = TARGET.read_text()
    tables = {"figures": figures(found)}
    if found["growth"]:
        tables["growth"] = growth(found["growth"])
    for mark, lines in tables.items():
        text = re.sub(
            rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end -->)", "\n".join(lines) + "\n", text, flags=re.S
        )
    TARGET.write_text(text)


def figures(found: dict[str, Any]) -> list[str]:
    """Return the machine, and the table of all figures."""
    machine = found["machine"]
    lines = [
        f"{machine['processors']} processors ({machine['model']}), {machine['memory-gib']} GiB of memory, "
        f"Linux {machine['kernel']}, Python {machine['python']}, files in `{machine['folder']}`; "
        f"{machine['date']}; medians of {len(found['rows'][0]['ours'])} rounds.",
        "",
        "| work | median | spread | against | its median | ratio | must | aim | |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in found["rows"]:
        theirs = f"{statistics.median(row['theirs']):.3g} {row['unit']}" if row["theirs"] else ""
        verdict = {None: ""}.get(row["must"], "**missed**")
        verdict = "aim" if row["meets-aim"] else "must" if row["meets-must"] else verdict
        cells = [
            row["name"].replace("|", "\\|"),
            f"{statistics.median(row['ours']):.3g} {row['unit']}",
            f"{row['spread']:.0%}",
            row["peer"] or "",
            theirs,
            f"{row['figure']:.2g}" if theirs else "",
            "" if row["must"] is None else f"{row['must']:g}",
            "" if row["aim"] is None else f"{row['aim']:g}",
            verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def growth(steps: list[dict[str, Any]]) -> list[str]:
    """Return one line for each kind of work: seconds and MB as the amount doubles."""
    names = dict.fromkeys(step["name"] for step in steps)
    lines = ["| work | from | to | seconds | MB |", "| --- | ---: | ---: | --- | --- |"]
    for name in names:
        mine = [step for step in steps if step["name"] == name]
        seconds = ", ".join(f"{step['seconds']:.2f}" for step in mine)
        held = ", ".join(f"{step['memory']:.0f}" for step in mine)
        lines.append(
            f"| {name} | {mine[0]['amount']:,} | {mine[-1]['amount']:,} | {seconds} | {held} |"
        )
    return lines


if __name__ == "__main__":
    main(sys.argv[1])
