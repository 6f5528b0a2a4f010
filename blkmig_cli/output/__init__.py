"""Results as text, JSON, XML and pictures."""
