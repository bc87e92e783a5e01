"""Opens COUNT connections to PORT, asks for /hello/<n> on each, says so, and holds them until it is ended."""

import os
import socket
import time

port = int(os.environ["PORT"])
held = []
for n in range(int(os.environ["COUNT"])):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"GET /hello/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n)
    connection.recv(4096)
    held.append(connection)
    if n % 10 == 0:
        time.sleep(0.005)
print("holding", flush=True)
time.sleep(600)
