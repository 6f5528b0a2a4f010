"""The console script, and ``python -m blkmig_cli``."""

import sys


def main() -> None:
    """Run the command line; SIGINT also ends it quietly while it is loading."""
    try:
        from blkmig_cli.commands import main as run  # noqa: PLC0415 (it takes a while)

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
