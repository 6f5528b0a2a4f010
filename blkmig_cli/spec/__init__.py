"""Specs: a stream as a description that people can read and change, and ``build`` makes bytes of."""
