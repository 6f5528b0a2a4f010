"""An HTTP server that answers requests for ranges of a sparse file, and counts them."""

import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Counting(ThreadingHTTPServer):
    """Serves the files in ``folder``; counts bytes, requests, and the most at the same time.

    ``fault``, if set, is called with the handler and the number of the request; it may answer itself,
    and returns whether it did.  ``ranges``: it sends parts of files; ``stated``: its headers tell that.
    ``etag`` and ``modified``: it tells the version of a file so.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.moved = 0
        self.requests = 0
        self.most = 0
        self.now = 0
        self.ranges = True
        self.stated = True
        self.etag = True
        self.modified = False
        self.fault: Any = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that breaks off is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counting

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        server = self.server
        with server.lock:
            server.requests += 1
            number = server.requests
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            if server.fault is None or not server.fault(self, number):
                self._send(body)
        finally:
            with server.lock:
                server.now -= 1

    def _send(self, body: bool) -> None:
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size, status = path.stat().st_size, 200
        start, end = 0, size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start, end, status = int(asked[1]), min(int(asked[2]) + 1, size), 206
        self.send_response(status)
        if self.server.stated:
            self.send_header("Accept-Ranges", "bytes" if self.server.ranges else "none")
        if self.server.etag:
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        if self.server.modified:
            self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if body:
            with open(path, "rb") as file:
                file.seek(start)
                while start < end:
                    data = file.read(min(end - start, 1 << 20))
                    self.wfile.write(data)
                    start += len(data)
                    with self.server.lock:
                        self.server.moved += len(data)
