"""The answer of QEMU on the return path that command 1 opens.

The last message, SHUT, states whether the load succeeded (QEMU 7.2, migration/migration.c:
migrate_send_rp_shut).
"""

from blkmig_cli.schemas.constants import RETURN_PATH_SHUT
from blkmig_cli.schemas.framing import ReturnPathHead, ReturnPathShut


def loaded(answer: bytes) -> bool:
    """Return whether ``answer``, all received bytes, states that the stream was loaded."""
    head, status = ReturnPathHead.sizeof(), ReturnPathShut.sizeof()
    at = 0
    while at + head + status <= len(answer):
        message = ReturnPathHead.parse(answer[at : at + head])
        if message.type == RETURN_PATH_SHUT and message.length == status:
            return bool(ReturnPathShut.parse(answer[at + head :]).status == 0)
        at += head + message.length
    return False
