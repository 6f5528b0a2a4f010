"""Bytes to events, without I/O: one module per question, ``Decoder`` over them all."""

from blkmig_cli.decode.decoder import Decoder
from blkmig_cli.decode.hints import Hints

__all__ = ["Decoder", "Hints"]
