"""Results as text for a terminal; only this package imports rich."""
