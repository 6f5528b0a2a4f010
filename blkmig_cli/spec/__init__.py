"""Specs: a stream as text that can be read and edited, from which ``build`` writes the stream."""
