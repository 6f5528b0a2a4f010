"""The operating system: addresses, atomic files, JSON documents, pipes, sockets, signals."""
