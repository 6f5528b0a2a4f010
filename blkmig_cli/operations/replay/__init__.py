"""Applying a stream to disk images."""
