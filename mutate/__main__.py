"""Tries random single mutations of modules against the tests that execute them.

Each mutation is made in a temporary copy of the tree.  Those that no test detects are printed as
FILE:LINE with the change, then the fraction that was caught; some of the others may be equivalent to
the code, which only a reader can decide.  Each verdict goes to stderr as it comes, with the test that
failed; Ctrl-C ends the trials, and the report is of those that ended.  The exit status is 0 except for a
usage error, and for tests that cannot run.

Which tests execute what, and how long they take, is recorded first: see ``mutate.record``.

Usage: python -m mutate MODULE... [--count N] [--seed N] [--jobs N] [--seconds N] [--record]
"""

import argparse
import os
import queue
import random
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from mutate.mutations import Mutation, compiles, find_mutations
from mutate.reach import lines_to_reach, runs_once
from mutate.record import Record, get_record
from mutate.trials import (
    ROOT,
    Tree,
    Verdict,
    copied_tree,
    modules_named,
    read_sources,
    room_tests,
    steps_of,
)  # fmt: skip

Drawn = tuple[Path, Mutation]


def draw(modules: list[Path], count: int, seed: int) -> list[Drawn]:
    """Return at most ``count`` mutations of all modules, in the order of files and lines."""
    every = [
        (path, found) for path in modules for found in find_mutations((ROOT / path).read_text())
    ]
    random.Random(seed).shuffle(every)
    drawn: list[Drawn] = []
    for path, mutation in every:
        if len(drawn) == count:
            break
        if compiles(mutation.apply((ROOT / path).read_text())):
            drawn.append((path, mutation))
    return sorted(drawn)


def attempt_all(
    drawn: list[Drawn], trees: list[Tree], record: Record, limit: float
) -> dict[Drawn, Verdict]:
    """Try mutations, as many at a time as there are trees; return how each trial that ended did so.

    ``limit``: the seconds that the tests of a trial take at most.  Ctrl-C ends the trials that are not
    over.  Raises RuntimeError where the record is of other tests.
    """
    sources = read_sources()
    steps = {}
    for path, mutation in drawn:
        tests = record.tests(lines_to_reach(sources, path, mutation))
        if runs_once(sources[path], mutation):
            # What is defined may be looked at without a call of what is recorded.
            tests |= room_tests(path, record)
        steps[path, mutation] = steps_of(path, tests, record, limit)
    trees[0].check(
        sorted({test for each in steps.values() for step in each for test in step.tests})
    )
    idle: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        idle.put(tree)
    verdicts: dict[Drawn, Verdict] = {}

    def attempt(path: Path, mutation: Mutation) -> tuple[Verdict, str]:
        tree = idle.get()
        try:
            return tree.attempt(path, mutation, steps[path, mutation])
        finally:
            idle.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        futures = {pool.submit(attempt, *each): each for each in drawn}
        try:
            for future in as_completed(futures):
                path, mutation = each = futures[future]
                verdicts[each], test = future.result()
                print(
                    f"{len(verdicts)}/{len(drawn)} {verdicts[each].value}: "
                    f"{path}:{mutation.line}: {mutation}{test and f': {test}'}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        except KeyboardInterrupt:
            for tree in trees:
                tree.stop()
        finally:
            pool.shutdown(cancel_futures=True)
    return verdicts


def report(verdicts: dict[Drawn, Verdict]) -> str:
    """Return the survivors, a line each, and the fraction that was caught."""
    lines = [
        f"{path}:{mutation.line}: {mutation}"
        for (path, mutation), verdict in sorted(verdicts.items())
        if verdict is Verdict.SURVIVED
    ]
    total, late = len(verdicts), list(verdicts.values()).count(Verdict.TIMEOUT)
    caught = total - len(lines)
    return "\n".join(
        [
            *lines,
            f"{total} mutations: {caught} caught ({late} by the time limit), "
            f"{len(lines)} survived: {caught / max(total, 1):.1%} caught",
        ]
    )


def main() -> int:
    """Run the trials, and print the survivors."""
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument(
        "modules", nargs="+", metavar="MODULE", help="such as wire/decoder, or wire"
    )
    parser.add_argument("--count", type=int, default=20, help="how many mutations")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws others")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time")
    parser.add_argument("--seconds", type=float, default=40, help="for the tests of a trial")
    parser.add_argument("--record", action="store_true", help="run all tests first, even if known")
    options = parser.parse_args()
    try:
        drawn = draw(modules_named(options.modules), options.count, options.seed)
    except ValueError as error:
        parser.error(str(error))
    if not drawn:
        parser.error("nothing to mutate")
    with ExitStack() as stack:
        jobs = min(options.jobs, len(drawn))
        trees = [stack.enter_context(copied_tree()) for _ in range(jobs)]
        try:
            record = get_record(
                trees[0].folder / "tree", ROOT / "build" / "mutate", jobs, anew=options.record
            )
            verdicts = attempt_all(drawn, trees, record, options.seconds)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    print(report(verdicts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
