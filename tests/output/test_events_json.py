"""The text of events as JSON objects."""

import json

import pytest

from blkmig_cli.output.events_json import EventJson
from blkmig_cli.wire.decoder import Decoder
from tests.support import raw
from tests.support.feed import in_file

#: A name that looks like a part of the text.
DEVICE = '"bitmaps": []'


@pytest.mark.parametrize("payload", ["none", "hex"])
@pytest.mark.parametrize("number", [0, 1, 127, 128, 300])
def test_many_bitmaps_in_a_record(number: int, payload: str) -> None:
    bitmaps = [
        (f"{DEVICE}{at}", at % 2, 65536, bytes([at % 256, *bytes(7)])) for at in range(number)
    ]
    data = raw.qemu(raw.block(0, 0x68, DEVICE, raw.v2(2048, *bitmaps)))
    source = in_file(data)
    as_json = EventJson(source, payload)
    for event in Decoder(source):
        assert as_json.text(event) == json.dumps(as_json(event))
