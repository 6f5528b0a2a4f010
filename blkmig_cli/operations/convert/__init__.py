"""Writing a stream in another dialect."""
