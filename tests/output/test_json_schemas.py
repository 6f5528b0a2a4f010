"""docs/schemas: every JSON output has a schema there, and is valid against it.

A new command needs its COMMAND.json, and a row in ``CALLS`` where ``blkmig COMMAND STREAM --output
json`` is not how it is called.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

from blkmig_cli.commands import cli
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.errors import SpecError, StreamError
from blkmig_cli.output.events_json import EventJson
from blkmig_cli.spec.records import FIELDS, RecordWriter, read_record
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from tests.conftest import NAMES, Capture, Run, get_capture
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, bitmaps, repetitive

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
SCHEMAS: dict[str, Any] = {path.name: json.loads(path.read_text()) for path in FOLDER.iterdir()}
FILES: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
# Of each shape of record, and of each command's lines, so many are validated, which is slow.
ENOUGH = 3


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[f"{name}.json"], registry=FILES)


def hold(name: str, document: Any) -> None:
    """Check that ``document`` is valid against the schema ``name``."""
    try:
        validator(name).validate(document)
    except ValidationError as error:
        pytest.fail(f"{name}: {error.json_path}: {error.message[:500]}")


def shapes(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Some records of every type and every set of keys."""
    seen: dict[tuple[str, ...], int] = {}
    for record in records:
        key = (record["type"], *sorted(record))
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= ENOUGH:
            yield record


def document(*words: object) -> Callable[[Run, Capture, Path], Iterator[Any]]:
    """What a command prints as one document, of the capture and its other arguments."""

    def call(run: Run, capture: Capture, _: Path) -> Iterator[Any]:
        command, *rest = words
        outcome = run(command, capture.path, *capture.hints(), *rest, "--output", "json")
        assert outcome.status in (0, 1), outcome.err
        yield outcome.json

    return call


def dump_document(run: Run, capture: Capture, _: Path) -> Iterator[Any]:
    for words in (["--limit", "300"], ["--type", "block", "--limit", "10", "--payload", "sha256"]):
        found = run("dump", capture.path, *capture.hints(), *words, "--output", "json").json
        yield found | {"records": [*shapes(iter(found["records"]))]}


def dump_lines(run: Run, capture: Capture, _: Path) -> Iterator[Any]:
    lines = run("dump", capture.path, *capture.hints(), "--output", "jsonl").out.splitlines()
    yield from shapes(map(json.loads, lines))
    for payload in ("sha256", "hex", "base64"):
        words = ["--all", "--limit", "400", "--payload", payload, "--output", "jsonl"]
        lines = run("dump", capture.path, *capture.hints(), *words).out.splitlines()
        yield from shapes(map(json.loads, lines))


def spec_lines(run: Run, capture: Capture, _: Path) -> Iterator[Any]:
    for payload in ("base64", "ref"):
        words = ["--spec", "--payload", payload, "--limit", "400"]
        lines = run("dump", capture.path, *capture.hints(), *words).out.splitlines()
        yield from shapes(map(json.loads, lines[1:]))


def spec_document(run: Run, capture: Capture, _: Path) -> Iterator[Any]:
    lines = run("dump", capture.path, *capture.hints(), "--spec", "--limit", "20").out.splitlines()
    head, *records = map(json.loads, lines)
    yield head
    yield head | {"records": records}


def replayed(run: Run, capture: Capture, folder: Path) -> Iterator[Any]:
    images = {device: folder / f"{device}.img" for device in capture.truth["devices"]}
    if capture.base.exists():
        shutil.copy(capture.base, images["drive0"])
    for words in (["--dry-run"], []):
        options = [f"--image={device}={path}" for device, path in images.items()]
        options += ["--incremental", *capture.hints(), *words, "--output", "json"]
        options += [] if capture.base.exists() else ["--create"]
        outcome = run("replay", capture.path, *options)
        assert outcome.status in (0, 1), outcome.err
        yield outcome.json


def bitmap_files(run: Run, capture: Capture, folder: Path) -> Iterator[Any]:
    for _ in replayed(run, capture, folder):
        pass
    for path in folder.glob("*.bitmaps.json"):
        yield json.loads(path.read_text())


