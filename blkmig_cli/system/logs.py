"""What libraries log."""

import logging


def keep_off_stderr(*loggers: str) -> None:
    """Let what goes to ``loggers`` reach the handlers that a program has set, and nothing else.

    Without a handler, ``logging`` prints warnings and errors.
    """
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            logger.addHandler(logging.NullHandler())
