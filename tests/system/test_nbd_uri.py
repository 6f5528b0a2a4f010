"""URIs of NBD exports: what they mean, and what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.errors import UsageError
from blkmig_cli.system.nbd_uri import NbdUri, is_nbd, parse_nbd_uri

GOOD = [
    ("nbd://h", {"host": "h"}),
    ("nbd://h/", {"host": "h"}),
    ("nbd://h/disk", {"host": "h", "export": "disk"}),
    ("nbd://h:1/a/b", {"host": "h", "port": 1, "export": "a/b"}),
    ("nbd://h://b", {"host": "h", "export": "/b"}),
    ("nbd://h/a%20b%2Fc%3F", {"host": "h", "export": "a b/c?"}),
    ("nbd://h/a+b", {"host": "h", "export": "a+b"}),
    ("nbd://h/%ff", {"host": "h", "export": "\udcff"}),
    ("nbd://h/é", {"host": "h", "export": "é"}),
    ("nbd://[::1]/x", {"host": "::1", "export": "x"}),
    ("nbd://[fe80::1%25eth0]:65535/x", {"host": "fe80::1%eth0", "port": 65535, "export": "x"}),
    ("nbds://h/x", {"host": "h", "export": "x", "tls": True}),
    (
        "nbds://h/x?tls-certificates=/etc/p%20ki&tls-hostname=n",
        {
            "host": "h", "export": "x", "tls": True,
            "certificates": "/etc/p ki", "tls_hostname": "n",
        },
    ),
    ("nbd+unix:///?socket=s", {"socket": "s"}),
    ("nbd+unix://?socket=s", {"socket": "s"}),
    ("nbd+unix:///x?socket=/a%3Db=c", {"export": "x", "socket": "/a=b=c"}),
    ("nbds+unix:///x?socket=s&tls-hostname=n", {
        "export": "x", "socket": "s", "tls": True, "tls_hostname": "n"}),
    ("nbd://h/" + "e" * 4096, {"host": "h", "export": "e" * 4096}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fields"), GOOD)
def test_what_a_uri_means(text: str, fields: dict[str, object]) -> None:
    assert is_nbd(text)
    assert parse_nbd_uri(text) == NbdUri(text, **{"export": "", **fields})  # type: ignore[arg-type]


BAD = [
    ("nbd:h:1", "expected nbd://HOST[:PORT]/EXPORT"),
    ("nbd+unix:/x?socket=s", "expected nbd+unix:///EXPORT?socket=PATH"),
    ("nbd://", "expected nbd://HOST[:PORT]/EXPORT"),
    ("nbd:///x", "expected nbd://HOST[:PORT]/EXPORT"),
    ("nbd://h:0/x", "expected a port from 1 to 65535"),
    ("nbd://h:65536/x", "expected a port from 1 to 65535"),
    ("nbd://h:000001/x", "expected a port from 1 to 65535"),
    ("nbd://h:-1/x", "expected a port from 1 to 65535"),
    ("nbd://h:²/x", "expected a port from 1 to 65535"),
    ("nbd://::1/x", "an IPv6 address is written in brackets"),
    ("nbd://[::1/x", "an IPv6 address is written in brackets"),
    ("nbd://[::1]x/x", "an IPv6 address is written in brackets"),
    ("nbd://u@h/x", "not a host name"),
    ("nbd://a..b/x", "not a host name"),
    ("nbd://h/a%", "a % is followed by two hexadecimal digits"),
    ("nbd://h/%zz", "a % is followed by two hexadecimal digits"),
    ("nbd://h/a%00", "it contains a null character"),
    ("nbd://h/a\0", "it contains a null character"),
    ("nbd://h/a#b", "a # in a name is written %23"),
    ("nbd://h/x?socket=s", "unknown parameter 'socket'"),
    ("nbd://h/x?tls-hostname=s", "unknown parameter 'tls-hostname'"),
    ("nbds://h/x?tls-psk-file=f", "'tls-psk-file', expected tls-certificates or tls-hostname"),
    ("nbds://h/x?tls-hostname=", "expected one tls-hostname=VALUE"),
    ("nbds://h/x?tls-hostname=a&tls-hostname=b", "expected one tls-hostname=VALUE"),
    ("nbd+unix:///x", "expected nbd+unix:///EXPORT?socket=PATH"),
    ("nbd+unix://h/x?socket=s", "expected nbd+unix:///EXPORT?socket=PATH"),
    ("nbd+unix:///x?socket", "expected one socket=VALUE"),
    ("nbd+unix:///x?socket=s&", "unknown parameter ''"),
    ("nbd://h/" + "%41" * 4097, "the name of the export has over 4096 bytes"),
    ("nbd://h/" + "e" * 99_999, "of 100007 characters"),
    ("nbd://h/\ud800", "it is not valid Unicode"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_nbd_uri(text)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["nbd", "nbd.img", "NBD://h/x", "./nbd://h", "nbdx://h", "file:nbd:x", ""]
)
def test_what_is_no_uri(text: str) -> None:
    assert not is_nbd(text)


@given(st.sampled_from(["nbd", "nbds", "nbd+unix", "nbds+unix"]), st.text(max_size=60))
def test_any_text(scheme: str, rest: str) -> None:
    for text in (f"{scheme}:{rest}", f"{scheme}://{rest}", f"{scheme}:///x?socket={rest}"):
        with suppress(UsageError):
            found = parse_nbd_uri(text)
            assert bool(found.host) != bool(found.socket)
            assert "\0" not in found.host + found.socket + found.export
