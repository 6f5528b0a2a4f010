"""The long tests: what takes long and finds little, run by ``make test-long``, not by ``make test``.

A test marked ``long`` runs in the long tests only.  A test marked ``scaled`` runs in both, with more
examples in the long ones: ``examples`` says how many.  BLKMIG_LONG=1 selects the long tests.
"""

import os

#: Whether this is a run of the long tests.
LONG = os.environ.get("BLKMIG_LONG", "0") != "0"


def examples(ordinary: int, long: int) -> int:
    """Return how many examples to try in this run."""
    return long if LONG else ordinary
