/* How connections end, and how they do not come to be. */
#include "cases.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

/* The client finishes sending; the server answers after that. */
static void half_close(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    char byte;
    hold();
    round_trip(&pair.client, &pair.server);
    send_bytes(&pair.client, 100);
    MUST(shutdown(pair.client.fd, SHUT_WR) == 0);
    receive_bytes(&pair.server, 100);
    MUST(read(pair.server.fd, &byte, 1) == 0);
    ended(&pair.server);
    send_bytes(&pair.server, 200);
    receive_bytes(&pair.client, 200);
    close(pair.server.fd);
    MUST(read(pair.client.fd, &byte, 1) == 0);
    ended(&pair.client);
    close(pair.client.fd);
}

/* The client throws the connection away before the answer. */
static void reset(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    struct linger at_once = {1, 0};
    hold();
    round_trip(&pair.client, &pair.server);
    send_bytes(&pair.client, 100);
    receive_bytes(&pair.server, 100);
    MUST(setsockopt(pair.client.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    close(pair.client.fd);
    struct pollfd wait = {pair.server.fd, POLLIN, 0};
    MUST(poll(&wait, 1, LONG) == 1);
    char byte;
    MUST(read(pair.server.fd, &byte, 1) == -1 && errno == ECONNRESET);
    close(pair.server.fd);
}

static struct address loopback(void) {
    struct address address;
    close(listening(V4, &address)); /* nobody listens there any more */
    return address;
}

/* A connect that fails: refused at once, refused to one that does not block, unreachable, nobody answers, closed before that. */
static void connect_fails(const char *variant) {
    struct address address = loopback();
    int expected = ECONNREFUSED, fd = socket(AF_INET, SOCK_STREAM, 0), once = 1;
    if (!strcmp(variant, "refused-later"))
        MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    else if (!strcmp(variant, "unreachable")) {
        /* A broadcast route has no TCP. */
        ((struct sockaddr_in *)&address.any)->sin_addr.s_addr = htonl(INADDR_BROADCAST);
        expected = ENETUNREACH;
    } else if (!strcmp(variant, "timed-out") || !strcmp(variant, "given-up")) {
        /* A full queue: the kernel drops the handshake and nobody answers. */
        int listener = socket(AF_INET, SOCK_STREAM, 0);
        ((struct sockaddr_in *)&address.any)->sin_port = 0;
        MUST(bind(listener, &address.any, address.size) == 0 && listen(listener, 0) == 0);
        MUST(getsockname(listener, &address.any, &address.size) == 0);
        connected(&address);
        MUST(setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &once, sizeof once) == 0);
        expected = ETIMEDOUT;
        if (!strcmp(variant, "given-up")) {
            MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
            expected = EINPROGRESS;
        }
    }
    int result = connect(fd, &address.any, address.size), error = errno;
    if (result < 0 && error == EINPROGRESS && error != expected) {
        struct pollfd wait = {fd, POLLOUT, 0};
        socklen_t size = sizeof error;
        MUST(poll(&wait, 1, LONG) == 1);
        MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
    }
    MUST(result < 0);
    errno = error;
    MUST(error == expected);
    failed(&address, error);
    close(fd);
}

const struct test ending_cases[] = {
    {"half_close", half_close, "v4 unix"}, {"reset", reset, NULL},
    {"connect_fails", connect_fails, "refused refused-later unreachable timed-out given-up"}, {0},
};
