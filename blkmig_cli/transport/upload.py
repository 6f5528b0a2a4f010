"""Writing an object at a URL (the extra ``remote``): in parts, and under its name only when it is complete.

fsspec's files that are not committed do so: of S3 a multi-part upload, which is completed or aborted.
"""

from threading import Thread
from typing import Any

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.system.address import Address
from blkmig_cli.text import escape
from blkmig_cli.transport.store import Store, message

# Bytes of a part, which are held in memory.  S3 takes 10,000 parts: after 1,000, the next ones are twice as
# large, up to the most, so that an object can have 3.4 TiB.
_PART, _PART_MAX, _PARTS = 32 << 20, 512 << 20, 1000


class Upload(Store):
    """A new object at the URL ``address``, which replaces an existing one.

    A context: leaving it without :meth:`complete` discards what was sent.  Raises UsageError where such URLs
    cannot be written to, FailureError where the store fails.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if address.text.endswith("/"):
            raise FailureError(f"{self._name}: is a directory", hint="add the name of an object")
        self._completed = False
        self._part = _PART
        self._left = _PARTS * _PART
        self._file: Any = None
        with self.failing():
            try:
                self._file = self._store.open(
                    self._path, "wb", block_size=self._part, autocommit=False
                )
            except NotImplementedError:
                raise UsageError(f"{self._name}: streams cannot be written to such a URL") from None

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._completed:
            return
        failures = ["the store does not answer"]
        thread = Thread(target=self._discard, args=(failures,), name="discarding", daemon=True)
        thread.start()
        thread.join(limits.DISCARD_WAIT)
        if failures and error is not None:
            error.add_note(f"what was sent could not be discarded: {escape(failures[-1])}")

    def write(self, data: bytes | memoryview) -> None:
        """Send ``data``, or hold it until a part is full; raises FailureError."""
        with self.failing():
            self._file.write(data)
        self._left -= len(data)
        if self._left <= 0 and self._part < _PART_MAX:
            self._part *= 2
            self._left = _PARTS * self._part
            # s3fs has this for stores that take only parts of one size.
            if not getattr(self._store, "fixed_upload_size", False):
                self._file.blocksize = self._part

    def _discard(self, failures: list[str]) -> None:
        """Discard what was sent; ``failures`` is empty then, or ends with the reason why it failed."""
        try:
            self._file.forced = True  # so that fsspec does not send the last part
            self._file.close()
            self._file.discard()
            failures.clear()
        except Exception as error:  # noqa: BLE001 (each store raises errors of its own libraries)
            failures.append(message(error))

    def complete(self) -> None:
        """Send the last part, and give the object its name; raises FailureError."""
        with self.failing():
            self._file.close()
            self._file.commit()
        self._completed = True
