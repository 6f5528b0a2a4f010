"""The client of NBD servers: a disk behind a socket, as an image."""
