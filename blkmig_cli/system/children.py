"""Programs that run as children of this process, and end with it."""

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO

from blkmig_cli.errors import FailureError, failing

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


def start_child(
    words: list[str],
    package: str,
    errors: IO[bytes],
    environment: Mapping[str, str] = MappingProxyType({}),
    end: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start the program ``words[0]`` with pipes as its stdin and stdout; call it in the main thread.

    It gets the signal ``end`` when this process ends, for whatever reason (the main thread, to be exact),
    and not the SIGINT of Ctrl-C, so that its end is left to the caller.  It inherits no descriptor except
    ``errors``, its stderr.  ``environment``: variables that it gets in addition to ours.  ``package``:
    the package to install if the program is missing.  Raises FailureError where it is missing or
    cannot be started.
    """
    program = shutil.which(words[0])
    if program is None:
        raise FailureError(f"{words[0]} is missing", hint=f"install {package}")
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, end)
        if os.getppid() != parent:  # it ended before
            os.kill(os.getpid(), signal.SIGKILL)

    with failing(words[0]):
        return subprocess.Popen(
            [program, *words[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | environment,
            start_new_session=True,
            preexec_fn=tie,  # noqa: PLW1509 (it calls nothing that takes a lock)
        )
