"""Many captures: which ones are specified, and the processes that read them."""
