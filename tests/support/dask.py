"""A Dask cluster on this machine: a scheduler and two workers of one thread, each a process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.peers import unused_port


@contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Run a cluster while the context lasts; yields its address.  ``folder``: where its processes are."""
    address = f"tcp://127.0.0.1:{unused_port()}"
    port = address.rpartition(":")[2]
    quiet = ["--no-dashboard", "--host", "127.0.0.1"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", *quiet, "--port", port]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, *quiet, "--no-nanny",
              "--nthreads", "1", "--death-timeout", "60",
              "--local-directory", str(folder / "workers")]  # fmt: skip
    started: list[subprocess.Popen[str]] = []
    drains = []
    try:
        for words in (scheduler, worker, worker):
            process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)
            started.append(process)
        for process in started[1:]:  # each says so when it is registered
            assert process.stderr is not None
            assert any("Registered to" in line for line in process.stderr)
        for process in started:
            drains.append(threading.Thread(target=_drain, args=(process,)))
            drains[-1].start()
        yield address
    finally:
        for process in started[::-1]:
            process.kill()
            process.wait()
        for thread in drains:
            thread.join()
        for process in started:
            process.stderr.close()  # type: ignore[union-attr]


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for _ in process.stderr:
        pass
