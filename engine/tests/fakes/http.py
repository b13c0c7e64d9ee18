"""A small threaded HTTP server on a free loopback port."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Reply:
    def __init__(self, status=200, body=b"", headers=None, cut=None):
        self.status, self.body, self.headers, self.cut = status, body, headers or {}, cut


class LoopbackServer:
    """Subclasses answer `reply(method, path, headers, body)`. `port` stays the same over `stop` and `start`."""

    def __init__(self):
        self.port = 0
        self._server = None
        self.start()

    def start(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with owner.lock:
                    reply = owner.reply(self.command, self.path, self.headers, body) if owner.is_up else None
                if reply is None:  # the line goes dead before an answer
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in reply.headers:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if reply.cut is not None:
                    self.wfile.write(reply.body[: reply.cut])
                    self.close_connection = True
                elif self.command != "HEAD":
                    self.wfile.write(reply.body)

            do_GET = do_POST = do_HEAD = handle_any

            def log_message(self, *_):
                pass

        self.lock = getattr(self, "lock", None) or threading.RLock()
        self.is_up = True
        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.handle_error = lambda *_: None  # clients of these tests hang up on purpose
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Off the network: connections are refused, open ones are dead, until `start`."""
        with self.lock:
            self.is_up = False
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def reply(self, method, path, headers, body):
        raise NotImplementedError