def manifests(run: Run, capture: Capture, folder: Path) -> Iterator[Any]:
    """Of each disk: sent whole, and its bitmaps only, in dialects with flags and without."""
    for _ in replayed(run, capture, folder):
        pass
    manifest = folder / "manifest"
    for image in folder.glob("*.img"):
        held = ["--bitmaps"] if Path(f"{image}.bitmaps.json").exists() else []
        for more in ([], ["--dialect", "v1"], [*["--bitmaps-only"] * len(held)]):
            words = ["send", image, *held, *more, "--to", folder / "stream", "-q"]
            assert run(*words, "--manifest", manifest).status == 0
            yield json.loads(manifest.read_text())


def compared(run: Run, capture: Capture, folder: Path) -> Iterator[Any]:
    """With itself, and with the image of one of its disks."""
    options = [*capture.hints(), "--output", "json"]
    for _ in replayed(run, capture, folder):
        pass
    images = [f"{path.stem}={path}" for path in folder.glob("*.img")]
    for other in (str(capture.path), *images[:1]):
        outcome = run("compare", capture.path, other, *options)
        assert outcome.status in (0, 1), outcome.err
        yield outcome.json


#: How the documents of each schema are had from a capture.
def of_a_qemu(_: Run, __: Capture, ___: Path) -> Iterator[Any]:
    """Nothing: tests/interop checks the output of ``live``, which reads no stream."""
    yield from ()


CALLS: dict[str, Callable[[Run, Capture, Path], Iterator[Any]]] = {
    "bitmaps": bitmap_files,
    "manifest": manifests,
    "compare": compared,
    "dump": dump_document,
    "dump-record": dump_lines,
    "live": of_a_qemu,
    "replay": replayed,
    "spec": spec_document,
    "spec-record": spec_lines,
}


#: Captures that have the shapes of all.
SHAPES = ("bitmaps-7.2-with-blocks", "classic-tail", "v1-blocks-and-bitmaps")


@pytest.mark.parametrize(
    ("name", "of"),
    [
        pytest.param(name, of, marks=pytest.mark.long if long else [])
        for name in sorted(path.stem for path in FOLDER.iterdir())
        for of in NAMES
        # The shapes of the others are those of these.
        for long in [of not in SHAPES]
    ],
)
def test_every_output_of_every_capture(
    name: str, of: str, run: Run, unpacked: Path, tmp_path: Path
) -> None:
    capture = get_capture(of, unpacked)
    for found in CALLS.get(name, document(name))(run, capture, tmp_path):
        hold(name, found)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_sound_and_closed(name: str) -> None:
    """No key passes that is not in the schema; a reference leads somewhere."""
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["title"]
    text = json.dumps(schema)
    assert '"additionalProperties": false' in text or '"unevaluatedProperties": false' in text
    resolver = FILES.resolver(name)
    for node in nodes(schema):
        if "$ref" in node:
            resolver.lookup(node["$ref"])


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_every_command_that_offers_json_has_a_schema() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for option in command.params:
            if option.name == "output" and isinstance(option.type, click.Choice):
                assert "json" not in option.type.choices or f"{name}.json" in SCHEMAS
                assert "jsonl" not in option.type.choices or f"{name}-record.json" in SCHEMAS


def with_a_key_more(found: Any) -> Iterator[Any]:
    """A copy of the document for each of its objects, which has a key more there."""
    for at in range(len(list(nodes(found)))):
        changed = json.loads(json.dumps(found))
        list(nodes(changed))[at]["unheard-of"] = 1
        yield changed


@pytest.mark.parametrize("name", ["validate", "replay", "dump-record", "spec-record", "bitmaps"])
def test_a_key_more_is_refused_everywhere(
    name: str, unpacked: Path, run: Run, tmp_path: Path
) -> None:
    """The schemas do check something: no object of an output may have another key."""
    some = get_capture("v1-blocks-and-bitmaps", unpacked)
    for found in islice(CALLS.get(name, document(name))(run, some, tmp_path), 40):
        for changed in with_a_key_more(found):
            assert not validator(name).is_valid(changed)


