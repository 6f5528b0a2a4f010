"""Bytes to events, without I/O: one module per question, ``Decoder`` over them all."""

from blkmig_cli.decode.decoder import Decoder

__all__ = ["Decoder"]
