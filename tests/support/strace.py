"""Killing blkmig at any system call, by strace."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

_PR_SET_PTRACER = 0x59616D61
_ANY = -1
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
_WRITES = re.compile(r"O_WRONLY|O_RDWR")
#: A system call: its name, and how many of that name its thread makes up to it.
Call = tuple[str, int]


class _Stopped:
    """A child that waits to be traced, and then does ``work``."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANY), 0, 0, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
                work()
            finally:
                os._exit(0)
        os.waitpid(self.pid, os.WUNTRACED)

    def trace(self, *words: str) -> int:
        """Let it go on under strace with these words; returns what waitpid says of it."""
        command = ["strace", "-f", "-p", str(self.pid), *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            attached = "attached" in said
            os.kill(self.pid, signal.SIGCONT if attached else signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
            tracer.communicate(timeout=60)
        if not attached:
            raise OSError(said.strip())
        return status


def why_not() -> str | None:
    """Return why no process can be traced here; None if one can."""
    if shutil.which("strace") is None:
        return "strace is missing"
    try:
        _Stopped(lambda: None).trace("-o", os.devnull)
    except OSError as error:
        return f"strace cannot trace: {error}"
    return None


def calls_after_first_write(work: Callable[[], object], folder: Path, log: Path) -> list[Call]:
    """Return the calls that ``work`` makes from its first opening of a file in ``folder`` to write it.

    It is done in a child; ``log`` is written.
    """
    assert _Stopped(work).trace("-o", str(log), "-y") == 0
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[Call, None] = {}
    begun = False
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        thread, name, rest = match.groups()
        counts[thread, name] += 1
        begun |= name == "openat" and str(folder) in rest and bool(_WRITES.search(rest))
        if begun:
            found[name, counts[thread, name]] = None
    return list(found)


def kill_at(work: Callable[[], object], call: Call) -> bool:
    """Do ``work`` in a child that is killed when it makes ``call``; return whether it was."""
    name, number = call
    inject = f"inject={name}:signal=SIGKILL:when={number}"
    status = _Stopped(work).trace("-o", os.devnull, "-e", f"trace={name}", "-e", inject)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
