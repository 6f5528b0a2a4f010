"""``python -m blkmig_cli``."""

from blkmig_cli.commands import main

if __name__ == "__main__":
    main()
