"""Styles of services whose threads serve one request at a time."""

import time

from common import BASES, call, child, get, pause, work
from stores import Stores


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

    def stores(self, m):
        """A query and a look-up between calls."""
        stores = Stores.get()
        stores.query(child(m, 2))
        call(m, 0)
        stores.look_up(child(m, 3))
        call(m, 1)

    def storespar(self, m):
        """The same at once."""
        stores = Stores.get()
        self.at_once(
            lambda: stores.query(child(m, 2)),
            lambda: call(m, 0),
            lambda: stores.look_up(child(m, 3)),
            lambda: call(m, 1),
        )

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
