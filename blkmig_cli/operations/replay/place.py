"""Places of records, for errors of the images to which they are written."""

from collections.abc import Iterator
from contextlib import contextmanager

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import BLOCK_SECTION
from blkmig_cli.wire.events import Block


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a record from which bytes of an image are: device, sector, offset in the stream."""

    device: str
    sector: int
    offset: int

    @classmethod
    def of(cls, event: Block) -> "Place":
        """Return the place of a record."""
        return cls(event.device, event.sector, event.offset)

    def failed(self, message: str, hint: str | None = None) -> FailureError:
        """Return a FailureError with this place."""
        return FailureError(
            message,
            offset=self.offset,
            section=BLOCK_SECTION,
            device=self.device,
            sector=self.sector,
            hint=hint,
        )

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the place to a FailureError of an image."""
        try:
            yield
        except FailureError as error:
            raise self.failed(error.message, error.hint) from error
