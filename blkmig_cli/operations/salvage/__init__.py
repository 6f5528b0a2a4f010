"""Recovering what is intact in a damaged stream."""
