"""Names, sizes and counts as people read them.  Names from a stream are hostile: always escape."""

import re

from blkmig_cli.schemas.constants import SECTOR_SIZE


def decode_name(raw: bytes) -> str:
    """A name from the wire as text; undecodable bytes are kept as surrogates (``os.fsdecode``'s way)."""
    return raw.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """The inverse of :func:`decode_name`; lone surrogates that stand for no byte become ``?``."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace")


def escape(name: str) -> str:
    r"""``name`` for a terminal: control characters, surrogates and the like as ``\xNN`` or ``\uNNNN``."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escape_char(char) for char in name)


def quote(name: str) -> str:
    """``name``, escaped, in quotes."""
    return f"'{escape(name)}'"


def brief(value: object) -> str:
    """What somebody wrote where something else belongs, as a short piece of one line."""
    shown = repr(value)
    return shown if len(shown) <= _BRIEF else f"{shown[:_BRIEF]}..."


_BRIEF = 80


def _escape_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def human_size(size: int) -> str:
    """``size`` in bytes, with a binary unit: ``512 B``, ``64 KiB``, ``2.5 GiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        value /= 1024
        if float(f"{value:.4g}") < 1024 or unit == "EiB":
            break
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.4g} {unit}"


_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?(?: ?(?:([kmgtpe])(?:ib)?|b))?", re.A | re.I)
_SUFFIXES = " KMGTPE"  # each 1024 times the one before
_SIZE_MAX = (1 << 63) - 1


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` says: ``512``, ``64k``, ``20G``, ``3MiB``, ``2.5 GiB``.

    Units are qemu-img's, powers of 1024, also as :func:`human_size` prints them.  Raises ValueError,
    also for a fraction that is no whole number of sectors, as rounded sizes are.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid size {brief(text)}: expected e.g. 512, 64k, 20G, 3MiB")
    whole, fraction = found[1], found[2] or ""
    shift = 10 * _SUFFIXES.index((found[3] or " ").upper())
    size: int
    size, rest = divmod(int(whole + fraction) << shift, 10 ** len(fraction))
    if size > _SIZE_MAX:
        raise ValueError(f"invalid size {brief(text)}: too large")
    if fraction and (rest or size % SECTOR_SIZE):
        raise ValueError(
            f"invalid size {brief(text)}: rounded to a part of a sector, use the exact bytes"
        )
    return size


def count(number: int, noun: str) -> str:
    """``1 chunk``, ``12,345 chunks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
