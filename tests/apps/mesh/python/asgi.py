"""asyncio: FastAPI under uvicorn, httpx as client. LOOP (asyncio, uvloop) and HTTP (h11, httptools) choose what uvicorn runs on."""

import os

import common
import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.middleware.base import BaseHTTPMiddleware

from styles import Styles

CLIENT = httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=None), timeout=20)
STYLES = Styles(CLIENT.get)
app = FastAPI()


@app.get("/sync/{marker}", response_class=PlainTextResponse)
def sync(marker: str):
    """FastAPI runs it in a thread."""
    for i in range(2):
        common.call(marker, i)
    return "ok\n"


@app.get("/{style}/{marker}", response_class=PlainTextResponse)
async def handle(style: str, marker: str):
    await getattr(STYLES, style)(marker)
    return "ok\n"


async def passed_on(request, call_next):
    return await call_next(request)


if os.environ.get("MIDDLEWARE"):
    # The application runs in a task of the middleware's own.
    app.add_middleware(BaseHTTPMiddleware, dispatch=passed_on)

uvicorn.run(
    app,
    host="0.0.0.0",
    port=int(os.environ["PORT"]),
    backlog=512,
    access_log=False,
    log_level="warning",
    loop=os.environ["LOOP"],
    http=os.environ["HTTP"],
)