@pytest.mark.parametrize("cut", [3, 30, 300, 3000])
@pytest.mark.parametrize("name", ["validate", "dump", "replay"])
def test_damaged_streams(run: Run, unpacked: Path, tmp_path: Path, cut: int, name: str) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes((unpacked / "bitmaps-7.2-with-blocks.bin").read_bytes()[:cut])
    words = ["--dry-run"] if name == "replay" else []
    outcome = run(name, path, *words, "--output", "json")
    assert outcome.status == 3
    hold(name, outcome.json)


@pytest.mark.scaled
@settings(max_examples=examples(8, 125))
@given(repetitive())
def test_records_of_generated_streams(stream: Repetitive) -> None:
    """Streams of all dialects, also damaged: what comes before the damage is valid against the schemas."""
    source = in_file(stream.data)
    decoder = Decoder(source, hints=stream.hints, keep_state=True)
    made: dict[str, Callable[[Event], dict[str, Any]]] = {
        "dump-record": EventJson(source, "sha256"),
        "spec-record": RecordWriter(source, None),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in made}
    with suppress(StreamError):
        for event in decoder:
            for name, make in made.items():
                found[name].append(make(event))
    for name, records in found.items():
        for record in shapes(iter(records)):
            hold(name, record)


@pytest.mark.scaled
@settings(max_examples=examples(8, 125))
@given(bitmaps(size=5 << 20, name="b"))
def test_generated_bitmap_files(tmp_path_factory: pytest.TempPathFactory, bitmap: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.bitmaps.json"
    write_bitmaps(str(path), BitmapFile(5 << 20, {"b": bitmap}))
    hold("bitmaps", json.loads(path.read_text()))


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(raw.qemu(raw.word(0, 9) + raw.name(b"\x1b\xff\0")))
    for name in ("validate", "dump"):
        hold(name, run(name, path, "--output", "json").json)


def test_a_record_past_the_end_has_a_spec(run: Run, tmp_path: Path) -> None:
    """Told that the disk ends before it, a block covers no sectors."""
    path = tmp_path / "x"
    path.write_bytes(raw.qemu(raw.block(4096, 8)))
    outcome = run("dump", path, "--spec", "--device-size", "1M", "--type", "block")
    assert outcome.status == 0
    hold("spec-record", json.loads(outcome.out.splitlines()[1]))


def test_a_device_on_one_side_only(run: Run, tmp_path: Path) -> None:
    paths = []
    for device in ("a", "b"):
        paths.append(tmp_path / device)
        paths[-1].write_bytes(raw.qemu(raw.block(0, 8, device=device)))
    found = run("compare", *paths, "--output", "json").json
    assert None in found["devices"][0]["sizes"]
    hold("compare", found)


def test_the_spec_schema_has_the_fields_of_specs() -> None:
    """The schema and the table that reads specs: the same types, the same keys, the same needs."""
    shown: dict[str, tuple[set[str], set[str]]] = {}
    for branch in SCHEMAS["spec-record.json"]["oneOf"]:
        found = SCHEMAS["spec-record.json"]["$defs"][branch["$ref"].rpartition("/")[2]]
        kind = found["properties"]["type"]
        for name in kind.get("enum", [kind.get("const")]):
            shown[name] = (set(found["properties"]) - {"type"}, set(found["required"]) - {"type"})
    assert shown == {
        name: (
            {field.key for field in fields},
            {field.key for field in fields if field.default is ...},
        )
        for name, (_, fields) in FIELDS.items()
    }


def test_the_example_spec() -> None:
    path = Path(__file__).parents[2] / "examples" / "broken.yaml"
    hold("spec", yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "record",
    [
        {"type": "eos", "value": -1},
        {"type": "eos", "more": 1},
        {"type": "nonsense"},
        {"type": "raw"},
        {"type": "raw", "payload": {"fill": 256, "length": 1}},
        {"type": "raw", "payload": {"hex": "abc"}},
        {"type": "progress"},
    ],
)
def test_what_build_refuses_the_schema_refuses(record: dict[str, Any]) -> None:
    assert not validator("spec-record").is_valid(record)
    with pytest.raises(SpecError):
        read_record(record, "here")
