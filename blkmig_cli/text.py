"""Names, sizes and counts as people read them.  Names from a stream are hostile: always escape."""

import reprlib


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
    """What somebody wrote where something else belongs, as a short piece of one line.

    However large ``value`` is, or stands for, little of it is looked at.
    """
    shown = _SHOWN.repr(value)
    return shown if len(shown) <= _BRIEF else f"{shown[:_BRIEF]}..."


_BRIEF = 80


class _Shown(reprlib.Repr):
    """The beginning of a value."""

    def repr_int(self, value: int, level: int) -> str:
        """A number, if it is one that can be meant."""
        return (
            repr(value)
            if value.bit_length() <= _BRIEF
            else f"a number of {value.bit_length()} bits"
        )

    def repr_bytes(self, value: bytes, level: int) -> str:
        """Bytes, as YAML can have them."""
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


_SUFFIXES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


def parse_size(text: str) -> int:
    """Bytes that ``text`` says, with qemu-img's suffixes (k M G T P, powers of 1024).

    Raises ValueError.
    """
    digits = text.rstrip("BbKkMmGgTtPp")
    suffix = text[len(digits) :].upper()
    if not digits.isascii() or not digits.isdigit() or suffix not in _SUFFIXES:
        raise ValueError(f"{text!r} is no size: digits, then k, M, G or T")
    return int(digits) * _SUFFIXES[suffix]


def count(number: int, noun: str) -> str:
    """``1 chunk``, ``12,345 chunks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
