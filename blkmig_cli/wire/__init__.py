"""Bytes to events and events to bytes, without any I/O."""
