"""The operating system: addresses, atomic files, our own JSON documents, pipes, sockets, signals."""
