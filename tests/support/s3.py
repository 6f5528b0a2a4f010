"""An S3 server, moto's, and a proxy before it, which counts requests and can fail."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: The end of what a test waits for; only a failing one waits so long.
PATIENCE = 60


@contextmanager
def moto() -> Iterator[int]:
    """Run moto's server while the context lasts; yields its port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at ``port``, and keeps their methods and paths in ``requests``.

    ``fault``, if set, is called with the handler before that; it may answer itself, and returns whether it
    did.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.requests: list[str] = []
        self.fault: Callable[[Handler], bool] | None = None

    def count(self, word: str) -> int:
        """Return the number of requests with ``word`` in their line."""
        return sum(word in line for line in self.requests)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that breaks off is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.fault is not None and self.server.fault(self):
            return
        away = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        try:
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            away.request(self.command, self.path, body, headers)
            found = away.getresponse()
            data = found.read()
        finally:
            away.close()
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        length = found.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 (their names)

    def refuse(self, status: int, **headers: str) -> None:
        """Answer with an error, as S3 does."""
        code = {503: "SlowDown", 429: "TooManyRequests"}.get(status, "InternalError")
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


#: What a fault is called with.
Handler = _Handler
