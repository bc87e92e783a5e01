/* Flags, and sockets whose buffers are full or empty. */
#include "cases.h"

#include <fcntl.h>
#include <poll.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

static char bytes[8 << 20];

/* Looking does not take: the bytes are received once. */
static void peek(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    hold();
    for (int i = 0; i < 3; i++) {
        send_bytes(&pair.client, 300);
        for (int look = 0; look < 3; look++) {
            MUST(recv(pair.server.fd, bytes, 300, MSG_PEEK) == 300);
            struct iovec part = {bytes, 300};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
            MUST(recvmsg(pair.server.fd, &message, MSG_PEEK) == 300);
        }
        receive_bytes(&pair.server, 300);
    }
    close_pair(&pair);
}

/* Sent from the process's own pages; each completion is a message of the error queue, not of the stream. */
static void zerocopy(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    int on = 1;
    size_t size = 20000;
    MUST(setsockopt(pair.client.fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) == 0);
    hold();
    for (int i = 0; i < 3; i++) {
        fill(&pair.client, bytes, size);
        MUST(send(pair.client.fd, bytes, size, MSG_ZEROCOPY) == (ssize_t)size);
        moved(&pair.client, SENT, size, 1);
        static char got[20000];
        MUST(recv(pair.server.fd, got, size, MSG_WAITALL) == (ssize_t)size);
        check(&pair.server, got, size);
        moved(&pair.server, RECEIVED, size, 1);
        struct pollfd poll_for = {pair.client.fd, 0, 0};
        MUST(poll(&poll_for, 1, LONG) == 1);
        char control[256];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
        MUST(recvmsg(pair.client.fd, &message, MSG_ERRQUEUE) >= 0);
    }
    close_pair(&pair);
}

/* A socket that takes what fits and then would block: every part is a message, the refusals are none. */
static void partial(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    size_t sent = 0, received = 0, all = sizeof bytes;
    MUST(fcntl(pair.client.fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(pair.server.fd, F_SETFL, O_NONBLOCK) == 0);
    hold();
    fill(&pair.client, bytes, all);
    while (received < all) {
        ssize_t n;
        while (sent < all && (n = write(pair.client.fd, bytes + sent, all - sent)) > 0) {
            moved(&pair.client, SENT, (size_t)n, 1);
            sent += (size_t)n;
        }
        MUST(sent == all || errno == EAGAIN);
        static char got[70000];
        while ((n = read(pair.server.fd, got, sizeof got)) > 0) {
            check(&pair.server, got, (size_t)n);
            moved(&pair.server, RECEIVED, (size_t)n, 1);
            received += (size_t)n;
        }
        MUST(n < 0 && errno == EAGAIN);
    }
    close_pair(&pair);
}

/* MSG_TRUNC throws a TCP stream's bytes away (tcp(7)); MSG_WAITALL waits for several messages. */
static void flags(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    hold();
    send_bytes(&pair.client, 400);
    MUST(recv(pair.server.fd, NULL, 400, MSG_TRUNC | MSG_WAITALL) == 400);
    moved(&pair.server, RECEIVED, 400, 0);
    send_bytes(&pair.client, 100);
    send_bytes(&pair.client, 150);
    MUST(recv(pair.server.fd, bytes, 250, MSG_WAITALL) == 250);
    check(&pair.server, bytes, 250);
    moved(&pair.server, RECEIVED, 250, 1);
    MUST(read(pair.server.fd, bytes, 0) == 0); /* nothing asked for: neither a message nor an end */
    MUST(recv(pair.server.fd, bytes, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    MUST(write(pair.client.fd, bytes, 0) == 0);
    round_trip(&pair.client, &pair.server);
    close_pair(&pair);
}

const struct test buffer_cases[] = {
    {"peek", peek, "v4 unix"}, {"zerocopy", zerocopy, NULL}, {"partial", partial, "v4 unix"}, {"flags", flags, NULL}, {0},
};
