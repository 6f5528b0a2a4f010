"""Specs, files of bitmaps and manifests that are made to cost much: see ``hostile.py``.

``SPECS``, ``BITMAP_FILES`` and ``MANIFESTS`` give each a name.
"""

import json
import random
from collections.abc import Callable

from tests.support.hostile import SIZE, filling

# -- specs


def _yaml(*lines: str) -> bytes:
    return "\n".join(["blkmig-spec: 1", *lines]).encode()


def aliases_of_aliases() -> bytes:
    """Lists of ten times the one before: 10**30 items."""
    lists = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lists += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    return _yaml(*lists, "records: *a29")


def aliases_in_records() -> bytes:
    """Records that share a long list of bitmaps."""
    bitmap = "{name: a, bits: {hex: '00'}}"
    shared = f"a: &a [{','.join([bitmap] * 1000)}]"
    record = "{type: block, device: d, sector: 0, flags: [device-block], bitmaps: *a}"
    return _yaml(shared, f"b: &b {record}", f"records: [{','.join(['*b'] * 1000)}]")


def alias_of_itself() -> bytes:
    return _yaml("records: &a [*a, *a]")


def yaml_of_lists() -> bytes:
    return _yaml("records: [" + "[]," * (SIZE // 3 - 10) + "[]]")


def yaml_of_records() -> bytes:
    record = "- {type: eos}\n"
    return _yaml("records:", record * (SIZE // len(record) - 10))


def yaml_of_names() -> bytes:
    return _yaml("records: [" + "a," * (SIZE // 2 - 30) + "a]")


def json_of_lists() -> bytes:
    return b'{"blkmig-spec": 1, "records": [' + b"[]," * (SIZE // 3 - 20) + b"[]]}"


def lines_alike() -> bytes:
    line = b'{"type":"eof"}\n'
    return b'{"blkmig-spec": 1}\n' + line * (SIZE // len(line))


def lines_of_progress() -> bytes:
    dice = random.Random(7)
    return b'{"blkmig-spec": 1}\n' + b"".join(
        filling(lambda: b'{"type":"eos","value":%d}\n' % dice.randrange(1 << 20))
    )


def a_line_of_lists() -> bytes:
    return b'{"blkmig-spec": 1}\n' + b"[" + b"[]," * (SIZE // 3 - 20) + b"[]]\n"


def a_line_of_bitmaps() -> bytes:
    bitmap = b'{"name":"a","bits":{"hex":""}},'
    return (
        b'{"blkmig-spec": 1}\n{"type":"block","device":"d","sector":0,"flags":[],"bitmaps":['
        + bitmap * (SIZE // len(bitmap) - 10) + b'{"name":"a","bits":{"hex":""}}]}\n'
    )  # fmt: skip


def a_number_of_digits() -> bytes:
    return b'{"blkmig-spec": 1}\n{"type":"eos","value":' + b"9" * 4200 + b"}\n"


SPECS: dict[str, Callable[[], bytes]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        aliases_of_aliases, aliases_in_records, alias_of_itself, yaml_of_lists, yaml_of_records,
        yaml_of_names, json_of_lists, lines_alike, lines_of_progress, a_line_of_lists,
        a_line_of_bitmaps, a_number_of_digits,
    )
}  # fmt: skip


# -- files of bitmaps


def _bitmap_file(size: int, *bitmaps: dict[str, object]) -> bytes:
    return json.dumps({"version": 1, "virtual-size": size, "bitmaps": bitmaps}).encode()


def _entry(name: str, granularity: int, count: int, *dirty: tuple[int, int]) -> dict[str, object]:
    ranges = [{"start": start, "length": length} for start, length in dirty]
    return {"name": name, "granularity": granularity, "recording": True, "persistent": False,
            "count": count, "dirty": ranges}  # fmt: skip


def one_huge_range() -> bytes:
    size = 1 << 52
    return _bitmap_file(size, _entry("b", 512, size, (0, size)))


def the_largest_range() -> bytes:
    """All that the bound on bits allows."""
    size = 1 << 42
    return _bitmap_file(size, _entry("b", 512, size, (0, size)))


def many_huge_ranges() -> bytes:
    size = 1 << 52
    return _bitmap_file(size, *(_entry(f"b{at}", 512, size, (0, size)) for at in range(50_000)))


def ranges_far_apart() -> bytes:
    number, apart = 200_000, 1 << 40
    dirty = ((at * apart, 512) for at in range(number))
    return _bitmap_file(1 << 60, _entry("b", 512, number * 512, *dirty))


def ranges_in_every_megabyte() -> bytes:
    number, apart = 180_000, 1 << 25
    dirty = ((at * apart, apart - 512) for at in range(number))
    return _bitmap_file(1 << 60, _entry("b", 512, number * (apart - 512), *dirty))


def a_file_of_lists() -> bytes:
    return b'{"version": 1, "virtual-size": 0, "bitmaps": [' + b"[]," * (SIZE // 3 - 30) + b"[]]}"


def a_file_of_objects() -> bytes:
    return b'{"version": 1, "virtual-size": 0, "x": [' + b'{"":0},' * (SIZE // 7 - 30) + b"{}]}"


def a_file_of_digits() -> bytes:
    return b'{"version": 1, "virtual-size": ' + b"9" * 4200 + b', "bitmaps": []}'


BITMAP_FILES: dict[str, Callable[[], bytes]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        one_huge_range,
        the_largest_range, many_huge_ranges, ranges_far_apart, ranges_in_every_megabyte,
        a_file_of_lists, a_file_of_objects, a_file_of_digits,
    )
}  # fmt: skip


# -- manifests


def _manifest(size: int, sha256: str | None) -> bytes:
    device = {"device": "d", "size": size, "sha256": sha256}
    bitmap = {"device": "d", "name": "b", "granularity": 512, "recording": True,
              "persistent": False, "count": 0, "sha256": "0" * 64}  # fmt: skip
    return json.dumps({"version": 1, "devices": [device], "bitmaps": [bitmap]}).encode()


def a_giant_disk() -> bytes:
    return _manifest(((1 << 50) - 2048 + 100) * 512, "0" * 64)


def a_giant_bitmap() -> bytes:
    return _manifest(((1 << 50) - 2048 + 100) * 512, None)


def many_devices() -> bytes:
    devices = [{"device": f"{at:x}", "size": 512, "sha256": None} for at in range(180_000)]
    return json.dumps({"version": 1, "devices": devices, "bitmaps": []}).encode()


MANIFESTS: dict[str, Callable[[], bytes]] = {
    function.__name__.replace("_", "-"): function
    for function in (a_giant_disk, a_giant_bitmap, many_devices)
}
