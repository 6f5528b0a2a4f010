"""Fuzz targets: each module's first sentence is its invariant.  ``make fuzz``."""
