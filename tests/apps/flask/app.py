"""Flask under gunicorn; PostgreSQL through psycopg, Redis through redis-py, HTTP through requests, all pooled per worker."""

import os
import threading
import time

import psycopg
import redis
import requests
from flask import Flask, request

app = Flask(__name__)
NEXT = os.environ.get("NEXT", "")
pool = threading.local()


def database():
    if not hasattr(pool, "database"):
        pool.database = psycopg.connect(os.environ["PG"], autocommit=True)
    return pool.database


def cache():
    if not hasattr(pool, "cache"):
        pool.cache = redis.Redis.from_url(os.environ["REDIS"])
    return pool.cache


def session():
    if not hasattr(pool, "session"):
        pool.session = requests.Session()
    return pool.session


@app.get("/hello/<int:n>")
def hello(n):
    return f"hello {n}\n"


@app.get("/status/<int:code>")
def status(code):
    return "", code


@app.get("/slow/<int:ms>")
def slow(ms):
    time.sleep(ms / 1000)
    return "slow\n"


@app.post("/echo")
def echo():
    return f"{len(request.get_data())}\n"


@app.get("/call/<int:n>")
def call(n):
    answer = session().get(f"{NEXT}/hello/{n}", timeout=20)
    return answer.content, answer.status_code


# The alias carries the judge's marker, since an identifier stays in the statement and a literal does not.
# The number of GETs (1 to 3) depends on it too, so that calls of two requests that were swapped are noticed.
@app.get("/db/<int:n>")
def db(n):
    row = database().execute(f"SELECT name AS marker_{n} FROM users WHERE id = %s", (1 + n % 3,)).fetchone()
    for _ in range(1 + n % 3):
        cache().get(f"user:{n}")
    return f"{row[0]} {n}\n"


@app.get("/dberror/<int:n>")
def db_error(n):
    try:
        database().execute(f"SELECT name AS marker_{n} FROM no_such_table")
    except psycopg.errors.UndefinedTable as error:
        return str(error), 500
    return "unexpected", 200
