"""Moves bytes over sockets in every way there is, for tests/capture: one scenario, named by the first argument.

Prints one line per step and waits for one line of input where the test must do something in between.
"""
import ctypes, os, socket, struct, sys, tempfile, time

libc = ctypes.CDLL(None, use_errno=True)
RWF_HIPRI = 1


def pattern(n, seed=0):
    """Bytes that differ at every place of a stream."""
    return b"".join(struct.pack("<I", (i * 2654435761 + seed) & 0xFFFFFFFF) for i in range(n // 4 + 1))[:n]


def pair(family):
    if family == "unix":
        path = tempfile.mktemp()
        kind, address = socket.AF_UNIX, path
    elif family == "v4":
        kind, address = socket.AF_INET, ("127.0.0.1", 0)
    else:
        kind, address = socket.AF_INET6, ("::1", 0)
    listener = socket.socket(kind, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    client = socket.socket(kind, socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    if family == "unix":
        os.unlink(path)
    else:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def pieces(data):
    third = len(data) // 3
    return [data[:third], b"", data[third : 2 * third], data[2 * third :]]


class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(iovec)),
        ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", msghdr), ("len", ctypes.c_uint)]


def messages(buffers):
    """One message per list of buffers, for sendmmsg and recvmmsg."""
    result = (mmsghdr * len(buffers))()
    for message, parts in zip(result, buffers):
        vectors = (iovec * len(parts))()
        for vector, part in zip(vectors, parts):
            vector.base, vector.len = ctypes.addressof(part), len(part)
        message.hdr.iov, message.hdr.iovlen = vectors, len(parts)
    return result


def sendmmsg(s, parts):
    buffers = [[(ctypes.c_char * len(part)).from_buffer_copy(part) for part in parts if part]]
    assert libc.sendmmsg(s.fileno(), messages(buffers), 1, 0) == 1


def recvmmsg(s, n):
    buffer = (ctypes.c_char * n)()
    m = messages([[buffer]])
    assert libc.recvmmsg(s.fileno(), m, 1, 0, None) == 1
    assert m[0].len == n


def readv(s, n):
    parts = [bytearray(n // 2), bytearray(n - n // 2)]
    assert os.readv(s.fileno(), parts) == n


def preadv2(s, n):
    parts = [bytearray(n // 2), bytearray(n - n // 2)]
    assert os.preadv(s.fileno(), parts, -1, RWF_HIPRI) == n


SENDS = {
    "write": lambda s, d: os.write(s.fileno(), d),
    "sendto": lambda s, d: s.send(d),
    "writev": lambda s, d: os.writev(s.fileno(), pieces(d)),
    "pwritev2": lambda s, d: os.pwritev(s.fileno(), pieces(d), -1, RWF_HIPRI),
    "sendmsg": lambda s, d: s.sendmsg(pieces(d)),
    "sendmmsg": lambda s, d: sendmmsg(s, pieces(d)),
}
RECEIVES = {
    "read": lambda s, n: os.read(s.fileno(), n),
    "recvfrom": lambda s, n: s.recv(n),
    "readv": readv,
    "preadv2": preadv2,
    "recvmsg": lambda s, n: s.recvmsg_into([bytearray(n // 2), bytearray(n - n // 2)]),
    "recvmmsg": recvmmsg,
}


def say(*words):
    print(*words, flush=True)


def wait():
    sys.stdin.readline()


def every_call(family):
    """A message there and one back for every pair of calls, on one connection."""
    client, server = pair(family)
    for index, (send, receive) in enumerate(zip(SENDS, RECEIVES)):
        message = f"{family} {send} {receive} ".encode() + pattern(200 + index)
        SENDS[send](client, message)
        RECEIVES[receive](server, len(message))
        SENDS[send](server, message[::-1])
        RECEIVES[receive](client, len(message))


def no_buffer():
    """sendfile, splice, and two messages in one call."""
    client, server = pair("v4")
    with tempfile.TemporaryFile() as f:
        f.write(pattern(1000))
        f.flush()
        assert os.sendfile(client.fileno(), f.fileno(), 0, 1000) == 1000
    assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
    r, w = os.pipe()
    os.write(w, pattern(500))
    assert os.splice(r, client.fileno(), 500) == 500
    assert len(server.recv(500, socket.MSG_WAITALL)) == 500
    buffers = [[(ctypes.c_char * 70).from_buffer_copy(pattern(70))] for _ in range(2)]
    assert libc.sendmmsg(client.fileno(), messages(buffers), 2, 0) == 2
    assert len(server.recv(140, socket.MSG_WAITALL)) == 140


def large():
    """One run longer than what is captured of it, then a short answer and a second run."""
    client, server = pair("v4")
    for _ in range(2):
        sent, received = 0, 0
        data = pattern(400_000)
        while sent < len(data):
            sent += client.send(data[sent : sent + 50_000])
            while received < sent:
                received += len(server.recv(30_000))
        server.send(b"ok")
        client.recv(2)


def many_vectors():
    client, server = pair("v4")
    data = pattern(400)
    parts = [data[i : i + 10] for i in range(0, 400, 10)]
    os.writev(client.fileno(), parts)  # 40 vectors
    os.readv(server.fileno(), [bytearray(400)])
    os.writev(client.fileno(), parts[:20])
    os.readv(server.fileno(), [bytearray(200)])


def endings():
    """What makes no event, and the ends of a connection."""
    client, server = pair("v4")
    server.setblocking(False)
    try:
        server.recv(10)
    except BlockingIOError:
        pass
    server.setblocking(True)
    client.send(b"hello")
    time.sleep(0.01)
    assert server.recv(5, socket.MSG_PEEK) == b"hello"
    assert os.read(server.fileno(), 0) == b""
    assert server.recv(5) == b"hello"
    client.send(b"last words")
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.01)
    # The FIN is taken up with the last bytes: positions must not count it.
    assert server.recv(100) == b"last words"
    server.send(b"answer")
    assert client.recv(6) == b"answer"
    assert server.recv(100) == b""
    server.close()
    assert client.recv(100) == b""


def reset():
    client, server = pair("v4")
    client.send(b"x")
    server.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    time.sleep(0.01)
    try:
        server.recv(1)
    except ConnectionResetError:
        pass


def waits():
    """A request that waits in the socket buffer for 30 ms."""
    client, server = pair("v4")
    for _ in range(2):
        client.send(b"request")
        time.sleep(0.03)
        server.recv(7)
        server.send(b"answer")
        client.recv(6)


def steps(family):
    """One message per line of input."""
    client, server = pair(family)
    say("ready")
    for index in range(int(sys.argv[3])):
        wait()
        message = pattern(1000, index)
        client.send(message)
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        say("done")
    wait()


def crowded():
    """Two connections that want the same place in the table of the programs (tracer-common/src/policy.rs: `place`)."""
    def place(sock):
        cookie = struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, 57, 8))[0]  # SO_COOKIE
        return (cookie ^ cookie >> 8) & 0xFFFF

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # each CPU counts in blocks of its own
    first = pair("v4")
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(600_000):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if place(client) == place(first[0]):
            break
        client.close()
    else:
        sys.exit("no cookie wants that place")
    client.connect(listener.getsockname())
    second = client, listener.accept()[0]
    listener.close()
    say("ready")
    for index in range(4):
        wait()
        for client, server in (first, second):
            client.send(pattern(1000, index))
            assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        say("done")
    wait()


def load():
    """10,000 round trips."""
    client, server = pair("v4")
    for _ in range(10_000):
        client.send(b"ping")
        server.recv(4)
        server.send(b"pong")
        client.recv(4)


scenario = sys.argv[1]
if scenario in ("every_call", "steps"):
    globals()[scenario](sys.argv[2])
else:
    globals()[scenario]()
