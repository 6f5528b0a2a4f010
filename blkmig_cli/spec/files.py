"""Reading a spec: JSON Lines, record by record, or a single JSON or YAML document."""

from collections.abc import Iterator
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from blkmig_cli import limits
from blkmig_cli.errors import SpecError
from blkmig_cli.json_text import parse_json
from blkmig_cli.spec.known_lines import KnownLines
from blkmig_cli.spec.records import KEY, VERSION, read_record
from blkmig_cli.text import brief
from blkmig_cli.transport.payloads import FileRange, literal
from blkmig_cli.wire.events import Event, Payload, Raw

# Bytes of lines that are read together, and from which what they encode to is given.
_BYTES_AT_ONCE = 1 << 20


def read_spec(file: BufferedIOBase) -> Iterator[Event]:
    """The events of the spec in ``file``; of many lines that are alike, only their bytes.

    Raises SpecError, naming the line (of JSON Lines) or the record's number, and the field.
    """
    first = file.readline(limits.SPEC_LINE_MAX)
    header = _json(first)
    if isinstance(header, dict) and KEY in header and "records" not in header:
        _check_version(header)
        yield from _lines(file)
        return
    rest = file.read(limits.SPEC_DOCUMENT_MAX - len(first) + 1)
    text = first + rest
    if len(text) > limits.SPEC_DOCUMENT_MAX:
        raise SpecError(
            f"a spec that is one document has at most {limits.SPEC_DOCUMENT_MAX >> 20} MiB",
            hint="write it as JSON Lines",
        )
    document = _document(text)
    if not isinstance(document, dict) or KEY not in document:
        raise SpecError(f"this is not a spec: it has no {KEY!r}")
    _check_version(document)
    records = document.get("records")
    if not isinstance(records, list):
        raise SpecError("records: is not a list")
    for number, record in enumerate(records, 1):
        yield read_record(record, f"record {number}")


def _lines(file: BufferedIOBase) -> Iterator[Event]:
    """The events of lines; those whose bytes are known come as bytes, many at once."""
    known = KnownLines()
    pieces: list[bytes] = []
    size, number = 0, 1
    found: bytes | None
    for text in _texts(file):
        at = 0
        while at < len(text):
            end, lines, found = known.encoded_lines(text, at)
            if not lines:
                end, lines = text.find(b"\n", at) + 1 or len(text), 1
                line = text[at:end]
                found = known.encoded(line)
            at, number = end, number + lines
            if found is not None:
                pieces.append(found)
                size += len(found)
                if size < _BYTES_AT_ONCE:
                    continue
            if pieces:
                yield Raw(0, 0, None, literal(b"".join(pieces)))
                pieces, size = [], 0
            if found is None and line.strip():
                event = _line(line, number)
                yield event
                known.note(line, event)
    if pieces:
        yield Raw(0, 0, None, literal(b"".join(pieces)))


def _texts(file: BufferedIOBase) -> Iterator[bytes]:
    """Yield the lines of ``file`` as they come, several at a time, each of at most SPEC_LINE_MAX bytes."""
    while text := file.read1(_BYTES_AT_ONCE):
        if not text.endswith(b"\n"):
            text += file.readline(limits.SPEC_LINE_MAX)
        yield text


def _line(line: bytes, number: int) -> Event:
    if len(line) >= limits.SPEC_LINE_MAX:
        raise SpecError(f"line {number}: is over {limits.SPEC_LINE_MAX >> 20} MiB")
    try:
        record = parse_json(line)
    except ValueError as error:
        raise SpecError(f"line {number}: not JSON: {error}") from None
    return read_record(record, f"line {number}")


def _json(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _document(text: bytes) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        from blkmig_cli.spec.yaml_text import parse_yaml  # noqa: PLC0415 (slow to load)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise SpecError(f"the spec is neither JSON nor YAML: {error}") from None


def _check_version(header: dict[str, Any]) -> None:
    if header[KEY] != VERSION:
        raise SpecError(f"{KEY}: version {brief(header[KEY])}, only {VERSION} is known")


def beside(payload: Payload, folder: Path) -> Payload:
    """Return ``payload`` with the path of its file relative to the spec's ``folder``."""
    if isinstance(payload, FileRange):
        return replace(payload, path=str(folder / payload.path))
    return payload
