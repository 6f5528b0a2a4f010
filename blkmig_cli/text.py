"""Formatting names, sizes and counts.  Names from a stream are untrusted: always escape them."""

import re
import reprlib
from collections.abc import Collection, Iterable

from blkmig_cli.schemas.constants import SECTOR_SIZE

_RANGES_SHOWN = 5
_NAMES_SHOWN = 8


def decode_name(raw: bytes) -> str:
    """Return a name from a stream as text; undecodable bytes become surrogates (as ``os.fsdecode``)."""
    return raw.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """Return the bytes of a name: the inverse of :func:`decode_name`; other surrogates become ``?``."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace")


def escape(name: str) -> str:
    r"""Return ``name`` with non-printable characters and surrogates as ``\xNN`` or ``\uNNNN``."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escape_char(char) for char in name)


def quote(name: str) -> str:
    """Return ``name``, escaped, in quotes."""
    return f"'{escape(name)}'"


def device_name(name: str) -> str:
    """Return the name of a device for output; disks that QEMU sends without a name have none."""
    return escape(name) or "(unnamed)"


def bitmap_name(device: str, name: str) -> str:
    """Return the name of a bitmap for output, with its device: ``drive0/daily``."""
    return f"{device_name(device)}/{escape(name)}"


def names_text(names: Iterable[str]) -> str:
    """Return names in a list, the first few: ``'drive0', 'drive1'``, or ``none``."""
    return few(map(quote, names)) or "none"


def devices_text(devices: Collection[str]) -> str:
    """Return ``the device 'drive0'``, ``the devices 'drive0', 'drive1'``, or ``no devices``."""
    if not devices:
        return "no devices"
    return f"the device{'' if len(devices) == 1 else 's'} {names_text(devices)}"


def few(texts: Iterable[str]) -> str:
    """Return the first few ``texts`` with commas between them, and how many more there are."""
    found = list(texts)
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return ", ".join(found[:_NAMES_SHOWN]) + more


def ranges_text(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges (start, end) in bytes as text, the first few: ``bytes 0-512``, without byte 512."""
    shown: list[str] = []
    more = 0
    for start, end in ranges:
        if len(shown) < _RANGES_SHOWN:
            shown.append(f"{start}-{end}")
        else:
            more += 1
    rest = f" and {count(more, 'more range')}" if more else ""
    return f"bytes {', '.join(shown)}{rest}"


def brief(value: object) -> str:
    """Return an invalid value as a short text for a message.

    However large ``value`` is, only a small part of it is examined.
    """
    shown = _SHOWN.repr(value)
    return shown if len(shown) <= _BRIEF else f"{shown[:_BRIEF]}..."


_BRIEF = 80


class _Shown(reprlib.Repr):
    """The beginning of a value."""

    def repr_int(self, value: int, level: int) -> str:
        """Return a number as text, or the number of its bits if it is very large."""
        return (
            repr(value)
            if value.bit_length() <= _BRIEF
            else f"a number of {value.bit_length()} bits"
        )

    def repr_bytes(self, value: bytes, level: int) -> str:
        """Return bytes as text; a YAML document may contain them."""
        return repr(value[:_BRIEF])


_SHOWN = _Shown()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, _BRIEF, _BRIEF


def _escape_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human_size(size: int) -> str:
    """Return ``size`` in bytes, with a binary unit: ``512 B``, ``64 KiB``, ``2.5 GiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS[1:]:
        value /= 1024
        if float(f"{value:.4g}") < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.4g} {unit}"


def exact_size(size: int) -> str:
    """Return ``size`` in bytes as :func:`human_size`, with the bytes where it is not a whole number.

    ``48 MiB``, ``5.008 MiB (5251072 bytes)``.
    """
    shown = human_size(size)
    number, unit = shown.split(" ")
    is_whole = number.isdigit() and int(number) << (10 * _UNITS.index(unit)) == size
    return shown if is_whole else f"{shown} ({size} bytes)"


def size_range(least: int, most: int | None) -> str:
    """Return a size in bytes, or its bounds: ``63 to 70.69 MiB``; ``most`` None: no upper bound."""
    if least == most:
        return exact_size(least)
    if most is None:
        return f"at least {human_size(least)}"
    (low, unit), (high, other) = human_size(least).split(" "), human_size(most).split(" ")
    return f"{low} to {high} {unit}" if unit == other else f"{low} {unit} to {high} {other}"


_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?(?: ?(?:([kmgtpe])(?:ib)?|b))?", re.A | re.I)
_SIZE_MAX = (1 << 63) - 1


def parse_size(text: str) -> int:
    """Return the size in bytes in ``text``: ``512``, ``64k``, ``20G``, ``3MiB``, ``2.5 GiB``.

    Units are qemu-img's, powers of 1024, also as :func:`human_size` prints them.  Raises ValueError,
    also for a fraction that is not a whole number of sectors, such as a rounded size.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid size {brief(text)}: expected e.g. 512, 64k, 20G, 3MiB")
    whole, fraction = found[1], found[2] or ""
    shift = 10 * [unit[0] for unit in _UNITS].index((found[3] or "B").upper())
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
    """Return ``1 chunk``, ``12,345 chunks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
