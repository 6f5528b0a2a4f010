"""Where a stream comes from and where it goes: files, pipes, sockets, compression, temporary copies."""
