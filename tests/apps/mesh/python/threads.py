"""Threads: http.server with a thread for each connection, http.client on connections kept in a pool, executors for what runs at once."""

import hashlib
import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = os.environ["MARKER_KEY"]
BASES = [(os.environ["A"], "/leaf/"), (os.environ["B"], "/branch/")]
POOLS = {base: queue.LifoQueue() for base, _ in BASES}
EXECUTOR = ThreadPoolExecutor(64)


def child(marker, call):
    return hashlib.sha256(f"{KEY}/{marker}/{call}".encode()).hexdigest()[:16]


def sleep(marker, digit):
    time.sleep(int(marker[digit], 16) / 2000)


def work(marker):
    digest = marker.encode()
    for _ in range(300):
        digest = hashlib.sha256(digest).digest()


def get(base, path):
    try:
        connection = POOLS[base].get_nowait()
    except queue.Empty:
        connection = HTTPConnection(base.removeprefix("http://"), timeout=20)
    connection.request("GET", path)
    connection.getresponse().read()
    POOLS[base].put(connection)


def call(marker, i):
    base, path = BASES[i % 2]
    get(base, path + child(marker, i))


def at_once(*functions):
    for future in [EXECUTOR.submit(function) for function in functions]:
        future.result()


def leaf(m):
    sleep(m, 0)


def branch(m):
    get(BASES[0][0], "/leaf/" + child(m, 0))


def seq(m):
    for i in range(3):
        call(m, i)


def par(m):
    at_once(*(lambda i=i: call(m, i) for i in range(3)))


def sleeping(m):
    for i in range(2):
        sleep(m, i + 1)
        call(m, i)


def cpu(m):
    for i in range(2):
        work(m)
        call(m, i)


STYLES = {"leaf": leaf, "branch": branch, "seq": seq, "par": par, "sleep": sleeping, "cpu": cpu}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        _, style, marker = self.path.split("/")
        STYLES[style](marker)
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
