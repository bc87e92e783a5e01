/* Connected sockets of every family, and children. */
#include "cases.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/un.h>
#include <sys/wait.h>

const char *const family_names[] = {"v4", "v6", "mapped", "unix", "abstract", "seqpacket", "socketpair"};

enum family family_named(const char *name) {
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(name, family_names[i])) return (enum family)i;
    return V4;
}

static void unix_address(struct address *address, int is_abstract) {
    struct sockaddr_un *path = (struct sockaddr_un *)&address->any;
    path->sun_family = AF_UNIX;
    int size = snprintf(path->sun_path, sizeof path->sun_path, "%s/cases-%d.sock", is_abstract ? "@" : "/tmp", (int)getpid());
    if (is_abstract) path->sun_path[0] = 0;
    address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size);
}

static void internet_address(struct address *address, enum family family) {
    memset(address, 0, sizeof *address);
    if (family == V4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&address->any;
        v4->sin_family = AF_INET;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address->size = sizeof *v4;
    } else {
        /* A dual-stack listener takes clients of both families (RFC 3493 section 3.7). */
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->any;
        v6->sin6_family = AF_INET6;
        v6->sin6_addr = family == V6 ? (struct in6_addr)IN6ADDR_LOOPBACK_INIT : (struct in6_addr)IN6ADDR_ANY_INIT;
        address->size = sizeof *v6;
    }
}

int listening(enum family family, struct address *address) {
    memset(address, 0, sizeof *address);
    if (family >= UNIX)
        unix_address(address, family != UNIX);
    else
        internet_address(address, family);
    int fd = socket(address->any.sa_family, family == SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM, 0);
    MUST(fd >= 0 && bind(fd, &address->any, address->size) == 0 && listen(fd, 64) == 0);
    if (family < UNIX) MUST(getsockname(fd, &address->any, &address->size) == 0);
    if (family == MAPPED) {
        in_port_t port = ((struct sockaddr_in6 *)&address->any)->sin6_port;
        internet_address(address, V4);
        ((struct sockaddr_in *)&address->any)->sin_port = port;
    }
    return fd;
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* others than TCP refuse */
}

int connected(const struct address *address) {
    int fd = socket(address->any.sa_family, SOCK_STREAM, 0);
    MUST(fd >= 0);
    MUST(connect(fd, &address->any, address->size) == 0);
    no_delay(fd);
    return fd;
}

int accepted(int listener) {
    int fd = accept(listener, NULL, NULL);
    MUST(fd >= 0);
    no_delay(fd);
    return fd;
}

struct pair connect_pair(enum family family) {
    int client, server;
    if (family == SOCKETPAIR) {
        int both[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, both) == 0);
        client = both[0];
        server = both[1];
    } else {
        struct address address;
        int listener = listening(family, &address);
        if (family == SEQPACKET) {
            client = socket(AF_UNIX, SOCK_SEQPACKET, 0);
            MUST(client >= 0 && connect(client, &address.any, address.size) == 0);
        } else
            client = connected(&address);
        server = accepted(listener);
        close(listener);
        if (family == UNIX) unlink(((struct sockaddr_un *)&address.any)->sun_path);
    }
    return (struct pair){end_of(client), end_of(server)};
}

void close_pair(struct pair *pair) {
    close(pair->client.fd);
    close(pair->server.fd);
}

void hold(void) {
    if (!getenv("CASES_HOLD")) return;
    unsetenv("CASES_HOLD");
    char byte;
    printf("ready\n");
    while (read(0, &byte, 1) == 1 && byte != '\n') {}
}

static char buffer[1 << 20];

void send_bytes(struct end *end, size_t size) {
    fill(end, buffer, size);
    MUST(write(end->fd, buffer, size) == (ssize_t)size);
    moved(end, SENT, size, 1);
}

void receive_bytes(struct end *end, size_t size) {
    MUST(read(end->fd, buffer, size) == (ssize_t)size);
    check(end, buffer, size);
    moved(end, RECEIVED, size, 1);
}

void round_trip(struct end *client, struct end *server) {
    send_bytes(client, 100);
    receive_bytes(server, 100);
    send_bytes(server, 200);
    receive_bytes(client, 200);
}

void until_asleep(int thread) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    while (state != 'S') {
        usleep(2000);
        FILE *file = fopen(path, "r");
        MUST(file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        fclose(file);
    }
}

pid_t start(void (*body)(void *), void *argument) {
    fflush(stdout);
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        body(argument);
        _exit(0);
    }
    return child;
}

void join(pid_t child) {
    int status;
    MUST(waitpid(child, &status, 0) == child);
    if (status != 0) DIE("a child ended with status %x", status);
}
