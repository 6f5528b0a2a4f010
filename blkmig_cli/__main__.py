"""The console script, and ``python -m blkmig_cli``."""

import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; SIGINT also ends it quietly while it is loading."""
    status: str | int | None
    gc.disable()  # what is loaded stays; see ``commands/group.py``
    try:
        from blkmig_cli.commands import main as run  # noqa: PLC0415 (it takes a while)

        run()
        status = 0
    except KeyboardInterrupt:
        status = 130
    except SystemExit as ended:
        status = ended.code
    _end(status)


def _end(status: str | int | None) -> NoReturn:
    """End the process; without freeing each object first, which takes a tenth of a short command's time.

    Not where a library's thread is at work: such a library may have to tidy up.
    """
    threading = sys.modules.get("threading")
    if not isinstance(status, int) or (threading and threading.active_count() > 1):
        sys.exit(status)
    for stream in sys.stdout, sys.stderr:
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                sys.exit(status)  # Python says what was lost
    os._exit(status)


if __name__ == "__main__":
    main()
