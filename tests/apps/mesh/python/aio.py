"""asyncio: aiohttp as server and as client."""

import os

from aiohttp import ClientSession, TCPConnector, web

from styles import Styles


async def get(url):
    async with SESSION.get(url) as answer:
        await answer.read()


STYLES = Styles(get)


async def handle(request):
    await getattr(STYLES, request.match_info["style"])(request.match_info["marker"])
    return web.Response(text="ok\n")


async def application():
    global SESSION
    SESSION = ClientSession(connector=TCPConnector(limit=0))
    app = web.Application()
    app.router.add_get("/{style}/{marker}", handle)
    return app


web.run_app(application(), host="0.0.0.0", port=int(os.environ["PORT"]), backlog=512, access_log=None)
