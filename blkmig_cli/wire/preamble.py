"""The start of a stream in QEMU's container: header and configuration."""

from collections.abc import Iterator

from blkmig_cli import limits
from blkmig_cli.schemas import constants as c
from blkmig_cli.schemas import framing as schema
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.text import decode_name, quote
from blkmig_cli.wire.events import Configuration, Header, Subsection
from blkmig_cli.wire.schema_io import Reader

# Pages of 1 KiB to 1 MiB (TARGET_PAGE_BITS in QEMU's target/*/cpu-param.h).
_PAGE_BITS = range(10, 21)


def preamble(reader: Reader) -> Iterator[Header | Configuration]:
    """Give the header, and the configuration if there is one.

    Raises TruncatedError, MalformedError.
    """
    offset = reader.begin()
    _, version = reader.take(schema.FileHeader)
    if version != c.VERSION:
        old = " (obsolete)" if version == c.VERSION_OBSOLETE else ""
        reader.fail(f"stream version {version}{old} is not supported, only {c.VERSION}")
    yield Header(offset, reader.length(), None, version)
    if reader.source.peek(1) == bytes([SectionType.CONFIGURATION]):
        yield _configuration(reader)


def _configuration(reader: Reader) -> Configuration:
    offset = reader.begin()
    _, length = reader.take(schema.ConfigurationHead)
    if length > limits.MACHINE_MAX:
        reader.fail(f"the machine type is {length} bytes long")
    machine = decode_name(reader.take_bytes(length))
    subsections: dict[str, Subsection] = {}
    while reader.source.peek(1) == bytes([SectionType.SUBSECTION]):
        _, raw, version = reader.take(schema.SubsectionHead)
        name = decode_name(raw)
        body = schema.SUBSECTION_BODIES.get(raw)
        if body is None or name in subsections:
            reader.fail(f"configuration subsection {quote(name)} is unknown or repeated")
        (value,) = reader.take(body)
        if isinstance(value, list):
            value = tuple(decode_name(capability) for capability in value)
        subsections[name] = Subsection(name, version, value)
    found = Configuration(offset, reader.length(), None, machine, tuple(subsections.values()))
    bits = found.target_page_bits
    if bits is not None and bits not in _PAGE_BITS:
        reader.fail(f"the page size is 2**{bits} bytes")
    return found
