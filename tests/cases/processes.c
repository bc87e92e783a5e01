/* Sockets that change hands between processes and threads. */
#include "cases.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static void serve_one(void *server) { receive_bytes(server, 100), send_bytes(server, 200); }

/* The parent accepts, a child serves. */
static void fork_(const char *variant) {
    struct pair pair = connect_pair(family_named(variant));
    hold();
    for (int i = 0; i < 3; i++) {
        pid_t child = start(serve_one, &pair.server);
        send_bytes(&pair.client, 100);
        receive_bytes(&pair.client, 200);
        join(child);
    }
    close_pair(&pair);
}

/* Children that were forked before they accept from one listener. */
static void accept_and_serve(void *listener) {
    for (int i = 0; i < 5; i++) {
        struct end server = end_of(accepted(*(int *)listener));
        serve_one(&server);
        close(server.fd);
    }
}

static void prefork(const char *variant) {
    (void)variant;
    enum { CHILDREN = 4 };
    struct address address;
    int listener = listening(V4, &address);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) children[i] = start(accept_and_serve, &listener);
    for (int i = 0; i < CHILDREN * 5; i++) {
        struct end client = end_of(connected(&address));
        send_bytes(&client, 100);
        receive_bytes(&client, 200);
        close(client.fd);
    }
    for (int i = 0; i < CHILDREN; i++) join(children[i]);
}

/* A descriptor travels to another process (unix(7): SCM_RIGHTS). */
struct passing {
    int channel;
    struct end end;
};

static void take_and_serve(void *argument) {
    struct passing *passing = argument;
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    close(passing->end.fd);
    struct end channel = end_of(passing->channel);
    MUST(recvmsg(passing->channel, &message, 0) == 1);
    moved(&channel, RECEIVED, 1, 1);
    memcpy(&passing->end.fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    serve_one(&passing->end);
}

static void scm_rights(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    int both[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, both) == 0);
    hold();
    struct passing passing = {both[1], pair.server};
    pid_t child = start(take_and_serve, &passing);
    struct end channel = end_of(both[0]);
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    fill(&channel, &byte, 1);
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &pair.server.fd, sizeof(int));
    MUST(sendmsg(both[0], &message, 0) == 1);
    moved(&channel, SENT, 1, 1);
    close(pair.server.fd);
    send_bytes(&pair.client, 100);
    receive_bytes(&pair.client, 200);
    join(child);
}

/* One socket under several descriptors. */
static void dup_(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    int fd = pair.client.fd;
    hold();
    int copies[] = {fd, dup(fd), dup2(fd, 300), fcntl(fd, F_DUPFD, 100)};
    for (int i = 0; i < 4; i++) {
        pair.client.fd = copies[i];
        round_trip(&pair.client, &pair.server);
    }
    for (int i = 0; i < 3; i++) close(copies[i]); /* the last one lives on */
    round_trip(&pair.client, &pair.server);
    close_pair(&pair);
}

/* A connection that outlives the program which made it. */
static void exec_(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    hold();
    round_trip(&pair.client, &pair.server);
    send_bytes(&pair.client, 60); /* the first part of a request */
    char numbers[5][16];
    int values[] = {log_fd(), pair.client.fd, pair.client.log, pair.server.fd, pair.server.log};
    for (int i = 0; i < 5; i++) snprintf(numbers[i], sizeof numbers[i], "%d", values[i]);
    execl("/proc/self/exe", "cases", "--executed", numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], NULL);
    DIE("exec");
}

void executed(char **arguments) {
    log_attach(atoi(arguments[0]));
    struct end client = {atoi(arguments[1]), atoi(arguments[2])}, server = {atoi(arguments[3]), atoi(arguments[4])};
    send_bytes(&client, 40);
    MUST(recv(server.fd, (char[100]){0}, 100, MSG_WAITALL) == 100);
    moved(&server, RECEIVED, 100, 1);
    send_bytes(&server, 200);
    receive_bytes(&client, 200);
    close(client.fd);
    close(server.fd);
    log_print("exec");
}

/* Threads that end between a request and its response, and one that is ended inside a call. */
static void *send_and_end(void *end) { return send_bytes(end, 100), NULL; }
static void *receive_and_end(void *end) { return receive_bytes(end, 100), NULL; }
static void *block(void *end) { return (void)!read(((struct end *)end)->fd, (char[1]){0}, 1), NULL; }

static void threads(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    hold();
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, send_and_end, &pair.client) == 0 && pthread_join(thread, NULL) == 0);
        MUST(pthread_create(&thread, NULL, receive_and_end, &pair.server) == 0 && pthread_join(thread, NULL) == 0);
        send_bytes(&pair.server, 200);
        receive_bytes(&pair.client, 200);
    }
    pthread_t blocked;
    MUST(pthread_create(&blocked, NULL, block, &pair.server) == 0);
    usleep(20000);
    MUST(pthread_cancel(blocked) == 0 && pthread_join(blocked, NULL) == 0);
    round_trip(&pair.client, &pair.server);
    close_pair(&pair);
}

/* While one thread waits in recv(), another puts a second socket in the place of the descriptor. What then arrives on the
 * first was not moved over the second. */
struct race {
    struct end *end;
    atomic_int thread;
};

static void *wait_for_bytes(void *argument) {
    struct race *race = argument;
    race->thread = own_thread();
    receive_bytes(race->end, 100);
    return NULL;
}

static void replaced_fd(const char *variant) {
    (void)variant;
    struct pair first = connect_pair(V4), second = connect_pair(V4);
    hold();
    round_trip(&first.client, &first.server);
    round_trip(&second.client, &second.server);
    struct race race = {&first.server, 0};
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, wait_for_bytes, &race) == 0);
    while (!race.thread) usleep(1000);
    until_asleep(race.thread);
    int kept = dup(first.server.fd);
    MUST(kept >= 0 && dup2(second.server.fd, first.server.fd) == first.server.fd);
    send_bytes(&first.client, 100);
    MUST(pthread_join(thread, NULL) == 0);
    first.server.fd = kept;
    round_trip(&first.client, &first.server);
    round_trip(&second.client, &second.server);
    close_pair(&first);
    close_pair(&second);
}

const struct test process_cases[] = {
    {"fork", fork_, "v4 unix"}, {"prefork", prefork, NULL}, {"scm_rights", scm_rights, NULL}, {"dup", dup_, NULL},
    {"exec", exec_, NULL}, {"threads", threads, NULL}, {"replaced_fd", replaced_fd, NULL}, {0},
};
