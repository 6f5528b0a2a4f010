"""Decoding that resumes after damage, with the state from before it."""

from collections.abc import Iterator
from typing import NoReturn

from blkmig_cli.errors import SeveralStreamsError
from blkmig_cli.schemas.constants import BLOCK_SECTION, BLOCK_VERSION, SectionType
from blkmig_cli.schemas.framing import SectionReference
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Footer, SectionHeader
from blkmig_cli.wire.runs.columns import Piece


class ResumedDecoder(Decoder):
    """A decoder from byte ``offset`` on: a record of the block section, or (``between``) a section's head.

    ``before`` is the decoder that failed, ``dialect`` that of its intact records, or ``auto``: it may
    have detected another in the object at which it failed.  Names that chunks of the ``dirty-bitmap``
    section omit are not taken from before the damage, as a chunk with other names may be lost.
    """

    def __init__(self, before: Decoder, offset: int, dialect: str, *, between: bool) -> None:
        super().__init__(
            before.source,
            dialect=dialect,
            container="qemu" if before.container == "auto" else before.container,
            hints=before.hints,
            chosen=before.chosen,
        )
        self.source.offset = offset
        self.context = before.context.copy()
        self.bitmaps.know(before.bitmaps)
        self._pieces = self._resume(between=between)

    def _resume(self, *, between: bool) -> Iterator[Piece]:
        if self.container == "none":
            yield from self._bare()
            return
        if not between:
            self._reader.section = BLOCK_SECTION
            self._current = self._block_id()
            yield from self.block.payload()
            self._reader.begin()
            if not self._current:
                self._learn_id()
            footer: Footer | None = self._footer(self._current)
            if footer is not None:
                yield footer
        yield from self._sections_to_the_end()

    def _refuse(self) -> NoReturn:
        """Raise SeveralStreamsError without counting the streams, as many places may be tried."""
        assert self.next_stream is not None
        raise SeveralStreamsError([self.context.start, self.next_stream], counted=False)

    def _block_id(self) -> int:
        """Return the block section's id; 0 if its start is lost."""
        blocks = [at for at, head in self.context.sections.items() if head.section == BLOCK_SECTION]
        return blocks[0] if blocks else 0

    def _learn_id(self) -> None:
        """Take the id of a block section whose start is lost from the footer of its part."""
        size = SectionReference.sizeof()
        data = self.source.peek(size)
        if len(data) == size and data[0] == SectionType.FOOTER:
            number = int.from_bytes(data[1:], "big")
            at = self.source.offset
            head = SectionHeader(at, 0, BLOCK_SECTION, SectionType.START, number, 0, BLOCK_VERSION)
            self.context.sections[number], self._current = head, number


def part_heads(before: Decoder, names: tuple[str, ...]) -> list[bytes]:
    """Return the first bytes of parts and ends of those sections ``names`` that ``before`` has read."""
    heads: list[bytes] = [
        SectionReference.build({"type": kind, "id": number})
        for number, head in before.context.sections.items()
        for kind in (SectionType.PART, SectionType.END)
        if head.section in names
    ]
    return heads
