"""Predicting how long the guest will be paused."""

from blkmig_cli.schemas.constants import CHUNK_SIZE

# The machine may be busier during the pause than before.
_MARGIN = 2.0
# Bytes per second, while nothing has been read.
_ASSUMED = 100 << 20
# What was measured counts half as much after each further measurement.
_WEIGHT = 0.5


class Estimate:
    """Measurements of a capture: of reading, and of what takes the same time however little is read."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._fixed = 0.0

    def add_fixed(self, seconds: float) -> None:
        """Note how long it took to begin a pass."""
        self._fixed = max(seconds, self._fixed * _WEIGHT)

    def add_reading(self, size: int, seconds: float) -> None:
        """Note how long it took to read ``size`` bytes; a little says nothing."""
        if size >= CHUNK_SIZE and seconds > 0:
            self._bytes = self._bytes * _WEIGHT + size
            self._seconds = self._seconds * _WEIGHT + seconds

    @property
    def rate(self) -> float:
        """Bytes per second of reading."""
        return self._bytes / self._seconds if self._seconds else float(_ASSUMED)

    def pause(self, left: int) -> float:
        """Return the seconds in which ``left`` bytes can be read while the guest is paused."""
        return _MARGIN * (self._fixed + left / self.rate)
