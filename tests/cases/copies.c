/* Bytes that move between a socket and something else inside the kernel. */
#include "cases.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

static char bytes[1 << 16];

static void sendfile_(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    hold();
    for (size_t size = 500; size <= 8000; size *= 4) {
        int file = (int)syscall(SYS_memfd_create, "data", 0);
        fill(&pair.client, bytes, size);
        MUST(file >= 0 && write(file, bytes, size) == (ssize_t)size);
        off_t at = 0;
        MUST(sendfile(pair.client.fd, file, &at, size) == (ssize_t)size);
        moved(&pair.client, SENT, size, 0);
        MUST(recv(pair.server.fd, bytes, size, MSG_WAITALL) == (ssize_t)size);
        check(&pair.server, bytes, size);
        moved(&pair.server, RECEIVED, size, 1);
        close(file);
    }
    close_pair(&pair);
}

/* Pipe to socket, socket to pipe. */
static void splice_(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    int ends[2];
    hold();
    MUST(pipe(ends) == 0);
    for (size_t size = 500; size <= 2000; size *= 2) {
        fill(&pair.client, bytes, size);
        MUST(write(ends[1], bytes, size) == (ssize_t)size);
        MUST(splice(ends[0], NULL, pair.client.fd, NULL, size, 0) == (ssize_t)size);
        moved(&pair.client, SENT, size, 0);
        MUST(splice(pair.server.fd, NULL, ends[1], NULL, size, 0) == (ssize_t)size);
        MUST(read(ends[0], bytes, size) == (ssize_t)size);
        check(&pair.server, bytes, size);
        moved(&pair.server, RECEIVED, size, SPLICED);
    }
    close_pair(&pair);
}

/* What is in a pipe goes to two sockets; what vmsplice puts there goes to one. */
static void tee_(const char *variant) {
    (void)variant;
    struct pair first = connect_pair(V4), second = connect_pair(V4);
    int one[2], two[2];
    size_t size = 700;
    hold();
    MUST(pipe(one) == 0 && pipe(two) == 0);
    fill(&first.client, bytes, size);
    MUST(write(one[1], bytes, size) == (ssize_t)size);
    MUST(tee(one[0], two[1], size, 0) == (ssize_t)size);
    MUST(splice(one[0], NULL, first.client.fd, NULL, size, 0) == (ssize_t)size);
    moved(&first.client, SENT, size, 0);
    MUST(splice(two[0], NULL, second.client.fd, NULL, size, 0) == (ssize_t)size);
    moved(&second.client, SENT, size, 0);
    receive_bytes(&first.server, size);
    receive_bytes(&second.server, size);

    static char given[4096];
    fill(&first.client, given, size);
    struct iovec part = {given, size};
    MUST(vmsplice(one[1], &part, 1, 0) == (ssize_t)size);
    MUST(splice(one[0], NULL, first.client.fd, NULL, size, 0) == (ssize_t)size);
    moved(&first.client, SENT, size, 0);
    receive_bytes(&first.server, size);
    close_pair(&first);
    close_pair(&second);
}

/* A proxy that never sees the bytes: socket to pipe to socket. */
static void proxy(const char *variant) {
    (void)variant;
    struct pair front = connect_pair(V4), back = connect_pair(V4);
    int ends[2];
    hold();
    MUST(pipe(ends) == 0);
    for (int i = 0; i < 3; i++) {
        send_bytes(&front.client, 900);
        MUST(splice(front.server.fd, NULL, ends[1], NULL, 4096, SPLICE_F_MOVE) == 900);
        moved(&front.server, RECEIVED, 900, SPLICED);
        MUST(splice(ends[0], NULL, back.client.fd, NULL, 900, SPLICE_F_MOVE) == 900);
        moved(&back.client, SENT, 900, 0);
        receive_bytes(&back.server, 900);
    }
    close_pair(&front);
    close_pair(&back);
}

const struct test copy_cases[] = {
    {"sendfile", sendfile_, NULL}, {"splice", splice_, NULL}, {"tee", tee_, NULL}, {"proxy", proxy, NULL}, {0},
};
