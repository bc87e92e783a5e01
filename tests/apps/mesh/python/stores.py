"""PostgreSQL (`PG`) and Redis (`REDIS`), each behind a pool that has fewer connections than there are requests."""

import asyncio
import os
import threading

from common import pause

MOST = 24


def query(marker):
    return f"SELECT pg_sleep({pause(marker, 0)}) AS m_{marker}"


def keys(marker):
    """What is looked up: the number of keys and the length of the first one tell the judge whose call it is."""
    return [marker + "x" * int(marker[1:4], 16)] + ["k"] * int(marker[0], 16)


class Stores:
    """For threads."""

    lock = threading.Lock()
    made = None

    def __init__(self):
        from psycopg_pool import ConnectionPool
        from redis import BlockingConnectionPool, Redis

        self.pool = ConnectionPool(
            os.environ["PG"], min_size=1, max_size=MOST, kwargs={"autocommit": True}, open=True
        )
        self.cache = Redis(connection_pool=BlockingConnectionPool.from_url(os.environ["REDIS"], max_connections=MOST))

    @classmethod
    def get(cls):
        with cls.lock:
            cls.made = cls.made or cls()
            return cls.made

    def query(self, marker):
        with self.pool.connection() as connection:
            connection.execute(query(marker)).fetchall()

    def look_up(self, marker):
        self.cache.mget(keys(marker))


class AsyncStores:
    """For coroutines."""

    made = None

    def __init__(self):
        from psycopg_pool import AsyncConnectionPool
        from redis.asyncio import BlockingConnectionPool, Redis

        self.lock = asyncio.Lock()
        self.is_open = False
        self.pool = AsyncConnectionPool(
            os.environ["PG"], min_size=1, max_size=MOST, kwargs={"autocommit": True}, open=False
        )
        self.cache = Redis(connection_pool=BlockingConnectionPool.from_url(os.environ["REDIS"], max_connections=MOST))

    @classmethod
    async def get(cls):
        cls.made = cls.made or cls()
        async with cls.made.lock:
            if not cls.made.is_open:
                await cls.made.pool.open()
                cls.made.is_open = True
        return cls.made

    async def query(self, marker):
        async with self.pool.connection() as connection:
            await (await connection.execute(query(marker))).fetchall()

    async def look_up(self, marker):
        await self.cache.mget(keys(marker))
