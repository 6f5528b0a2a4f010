"""What a QEMU answers on the return path that command 1 opens: its last message says how it went."""

from blkmig_cli.schemas.constants import RETURN_PATH_SHUT
from blkmig_cli.schemas.framing import ReturnPathHead, ReturnPathShut


def loaded(answer: bytes) -> bool:
    """Does ``answer``, all that came back, end with the word that everything was loaded?"""
    head, status = ReturnPathHead.sizeof(), ReturnPathShut.sizeof()
    at = 0
    while at + head + status <= len(answer):
        message = ReturnPathHead.parse(answer[at : at + head])
        if message.type == RETURN_PATH_SHUT and message.length == status:
            return bool(ReturnPathShut.parse(answer[at + head :]).status == 0)
        at += head + message.length
    return False
