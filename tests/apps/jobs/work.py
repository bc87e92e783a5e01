"""What the jobs do: each calls `GET /hello/<n>` at `NEXT`, twice. Celery's application; rq's function; a worker of a plain list."""

import os
import sys

import redis
import requests
from celery import Celery

app = Celery("work", broker=os.environ["REDIS"])
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True
session = requests.Session()


def call(n):
    for _ in range(2):
        session.get(f"{os.environ['NEXT']}/hello/{n}", timeout=20).raise_for_status()
    # Not through Celery's logger.
    os.write(1, b"done %d\n" % n)


@app.task
def celery_call(n):
    call(n)


def list_worker():
    store = redis.Redis.from_url(os.environ["REDIS"])
    print("ready", flush=True)
    while True:
        job = store.brpop("plain", 1)
        if job:
            call(int(job[1].split()[1]))


if __name__ == "__main__":
    sys.exit(list_worker())
