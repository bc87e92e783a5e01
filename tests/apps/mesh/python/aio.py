"""asyncio: aiohttp as server and as client."""

import asyncio
import hashlib
import os

from aiohttp import ClientSession, TCPConnector, web

KEY = os.environ["MARKER_KEY"]
BASES = [os.environ["A"] + "/leaf/", os.environ["B"] + "/branch/"]


def child(marker, call):
    return hashlib.sha256(f"{KEY}/{marker}/{call}".encode()).hexdigest()[:16]


def sleep(marker, digit):
    return asyncio.sleep(int(marker[digit], 16) / 2000)


def work(marker):
    digest = marker.encode()
    for _ in range(300):
        digest = hashlib.sha256(digest).digest()


async def get(url):
    async with SESSION.get(url) as answer:
        await answer.read()


def call(marker, i):
    return get(BASES[i % 2] + child(marker, i))


async def leaf(m):
    await sleep(m, 0)


async def branch(m):
    await get(BASES[0] + child(m, 0))


async def seq(m):
    for i in range(3):
        await call(m, i)


async def par(m):
    await asyncio.gather(*(call(m, i) for i in range(3)))


async def sleeping(m):
    for i in range(2):
        await sleep(m, i + 1)
        await call(m, i)


async def cpu(m):
    for i in range(2):
        work(m)
        await call(m, i)


async def nested(m):
    async def two(i):
        await call(m, i)
        await call(m, i + 1)

    await asyncio.gather(two(0), two(2))


async def tasks(m):
    """Tasks made at once, each awaited later."""
    made = [asyncio.create_task(call(m, i)) for i in range(3)]
    for task in made:
        await task


STYLES = {
    "leaf": leaf,
    "branch": branch,
    "seq": seq,
    "par": par,
    "sleep": sleeping,
    "cpu": cpu,
    "nested": nested,
    "tasks": tasks,
}


async def handle(request):
    await STYLES[request.match_info["style"]](request.match_info["marker"])
    return web.Response(text="ok\n")


async def application():
    global SESSION
    SESSION = ClientSession(connector=TCPConnector(limit=0))
    app = web.Application()
    app.router.add_get("/{style}/{marker}", handle)
    return app


web.run_app(application(), host="0.0.0.0", port=int(os.environ["PORT"]), backlog=512, access_log=None)
