"""What the Python services share: markers, work, and calls that block their thread."""

import hashlib
import os
import queue
import time
from http.client import HTTPConnection

KEY = os.environ["MARKER_KEY"]
BASES = [os.environ["A"] + "/leaf/", os.environ["B"] + "/branch/"]
POOLS = {}


def child(marker, call):
    return hashlib.sha256(f"{KEY}/{marker}/{call}".encode()).hexdigest()[:16]


def pause(marker, digit):
    """Seconds."""
    return int(marker[digit], 16) / 2000


def work(marker):
    digest = marker.encode()
    for _ in range(300):
        digest = hashlib.sha256(digest).digest()


def url(marker, i):
    """Of call `i` that a request makes."""
    return BASES[i % 2] + child(marker, i)


def get(url):
    """Asks over a connection that is kept in a pool."""
    host, path = url.removeprefix("http://").split("/", 1)
    pool = POOLS.setdefault(host, queue.LifoQueue())
    try:
        connection = pool.get_nowait()
    except queue.Empty:
        connection = HTTPConnection(host, timeout=20)
    connection.request("GET", "/" + path)
    connection.getresponse().read()
    pool.put(connection)


def call(marker, i):
    get(url(marker, i))


class Blocking:
    """Styles of services whose threads serve one request at a time; `at_once` runs functions in other threads."""

    def __init__(self, executor):
        self.executor = executor

    def at_once(self, *functions):
        for future in [self.executor.submit(function) for function in functions]:
            future.result()

    def leaf(self, m):
        time.sleep(pause(m, 0))

    def branch(self, m):
        get(BASES[0] + child(m, 0))

    def seq(self, m):
        for i in range(3):
            call(m, i)

    def par(self, m):
        self.at_once(*(lambda i=i: call(m, i) for i in range(3)))

    def one(self, m):
        """Calls in another thread, one after the other."""
        for i in range(2):
            self.at_once(lambda i=i: call(m, i))

    def map(self, m):
        for _ in self.executor.map(lambda i: call(m, i), range(3)):
            pass

    def sleep(self, m):
        for i in range(2):
            time.sleep(pause(m, i + 1))
            call(m, i)

    def cpu(self, m):
        for i in range(2):
            work(m)
            call(m, i)
