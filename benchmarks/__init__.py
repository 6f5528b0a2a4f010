"""Benchmarks of blkmig and of comparable tools: ``make bench``."""
