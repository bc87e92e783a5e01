"""Puts jobs off: Flask under gunicorn, Celery and rq through Redis, and a plain list."""

import os
import threading

import redis
from flask import Flask
from rq import Queue

import work

app = Flask(__name__)
pool = threading.local()


def store():
    if not hasattr(pool, "store"):
        pool.store = redis.Redis.from_url(os.environ["REDIS"])
    return pool.store


@app.get("/celery/<int:n>")
def celery(n):
    work.celery_call.delay(n)
    return "queued\n"


@app.get("/rq/<int:n>")
def rq(n):
    Queue(connection=store()).enqueue(work.call, n, result_ttl=0)
    return "queued\n"


@app.get("/list/<int:n>")
def plain(n):
    store().lpush("plain", f"job {n}")
    return "queued\n"
