/* How sockets come to be and which name they have: shared ports, name spaces, numbers used again, datagrams. */
#include "cases.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>

/* Two listeners on one port; the kernel spreads the clients. */
static void reuseport(const char *variant) {
    (void)variant;
    enum { LISTENERS = 3, CLIENTS = 24 };
    int listeners[LISTENERS], on = 1;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < LISTENERS; i++) {
        listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        MUST(setsockopt(listeners[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
        MUST(bind(listeners[i], (struct sockaddr *)&name, sizeof name) == 0 && listen(listeners[i], 64) == 0);
        socklen_t size = sizeof name;
        getsockname(listeners[i], (struct sockaddr *)&name, &size);
    }
    struct address address = {.size = sizeof name};
    memcpy(&address.storage, &name, sizeof name);
    for (int i = 0; i < CLIENTS; i++) {
        int client_fd = connected(&address), server_fd = -1;
        for (int j = 0; server_fd < 0; j++) server_fd = accept(listeners[j % LISTENERS], NULL, NULL);
        struct pair pair = {end_of(client_fd), end_of(server_fd)};
        round_trip(&pair.client, &pair.server);
        close_pair(&pair);
    }
}

/* A network name space of its own (network_namespaces(7)); needs root. */
static void netns(const char *variant) {
    MUST(unshare(CLONE_NEWNET) == 0);
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    MUST(ioctl(any, SIOCSIFFLAGS, &loopback) == 0);
    close(any);
    struct pair pair = connect_pair(family_named(variant));
    hold();
    for (int i = 0; i < 3; i++) round_trip(&pair.client, &pair.server);
    close_pair(&pair);
}

/* The same descriptor numbers, connection after connection. */
static void fd_reuse(const char *variant) {
    struct pair pair = {0};
    for (int i = 0; i < 200; i++) {
        int client = pair.client.fd;
        pair = connect_pair(family_named(variant));
        MUST(i == 0 || pair.client.fd == client);
        round_trip(&pair.client, &pair.server);
        close_pair(&pair);
    }
}

/* Several connections that are there before the tracer comes, if it holds them. */
static void old(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    round_trip(&pair.client, &pair.server);
    round_trip(&pair.client, &pair.server);
    struct pair next = connect_pair(family_named(variant));
    hold();
    for (int i = 0; i < 3; i++) round_trip(&next.client, &next.server);
    close_pair(&pair);
    close_pair(&next);
}

const struct test socket_cases[] = {
    {"reuseport", reuseport, NULL}, {"netns", netns, "v4 v6"}, {"fd_reuse", fd_reuse, "v4 unix socketpair"},
    {"old", old, "v4 unix socketpair"}, {0},
};
