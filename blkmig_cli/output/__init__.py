"""Formatting results as text, JSON, XML and SVG."""
