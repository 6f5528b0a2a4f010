"""Results drawn for a terminal; the only importer of rich."""
