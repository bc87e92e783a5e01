/* What the cases share: pairs of connected sockets, and the log of what was moved over each. See main.c. */
#pragma once
#define _GNU_SOURCE 1
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Ends the program with a message: a case whose own calls fail says nothing about the tracer. */
#define DIE(...) die(__FILE__, __LINE__, __VA_ARGS__)
#define MUST(condition) \
    do { \
        if (!(condition)) DIE("%s", #condition); \
    } while (0)
_Noreturn void die(const char *file, int line, const char *format, ...);
/* Ends it where the kernel has no such thing, as `errno` says: no failure, but nothing is moved. */
_Noreturn void lacking(const char *what);

/* One end of a connection: its descriptor, and its number in the log. */
struct end {
    int fd, log;
};
struct pair {
    struct end client, server;
};

/* How two sockets are connected. The last is not connected to itself by an address but made by socketpair(). */
enum family { V4, V6, MAPPED, UNIX, ABSTRACT, SEQPACKET, SOCKETPAIR };
extern const char *const family_names[];
enum { FAMILIES = SOCKETPAIR + 1 };

/* Sockets. `listening` fills the address that clients connect to. */
struct address {
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
    };
    socklen_t size;
};
int listening(enum family family, struct address *address);
int connected(const struct address *address);
int accepted(int listener);
struct pair connect_pair(enum family family);
void close_pair(struct pair *pair);

/* Waits for the test if it asked for that (`--hold`): connections made before are older than the tracer. */
void hold(void);

/* The log, in memory that forked and executed children share. */
enum direction { SENT, RECEIVED };
void log_open(void);
int log_fd(void);
void log_attach(int fd);
/* Gives a connected descriptor its place in the log. */
struct end end_of(int fd);
/* A message: so many bytes, and where they were: in memory of this process, elsewhere, or taken out of a socket by splice(); in
 * memory of this process but moved by a ring of io_uring, or in memory that is registered with that ring; moved by one of
 * several of its requests that waited for it. */
enum { ELSEWHERE = 0, IN_MEMORY = 1, SPLICED = 2, BY_RING = 3, REGISTERED = 4, AT_ONCE = 5 };
void moved(struct end *end, enum direction direction, size_t bytes, int where);
/* The same by another thread; 0 if it is not known which one of the process. */
void moved_by(struct end *end, enum direction direction, size_t bytes, int where, int thread);
int own_thread(void);
/* A receive that returned 0, a reset. */
void ended(struct end *end);
/* A connect that failed with an error number. */
void failed(const struct address *address, int error);
void log_print(const char *name);

/* Every byte of a stream is known by its position: `fill` writes what comes next on that end, `check` compares. */
void fill(const struct end *end, void *bytes, size_t size);
void check(const struct end *end, const void *bytes, size_t size);

/* A whole message by write() and read(), logged. */
void send_bytes(struct end *end, size_t size);
void receive_bytes(struct end *end, size_t size);
/* A request of 100 bytes and an answer of 200. */
void round_trip(struct end *client, struct end *server);

/* Milliseconds after which something hangs, however busy the machine is. */
enum { LONG = 120000 };
/* Waits until another thread of this process sleeps in a call. */
void until_asleep(int thread);

/* Starts a child that runs `body`, and waits for its success. */
pid_t start(void (*body)(void *), void *argument);
void join(pid_t child);

struct test {
    const char *name;
    void (*run)(const char *variant);
    /* Variants, separated by blanks: each is a run of its own. NULL: one run. */
    const char *variants;
};
extern const struct test call_cases[], copy_cases[], buffer_cases[], process_cases[], socket_cases[], ending_cases[], ring_cases[];
enum family family_named(const char *name);
