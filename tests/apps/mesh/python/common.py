"""What the Python services share: markers, work, and calls that block their thread."""

import hashlib
import os
import queue
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
