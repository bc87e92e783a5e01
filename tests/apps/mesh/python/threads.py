"""Threads: http.server with a thread for each connection, an executor for what runs at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from blocking import Blocking

STYLES = Blocking(ThreadPoolExecutor(64))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        _, style, marker = self.path.split("/")
        getattr(STYLES, style)(marker)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
