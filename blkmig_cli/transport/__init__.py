"""Sources and targets of streams: files, pipes, sockets, compression, temporary copies."""
