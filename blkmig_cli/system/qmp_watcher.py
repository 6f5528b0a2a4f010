"""A child of a program that pauses a guest: it resumes the guest where the program is killed meanwhile.

QEMU's monitor serves one client at a time.  The child has a connection to it that waits until the
program's own is closed, and is served next.  Its stdin is a pipe from the program: at its end without a
word before, the program was killed.  This module is run as a script, and loads the standard library only.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_DONE = b"done\n"
_COMMANDS = ({"execute": "qmp_capabilities"}, {"execute": "query-status"})


@contextmanager
def watched(path: str) -> Iterator[None]:
    """Have a child resume the guest of the QEMU whose monitor is at ``path`` if this process is killed.

    This process is connected to that monitor.  Raises OSError.
    """
    with ExitStack() as stack:
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.settimeout(1)
        waiting.connect(path)
        waiting.settimeout(None)
        child = subprocess.Popen(
            [sys.executable, "-IS", __file__, str(waiting.fileno())],
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[waiting.fileno()],
            start_new_session=True,  # it does not end with a group of processes
        )
        stack.callback(child.wait)
        assert child.stdin is not None
        stack.callback(child.stdin.close)
        stack.callback(child.kill)
        yield
        child.stdin.write(_DONE)


def resume(monitor: socket.socket) -> None:
    """Resume the guest if it is paused, as soon as QEMU serves ``monitor``; raises OSError, ValueError."""
    with monitor.makefile("rw", encoding="utf-8") as lines:
        answer: Any = json.loads(lines.readline())  # the greeting
        for command in _COMMANDS:
            answer = _ask(lines, command)
        if answer["status"] == "paused":
            _ask(lines, {"execute": "cont"})


def _ask(lines: Any, command: dict[str, str]) -> Any:
    lines.write(json.dumps(command) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "event" not in answer:
            return answer.get("return")


def main() -> None:
    """Wait for the end of stdin, and resume the guest if it comes without a word."""
    with socket.socket(fileno=int(sys.argv[1])) as monitor:
        if os.read(sys.stdin.fileno(), len(_DONE)) != _DONE:
            resume(monitor)


if __name__ == "__main__":
    main()
