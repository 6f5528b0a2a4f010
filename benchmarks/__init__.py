"""Measurements of blkmig's speed, beside that of comparable tools: ``make bench``."""
