"""The workers of a Dask cluster that work on many captures, with the results in order.

The extra ``cluster``.  Dask starts work again whose worker dies, on another one.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from blkmig_cli import __version__, limits
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.many.workers import Work
from blkmig_cli.system.logs import keep_off_stderr
from blkmig_cli.text import escape

R = TypeVar("R")


def results_of(
    names: Iterable[str], work: Work[R], address: str, lost: Callable[[str], R]
) -> Iterator[R]:
    """Yield the result of ``work`` for each of ``names``, in their order, from the scheduler at ``address``.

    ``lost`` makes the result of work that workers died of.  Leaving the iterator cancels what has not
    begun.  Raises FailureError where there is no scheduler, no worker, or one with another version of
    blkmig; UsageError where ``work`` does.
    """
    client = _connect(address)
    waiting: deque[tuple[str, Any]] = deque()
    try:
        number = _check_workers(client, address)
        (job,) = client.scatter([work], broadcast=True, hash=False)
        for name in names:
            waiting.append((name, client.submit(_work, job, __version__, name, pure=False)))
            if len(waiting) >= limits.RESULTS_WAITING * number:
                yield _result(address, *waiting.popleft(), lost)
        while waiting:
            yield _result(address, *waiting.popleft(), lost)
    finally:
        with suppress(OSError, TimeoutError):
            client.cancel([future for _, future in waiting], force=True)
            client.close(timeout=limits.CLUSTER_WAIT)


def _connect(address: str) -> Any:
    """Return a client of the scheduler; raises FailureError."""
    try:
        from distributed import Client  # noqa: PLC0415 (an extra)
    except ImportError:
        raise FailureError(
            "--cluster: distributed is missing", hint="install blkmig[cluster]"
        ) from None
    # What they have to say is in the errors, too.  Those of Dask have handlers and levels of their own.
    keep_off_stderr("asyncio")
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        make: Any = Client
        return make(address, timeout=limits.CLUSTER_WAIT, set_as_default=False)
    except ValueError as error:
        raise UsageError(f"--cluster {escape(address)}: {escape(str(error))}") from None
    except (OSError, TimeoutError):
        raise FailureError(f"--cluster {escape(address)}: no scheduler answers") from None


def _check_workers(client: Any, address: str) -> int:
    """Return the number of workers; raises FailureError where they cannot do the work."""
    found = client.run(_version, on_error="return")
    if not found:
        raise FailureError(f"--cluster {escape(address)}: it has no workers")
    for worker, version in found.items():
        if version != __version__:
            other = f"blkmig {version}" if isinstance(version, str) else "no blkmig"
            raise FailureError(
                f"--cluster {escape(address)}: worker {escape(str(worker))} has {escape(other)},"
                f" this is blkmig {__version__}",
                hint="install the same version on all",
            )
    return len(found)


def _result(address: str, name: str, future: Any, lost: Callable[[str], R]) -> R:
    """Wait for the result of the work on ``name``; raises FailureError, UsageError."""
    from distributed import CancelledError, KilledWorker  # noqa: PLC0415 (an extra)

    try:
        result: R | BlkmigError = future.result()
    except KilledWorker:
        return lost(name)
    except (CancelledError, OSError, TimeoutError):
        raise FailureError(f"--cluster {escape(address)}: the scheduler has ended") from None
    if isinstance(result, BlkmigError):
        raise result
    return result


def _version() -> str:
    """Return the version of blkmig; called by workers."""
    return __version__


def _work(work: Work[R], version: str, name: str) -> R | BlkmigError:
    """Do the work on ``name``; called by workers.  ``version``: of blkmig where the work comes from."""
    if version != __version__:
        return FailureError(f"a worker has blkmig {__version__}, this is blkmig {version}")
    try:
        return work(name)
    except UsageError as error:
        return error
