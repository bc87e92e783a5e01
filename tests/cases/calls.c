/* Every pair of system calls that moves bytes from and to memory, over every family. */
#include "cases.h"

#include <netinet/in.h>

enum { PARTS = 4 };

/* The message in four parts, one of them empty. */
static void split(struct iovec *parts, char *bytes, size_t size) {
    size_t third = size / 3;
    parts[0] = (struct iovec){bytes, third};
    parts[1] = (struct iovec){bytes, 0};
    parts[2] = (struct iovec){bytes + third, third};
    parts[3] = (struct iovec){bytes + 2 * third, size - 2 * third};
}

static ssize_t by_write(int fd, char *bytes, size_t size) { return write(fd, bytes, size); }
static ssize_t by_read(int fd, char *bytes, size_t size) { return read(fd, bytes, size); }
static ssize_t by_send(int fd, char *bytes, size_t size) { return send(fd, bytes, size, 0); }
static ssize_t by_recv(int fd, char *bytes, size_t size) { return recv(fd, bytes, size, 0); }
static ssize_t by_sendto(int fd, char *bytes, size_t size) { return sendto(fd, bytes, size, MSG_NOSIGNAL, NULL, 0); }
static ssize_t by_recvfrom(int fd, char *bytes, size_t size) {
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    return recvfrom(fd, bytes, size, MSG_WAITALL, (struct sockaddr *)&from, &length);
}
static ssize_t by_writev(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    return writev(fd, parts, PARTS);
}
static ssize_t by_readv(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    return readv(fd, parts, PARTS);
}
/* With a flag, or the library calls writev and readv. */
static ssize_t by_pwritev2(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    return pwritev2(fd, parts, PARTS, -1, RWF_HIPRI);
}
static ssize_t by_preadv2(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    return preadv2(fd, parts, PARTS, -1, RWF_HIPRI);
}
static ssize_t by_sendmsg(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    return sendmsg(fd, &message, 0);
}
static ssize_t by_recvmsg(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    char control[128];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS, .msg_control = control, .msg_controllen = sizeof control};
    return recvmsg(fd, &message, 0);
}
static ssize_t by_sendmmsg(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    struct mmsghdr message = {.msg_hdr = {.msg_iov = parts, .msg_iovlen = PARTS}};
    return sendmmsg(fd, &message, 1, 0) == 1 ? (ssize_t)message.msg_len : -1;
}
static ssize_t by_recvmmsg(int fd, char *bytes, size_t size) {
    struct iovec parts[PARTS];
    split(parts, bytes, size);
    struct mmsghdr message = {.msg_hdr = {.msg_iov = parts, .msg_iovlen = PARTS}};
    return recvmmsg(fd, &message, 1, 0, NULL) == 1 ? (ssize_t)message.msg_len : -1;
}

static const struct {
    const char *name;
    ssize_t (*send)(int, char *, size_t);
    ssize_t (*receive)(int, char *, size_t);
} calls[] = {
    {"write-read", by_write, by_read},       {"send-recv", by_send, by_recv},
    {"sendto-recvfrom", by_sendto, by_recvfrom}, {"writev-readv", by_writev, by_readv},
    {"pwritev2-preadv2", by_pwritev2, by_preadv2}, {"sendmsg-recvmsg", by_sendmsg, by_recvmsg},
    {"sendmmsg-recvmmsg", by_sendmmsg, by_recvmmsg},
};

static void one_way(struct end *from, struct end *to, int call, size_t size) {
    static char bytes[4096];
    fill(from, bytes, size);
    if (calls[call].send(from->fd, bytes, size) != (ssize_t)size) DIE("%s: send", calls[call].name);
    moved(from, SENT, size, 1);
    memset(bytes, 0, sizeof bytes);
    if (calls[call].receive(to->fd, bytes, size) != (ssize_t)size) DIE("%s: receive", calls[call].name);
    check(to, bytes, size);
    moved(to, RECEIVED, size, 1);
}

/* A message there and one back by each pair of calls, on one connection. */
static void every_call(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    hold();
    for (int call = 0; call < (int)(sizeof calls / sizeof *calls); call++) {
        one_way(&pair.client, &pair.server, call, 200 + (size_t)call);
        one_way(&pair.server, &pair.client, call, 1000 + (size_t)call);
    }
    close_pair(&pair);
}

/* Messages of different lengths in one call, each of two parts. */
static void several_messages(const char *variant) {
    enum { MESSAGES = 8, LARGEST = 800 };
    static char bytes[MESSAGES][LARGEST];
    struct iovec parts[MESSAGES][2];
    struct mmsghdr messages[MESSAGES];
    struct pair pair = connect_pair(family_named(variant));
    hold();
    for (int round = 0; round < 3; round++) {
        memset(messages, 0, sizeof messages);
        size_t sizes[MESSAGES], at = 0;
        static char all[MESSAGES * LARGEST];
        for (int i = 0; i < MESSAGES; i++) at += sizes[i] = (size_t)(100 * (i + 1) - round);
        fill(&pair.client, all, at);
        at = 0;
        for (int i = 0; i < MESSAGES; i++) {
            memcpy(bytes[i], all + at, sizes[i]);
            at += sizes[i];
            parts[i][0] = (struct iovec){bytes[i], 30};
            parts[i][1] = (struct iovec){bytes[i] + 30, sizes[i] - 30};
            messages[i].msg_hdr.msg_iov = parts[i];
            messages[i].msg_hdr.msg_iovlen = 2;
        }
        MUST(sendmmsg(pair.client.fd, messages, MESSAGES, 0) == MESSAGES);
        for (int i = 0; i < MESSAGES; i++) moved(&pair.client, SENT, sizes[i], 1);
        memset(bytes, 0, sizeof bytes);
        MUST(recvmmsg(pair.server.fd, messages, MESSAGES, MSG_WAITALL, NULL) == MESSAGES);
        for (int i = 0; i < MESSAGES; i++) {
            MUST(messages[i].msg_len == sizes[i]);
            check(&pair.server, bytes[i], sizes[i]);
            moved(&pair.server, RECEIVED, sizes[i], 1);
        }
    }
    close_pair(&pair);
}

/* Many vectors in one message: the kernel allows 1,024 (UIO_MAXIOV). */
static void many_vectors(const char *variant) {
    enum { MOST = 1024 };
    size_t count = strtoul(variant, NULL, 10), each = 10;
    static char bytes[MOST * 10];
    struct iovec parts[MOST];
    struct pair pair = connect_pair(V4);
    MUST(count <= MOST);
    hold();
    for (size_t i = 0; i < count; i++) parts[i] = (struct iovec){bytes + i * each, each};
    for (int round = 0; round < 2; round++) {
        fill(&pair.client, bytes, count * each);
        MUST(writev(pair.client.fd, parts, (int)count) == (ssize_t)(count * each));
        moved(&pair.client, SENT, count * each, 1);
        memset(bytes, 0, sizeof bytes);
        MUST(readv(pair.server.fd, parts, (int)count) == (ssize_t)(count * each));
        check(&pair.server, bytes, count * each);
        moved(&pair.server, RECEIVED, count * each, 1);
    }
    close_pair(&pair);
}

const struct test call_cases[] = {
    {"every_call", every_call, "v4 v6 mapped unix abstract seqpacket socketpair"},
    {"several_messages", several_messages, "v4 unix seqpacket"},
    {"many_vectors", many_vectors, "8 33 1024"},
    {0},
};
