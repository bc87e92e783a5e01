"""http.server with a thread per connection; each thread keeps one connection to the next service."""

import http.client
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

NEXT = urlsplit(os.environ.get("NEXT", ""))
pool = threading.local()


def get(path):
    if not hasattr(pool, "next"):
        pool.next = http.client.HTTPConnection(NEXT.hostname, NEXT.port, timeout=20)
    pool.next.request("GET", path)
    answer = pool.next.getresponse()
    return answer.status, answer.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        what, _, n = self.path[1:].partition("/")
        if what == "hello":
            self.answer(200, f"hello {n}\n".encode())
        elif what == "status":
            self.answer(int(n))
        elif what == "slow":
            time.sleep(int(n) / 1000)
            self.answer(200, b"slow\n")
        elif what == "call":
            self.answer(*get(f"/hello/{n}"))
        else:
            self.answer(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, f"{len(body)}\n".encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


Server((os.environ.get("HOST", "0.0.0.0"), int(os.environ["PORT"])), Handler).serve_forever()
