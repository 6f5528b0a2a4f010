"""The folder of blkmig's state: records about images that have no folder of their own."""

import hashlib
import os

from blkmig_cli.errors import FailureError


def state_path(identity: str) -> str:
    """Return the path, without suffix, of the records about the device or export of this identity.

    Raises FailureError where the folder is unknown.
    """
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(_state_folder(), name[:32])


def _state_folder() -> str:
    """Return the folder of blkmig's state, according to the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise FailureError("the state folder is unknown", hint="set XDG_STATE_HOME, or HOME")
    return os.path.join(base, "blkmig")
