"""Styles of asyncio services. `get` is the coroutine that asks."""

import asyncio

import common
from common import BASES, child, pause, url, work
from stores import AsyncStores


class Styles:
    def __init__(self, get):
        self.get = get
        self.kept = set()

    def call(self, marker, i):
        return self.get(url(marker, i))

    async def leaf(self, m):
        await asyncio.sleep(pause(m, 0))

    async def branch(self, m):
        await self.get(BASES[0] + child(m, 0))

    async def seq(self, m):
        for i in range(3):
            await self.call(m, i)

    async def par(self, m):
        await asyncio.gather(*(self.call(m, i) for i in range(3)))

    async def sleep(self, m):
        for i in range(2):
            await asyncio.sleep(pause(m, i + 1))
            await self.call(m, i)

    async def cpu(self, m):
        for i in range(2):
            work(m)
            await self.call(m, i)

    async def stores(self, m):
        """A query and a look-up between calls."""
        stores = await AsyncStores.get()
        await stores.query(child(m, 2))
        await self.call(m, 0)
        await stores.look_up(child(m, 3))
        await self.call(m, 1)

    async def storespar(self, m):
        """The same at once."""
        stores = await AsyncStores.get()
        await asyncio.gather(
            stores.query(child(m, 2)), self.call(m, 0), stores.look_up(child(m, 3)), self.call(m, 1)
        )

    async def nested(self, m):
        async def two(i):
            await self.call(m, i)
            await self.call(m, i + 1)

        await asyncio.gather(two(0), two(2))

    async def group(self, m):
        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(self.call(m, i))

    async def spawn(self, m):
        """A task that is awaited at once, a call with a time limit, and tasks of which the first to end is waited for."""
        await asyncio.create_task(self.call(m, 0))
        await asyncio.wait_for(self.call(m, 1), 20)
        waited = [asyncio.create_task(self.call(m, i)) for i in (2, 3)]
        while waited:
            _, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    async def tasks(self, m):
        """Tasks made at once, each awaited later."""
        made = [asyncio.create_task(self.call(m, i)) for i in range(3)]
        for task in made:
            await task

    async def named(self, m):
        """Tasks in a dictionary, each awaited later for a limited time."""
        made = {i: asyncio.create_task(self.call(m, i)) for i in range(3)}
        for i in made:
            await asyncio.wait_for(made[i], 20)

    async def within(self, m):
        """Tasks made by Tasks, all awaited later."""

        async def two(i):
            one, other = (asyncio.create_task(self.call(m, call)) for call in (i, i + 1))
            await one
            await other

        one, other = asyncio.create_task(two(0)), asyncio.create_task(two(2))
        await one
        await other

    async def late(self, m):
        """Two, and a Task made between them that calls once the answer is out."""

        async def after():
            await asyncio.sleep(0.2)
            await self.get(BASES[0] + child(m, 2))

        one = asyncio.create_task(self.call(m, 0))
        later = asyncio.create_task(after())
        other = asyncio.create_task(self.call(m, 1))
        self.kept.add(later)
        later.add_done_callback(self.kept.discard)
        await one
        await other

    async def beside(self, m):
        """A Task that is awaited later, and calls of the request's own meanwhile."""
        made = asyncio.create_task(self.call(m, 0))
        await self.call(m, 1)
        await made
        await self.call(m, 2)

    async def executor(self, m):
        """Calls that block a thread of the loop's executor: one after the other, then at once."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, common.call, m, 0)
        await asyncio.gather(*(asyncio.to_thread(common.call, m, i) for i in (1, 2)))
