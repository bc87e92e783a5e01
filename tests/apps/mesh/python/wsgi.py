"""gunicorn: a WSGI application, an executor for what runs at once."""

from concurrent.futures import ThreadPoolExecutor

from blocking import Blocking

STYLES = None


def app(environ, start_response):
    global STYLES
    # In the worker, after the fork.
    STYLES = STYLES or Blocking(ThreadPoolExecutor(64))
    _, style, marker = environ["PATH_INFO"].split("/")
    getattr(STYLES, style)(marker)
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
