"""Choosing the stream to decode in an input that has several, one after the other."""

from typing import Any

from blkmig_cli.errors import StreamError, UsageError
from blkmig_cli.text import count
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.schema_io import Input


def decoder_of(source: Input, number: int | None, *, hints: Hints, **options: Any) -> Decoder:
    """Return the decoder of stream ``number`` (1, 2, ...), counted from the position of ``source``.

    Those before it are read and ignored.  None: the only one, see ``chosen`` of ``Decoder``, which
    takes the other ``options``.  Raises UsageError where there are fewer streams, StreamError where
    one before it is damaged.
    """
    for before in range(1, number or 1):
        decoder = Decoder(source, hints=hints, chosen=True)
        try:
            while True:
                decoder.piece()
        except StreamError as error:
            error.message = f"stream {before}: {error.message}"
            raise
        except StopIteration:
            if decoder.next_stream is None:
                raise UsageError(
                    f"there is no stream {number}, only {count(before, 'stream')}"
                ) from None
    return Decoder(source, hints=hints, chosen=number is not None, **options)
