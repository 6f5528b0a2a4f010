"""Recovering what is sound in a damaged stream."""
