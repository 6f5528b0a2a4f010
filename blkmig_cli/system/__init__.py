"""What the operating system gives: addresses, atomic files, documents of our own, pipes and sockets."""
