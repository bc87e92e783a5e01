/* Bytes that rings of io_uring move (io_uring(7)): by the thread that submits, later in its task work, in a worker thread, and in the
 * kernel's polling thread. Raw system calls: the rings of the oldest kernels of the matrix have no library. */
#include "cases.h"

#include <linux/io_uring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { ENTRIES = 16, SIZE = 4096, BUFFERS = 8 };

static char outgoing[SIZE], incoming[SIZE], given[BUFFERS][SIZE];

struct ring {
    int fd;
    unsigned *submitted, *submit_mask, *submit_flags, *array;
    unsigned *reaped, *completed, *complete_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *completions;
};

static int ring_setup(unsigned entries, struct io_uring_params *parameters) {
    return (int)syscall(__NR_io_uring_setup, entries, parameters);
}

static int ring_register(struct ring *ring, unsigned what, void *argument, unsigned count) {
    return (int)syscall(__NR_io_uring_register, ring->fd, what, argument, count);
}

/* Takes up `count` entries and waits for `wanted` completions; the kernel may be interrupted by its own task work. */
static void enter(struct ring *ring, unsigned count, unsigned wanted, unsigned flags) {
    for (;;) {
        long taken = syscall(__NR_io_uring_enter, ring->fd, count, wanted, flags, NULL, 0);
        if (taken >= 0) return;
        if (errno != EINTR) DIE("io_uring_enter");
        count = 0;
    }
}

static void *area(struct ring *ring, size_t size, off_t offset) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, offset);
    MUST(at != MAP_FAILED);
    return at;
}

static struct ring ring_open(unsigned flags) {
    struct io_uring_params parameters = {.flags = flags, .sq_thread_idle = 20};
    struct ring ring = {.fd = ring_setup(ENTRIES, &parameters)};
    if (ring.fd < 0) lacking("io_uring_setup");
    char *submission = area(&ring, parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *completion =
        area(&ring, parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring.submitted = (unsigned *)(submission + parameters.sq_off.tail);
    ring.submit_mask = (unsigned *)(submission + parameters.sq_off.ring_mask);
    ring.submit_flags = (unsigned *)(submission + parameters.sq_off.flags);
    ring.array = (unsigned *)(submission + parameters.sq_off.array);
    ring.reaped = (unsigned *)(completion + parameters.cq_off.head);
    ring.completed = (unsigned *)(completion + parameters.cq_off.tail);
    ring.complete_mask = (unsigned *)(completion + parameters.cq_off.ring_mask);
    ring.completions = (struct io_uring_cqe *)(completion + parameters.cq_off.cqes);
    ring.entries = area(&ring, parameters.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    return ring;
}

/* Hands an entry to the kernel, which does at once what it can do at once. */
static void submit(struct ring *ring, struct io_uring_sqe entry) {
    unsigned at = *ring->submitted & *ring->submit_mask;
    ring->entries[at] = entry;
    ring->array[at] = at;
    __atomic_store_n(ring->submitted, *ring->submitted + 1, __ATOMIC_RELEASE);
    enter(ring, 1, 0, 0);
}

/* The same where the kernel polls: it is woken only if it has gone to sleep. */
static void submit_to_poller(struct ring *ring, struct io_uring_sqe entry) {
    unsigned at = *ring->submitted & *ring->submit_mask;
    ring->entries[at] = entry;
    ring->array[at] = at;
    __atomic_store_n(ring->submitted, *ring->submitted + 1, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(ring->submit_flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP) enter(ring, 1, 0, IORING_ENTER_SQ_WAKEUP);
}

/* A completion, without what may follow it. */
struct done {
    uint64_t mark;
    int res;
    unsigned flags;
};

static struct done reap(struct ring *ring) {
    while (__atomic_load_n(ring->completed, __ATOMIC_ACQUIRE) == *ring->reaped) enter(ring, 0, 1, IORING_ENTER_GETEVENTS);
    const struct io_uring_cqe *at = &ring->completions[*ring->reaped & *ring->complete_mask];
    struct done done = {at->user_data, at->res, at->flags};
    __atomic_store_n(ring->reaped, *ring->reaped + 1, __ATOMIC_RELEASE);
    return done;
}

/* The result of the entry that was marked so; what else completes meanwhile is kept. */
enum { SEND = 1, RECEIVE = 2, OTHER = 3, MARKS };
struct results {
    struct done of[MARKS];
    int there[MARKS];
};

static struct done result(struct ring *ring, struct results *results, uint64_t mark) {
    while (!results->there[mark]) {
        struct done done = reap(ring);
        MUST(done.mark < MARKS);
        results->of[done.mark] = done;
        results->there[done.mark] = 1;
    }
    results->there[mark] = 0;
    return results->of[mark];
}

/* How an entry names the bytes. */
struct means {
    struct iovec parts[3];
    struct msghdr message;
};

static void split(struct means *means, char *bytes, size_t size) {
    means->parts[0] = (struct iovec){bytes, size / 3};
    means->parts[1] = (struct iovec){bytes + size / 3, 0};
    means->parts[2] = (struct iovec){bytes + size / 3, size - size / 3};
    means->message = (struct msghdr){.msg_iov = means->parts, .msg_iovlen = 3};
}

static struct io_uring_sqe entry_of(int code, int fd, void *bytes, size_t size, uint64_t mark) {
    return (struct io_uring_sqe){
        .opcode = (uint8_t)code, .fd = fd, .addr = (uintptr_t)bytes, .len = (uint32_t)size, .user_data = mark};
}

static struct io_uring_sqe prepared(int code, int fd, struct means *means, char *bytes, size_t size, uint64_t mark) {
    switch (code) {
        case IORING_OP_WRITEV:
        case IORING_OP_READV: split(means, bytes, size); return entry_of(code, fd, means->parts, 3, mark);
        case IORING_OP_SENDMSG:
        case IORING_OP_RECVMSG: split(means, bytes, size); return entry_of(code, fd, &means->message, 1, mark);
        default: return entry_of(code, fd, bytes, size, mark);
    }
}

static const struct {
    const char *name;
    int send, receive, where;
} kinds[] = {
    {"send-recv", IORING_OP_SEND, IORING_OP_RECV, BY_RING},
    {"write-read", IORING_OP_WRITE, IORING_OP_READ, BY_RING},
    {"writev-readv", IORING_OP_WRITEV, IORING_OP_READV, BY_RING},
    {"sendmsg-recvmsg", IORING_OP_SENDMSG, IORING_OP_RECVMSG, BY_RING},
    {"fixed", IORING_OP_WRITE_FIXED, IORING_OP_READ_FIXED, REGISTERED},
};

static int kind_named(const char *name) {
    for (int i = 0; i < (int)(sizeof kinds / sizeof *kinds); i++)
        if (!strcmp(name, kinds[i].name)) return i;
    return 0;
}

struct manner {
    int kind;
    /* IOSQE_* of every entry. */
    uint8_t flags;
    /* Whether the receive is there before the message is. */
    int waits;
    /* The thread that moves the bytes, if it is known. */
    int thread;
    void (*submit)(struct ring *, struct io_uring_sqe);
};

static void one_way(struct ring *ring, const struct manner *manner, struct end *from, struct end *to, int files[2], size_t size) {
    struct results results = {0};
    struct means there, here;
    int kind = manner->kind;
    fill(from, outgoing, size);
    memset(incoming, 0, size);
    struct io_uring_sqe send = prepared(kinds[kind].send, files[0], &there, outgoing, size, SEND);
    struct io_uring_sqe receive = prepared(kinds[kind].receive, files[1], &here, incoming, size, RECEIVE);
    receive.buf_index = kinds[kind].where == REGISTERED;
    send.flags = receive.flags = manner->flags;
    if (manner->waits) manner->submit(ring, receive);
    manner->submit(ring, send);
    int sent = result(ring, &results, SEND).res;
    if (sent != (int)size) DIE("%s: sent %d of %zu", kinds[kind].name, sent, size);
    moved_by(from, SENT, size, kinds[kind].where, manner->thread);
    if (!manner->waits) manner->submit(ring, receive);
    int received = result(ring, &results, RECEIVE).res;
    if (received != (int)size) DIE("%s: received %d of %zu", kinds[kind].name, received, size);
    check(to, incoming, size);
    moved_by(to, RECEIVED, size, kinds[kind].where, manner->thread);
}

static void there_and_back(struct ring *ring, struct manner *manner, enum family family, int fixed_files) {
    struct pair pair = connect_pair(family);
    int files[2] = {pair.client.fd, pair.server.fd}, back[2] = {pair.server.fd, pair.client.fd};
    if (kinds[manner->kind].where == REGISTERED) {
        struct iovec memory[2] = {{outgoing, sizeof outgoing}, {incoming, sizeof incoming}};
        if (ring_register(ring, IORING_REGISTER_BUFFERS, memory, 2) != 0) lacking("IORING_REGISTER_BUFFERS");
    }
    if (fixed_files) {
        if (ring_register(ring, IORING_REGISTER_FILES, files, 2) != 0) lacking("IORING_REGISTER_FILES");
        files[0] = back[1] = 0;
        files[1] = back[0] = 1;
        manner->flags |= IOSQE_FIXED_FILE;
    }
    hold();
    for (int i = 0; i < 4; i++) {
        manner->waits = i & 1;
        one_way(ring, manner, &pair.client, &pair.server, files, 300 + (size_t)i);
        one_way(ring, manner, &pair.server, &pair.client, back, 1000 + (size_t)i);
    }
    close(ring->fd);
    close_pair(&pair);
}

/* Each pair of operations, with the message there before the receive, and after it. */
static void ring_(const char *variant) {
    const char *family = strchr(variant, '/');
    char name[32] = {0};
    memcpy(name, variant, family ? (size_t)(family - variant) : strlen(variant));
    struct ring ring = ring_open(0);
    struct manner manner = {.kind = kind_named(name), .thread = own_thread(), .submit = submit};
    there_and_back(&ring, &manner, family ? family_named(family + 1) : V4, 0);
}

/* Operations that the program wants in a worker thread from the start (IOSQE_ASYNC). */
static void ring_worker(const char *variant) {
    struct ring ring = ring_open(0);
    struct manner manner = {.kind = kind_named(variant), .flags = IOSQE_ASYNC, .submit = submit};
    there_and_back(&ring, &manner, V4, 0);
}

/* The kernel polls the ring: no system call submits. Before Linux 5.11 it takes registered files only. */
static void ring_polled(const char *variant) {
    struct ring ring = ring_open(IORING_SETUP_SQPOLL);
    struct manner manner = {.kind = kind_named(variant), .submit = submit_to_poller};
    there_and_back(&ring, &manner, V4, 1);
}

/* Receives into a buffer that the kernel chooses: one of a list (IORING_OP_PROVIDE_BUFFERS), or of a ring of its own. */
static void provide_list(struct ring *ring) {
    struct results results = {0};
    struct io_uring_sqe entry = entry_of(IORING_OP_PROVIDE_BUFFERS, BUFFERS, given, SIZE, OTHER);
    entry.buf_group = 1;
    submit(ring, entry);
    int provided = result(ring, &results, OTHER).res;
    errno = -provided;
    if (provided < 0) lacking("IORING_OP_PROVIDE_BUFFERS");
}

static void provide_ring(struct ring *ring) {
    static struct io_uring_buf_ring *buffers;
    buffers = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    MUST(buffers != MAP_FAILED);
    struct io_uring_buf_reg registration = {.ring_addr = (uintptr_t)buffers, .ring_entries = BUFFERS, .bgid = 1};
    if (ring_register(ring, IORING_REGISTER_PBUF_RING, &registration, 1) != 0) lacking("IORING_REGISTER_PBUF_RING");
    for (int i = 0; i < BUFFERS; i++) {
        struct io_uring_buf *buffer = &buffers->bufs[i];
        buffer->addr = (uintptr_t)given[i];
        buffer->len = SIZE;
        buffer->bid = (uint16_t)i;
    }
    __atomic_store_n(&buffers->tail, BUFFERS, __ATOMIC_RELEASE);
}

static void receive_chosen(struct ring *ring, struct results *results, struct end *to, size_t size, int is_last) {
    struct done completion = result(ring, results, RECEIVE);
    errno = -completion.res;
    if (completion.res == -EINVAL) lacking("IORING_RECV_MULTISHOT");
    if (completion.res != (int)size) DIE("received %d of %zu", completion.res, size);
    if (!is_last && !(completion.flags & IORING_CQE_F_MORE)) lacking("IORING_RECV_MULTISHOT: it receives but once");
    MUST(completion.flags & IORING_CQE_F_BUFFER && (completion.flags & IORING_CQE_F_MORE ? 0 : 1) == is_last);
    check(to, given[completion.flags >> IORING_CQE_BUFFER_SHIFT], size);
    moved_by(to, RECEIVED, size, BY_RING, own_thread());
}

static void chosen(void (*provide)(struct ring *)) {
    struct pair pair = connect_pair(V4);
    struct ring ring = ring_open(0);
    struct results results = {0};
    provide(&ring);
    hold();
    for (int i = 0; i < 4; i++) {
        size_t size = 400 + (size_t)i;
        struct io_uring_sqe receive = entry_of(IORING_OP_RECV, pair.server.fd, NULL, SIZE, RECEIVE);
        receive.flags = IOSQE_BUFFER_SELECT;
        receive.buf_group = 1;
        if (i & 1) submit(&ring, receive);
        send_bytes(&pair.client, size);
        if (!(i & 1)) submit(&ring, receive);
        receive_chosen(&ring, &results, &pair.server, size, 1);
    }
    close(ring.fd);
    close_pair(&pair);
}

static void ring_provided(const char *variant) { (void)variant, chosen(provide_list); }
static void ring_buffers(const char *variant) { (void)variant, chosen(provide_ring); }

/* One entry that receives every message that comes. */
static void ring_multishot(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    struct ring ring = ring_open(0);
    struct results results = {0};
    provide_list(&ring);
    struct io_uring_sqe receive = entry_of(IORING_OP_RECV, pair.server.fd, NULL, 0, RECEIVE);
    receive.flags = IOSQE_BUFFER_SELECT;
    receive.buf_group = 1;
    receive.ioprio = IORING_RECV_MULTISHOT;
    hold();
    submit(&ring, receive);
    for (int i = 0; i < 5; i++) {
        size_t size = 500 + (size_t)i;
        send_bytes(&pair.client, size);
        receive_chosen(&ring, &results, &pair.server, size, 0);
    }
    struct io_uring_sqe cancel = entry_of(IORING_OP_ASYNC_CANCEL, -1, (void *)(uintptr_t)RECEIVE, 0, OTHER);
    submit(&ring, cancel);
    MUST(result(&ring, &results, RECEIVE).res == -ECANCELED);
    MUST(result(&ring, &results, OTHER).res == 0);
    close(ring.fd);
    close_pair(&pair);
}

/* A receive that goes on while its thread is in another call, which names other bytes: those are none of the message's. */
struct stranger {
    struct pair *pair;
    int pipe[2];
    struct ring *ring;
    int reader;
};

static void *sends_then_writes(void *argument) {
    struct stranger *stranger = argument;
    char bytes[600];
    for (int i = 0; i < 3; i++) {
        until_asleep(stranger->reader);
        send_bytes(&stranger->pair->client, 600);
        /* Received before anything is in the pipe, so in that read. */
        while (__atomic_load_n(stranger->ring->completed, __ATOMIC_ACQUIRE) == *stranger->ring->reaped) usleep(1000);
        memset(bytes, 'x', sizeof bytes);
        MUST(write(stranger->pipe[1], bytes, sizeof bytes) == sizeof bytes);
        /* Until that is taken. */
        while (__atomic_load_n(stranger->ring->completed, __ATOMIC_ACQUIRE) != *stranger->ring->reaped) usleep(1000);
    }
    return NULL;
}

static void ring_meanwhile(const char *variant) {
    (void)variant;
    struct pair pair = connect_pair(V4);
    struct ring ring = ring_open(0);
    struct results results = {0};
    struct stranger stranger = {.pair = &pair, .ring = &ring, .reader = own_thread()};
    char strange[600];
    pthread_t thread;
    MUST(pipe(stranger.pipe) == 0);
    hold();
    MUST(pthread_create(&thread, NULL, sends_then_writes, &stranger) == 0);
    for (int i = 0; i < 3; i++) {
        memset(strange, 's', sizeof strange);
        submit(&ring, entry_of(IORING_OP_RECV, pair.server.fd, incoming, 600, RECEIVE));
        MUST(read(stranger.pipe[0], strange, sizeof strange) == sizeof strange);
        MUST(result(&ring, &results, RECEIVE).res == 600);
        check(&pair.server, incoming, 600);
        moved_by(&pair.server, RECEIVED, 600, BY_RING, own_thread());
    }
    pthread_join(thread, NULL);
    close(ring.fd);
    close_pair(&pair);
}

/* Several requests for one socket in the same direction. Two that wait: whichever goes on first takes the message, and the bytes of the first
 * message are not told, or told rightly. */
static void receives_that_wait(void) {
    struct pair pair = connect_pair(V4);
    struct ring ring = ring_open(0);
    hold();
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 2; j++)
            submit(&ring, entry_of(IORING_OP_RECV, pair.server.fd, given[j], SIZE, (uint64_t)j));
        for (int j = 0; j < 2; j++) {
            size_t size = 700 + (size_t)(2 * i + j);
            send_bytes(&pair.client, size);
            struct done done = reap(&ring);
            MUST(done.mark < 2 && done.res == (int)size);
            check(&pair.server, given[done.mark], size);
            moved_by(&pair.server, RECEIVED, size, AT_ONCE, own_thread());
        }
    }
    close(ring.fd);
    close_pair(&pair);
}

/* Three that are handed over by one call, and done one after the other: in a chain, or just so. */
static void sends_at_once(unsigned char flags) {
    enum { TOGETHER = 3, PART = 800 };
    struct pair pair = connect_pair(V4);
    struct ring ring = ring_open(0);
    hold();
    for (int i = 0; i < 3; i++) {
        for (unsigned j = 0; j < TOGETHER; j++) {
            unsigned at = (*ring.submitted + j) & *ring.submit_mask;
            size_t size = PART + j;
            fill(&pair.client, given[j], size);
            ring.entries[at] = entry_of(IORING_OP_SEND, pair.client.fd, given[j], size, j);
            ring.entries[at].flags = j + 1 < TOGETHER ? flags : 0;
            ring.array[at] = at;
            moved_by(&pair.client, SENT, size, BY_RING, own_thread());
        }
        __atomic_store_n(ring.submitted, *ring.submitted + TOGETHER, __ATOMIC_RELEASE);
        enter(&ring, TOGETHER, TOGETHER, IORING_ENTER_GETEVENTS);
        for (int j = 0; j < TOGETHER; j++) {
            struct done done = reap(&ring);
            MUST(done.res == (int)(PART + done.mark));
        }
        receive_bytes(&pair.server, TOGETHER * PART + 3);
    }
    close(ring.fd);
    close_pair(&pair);
}

static void ring_several(const char *variant) {
    if (!strcmp(variant, "waiting")) receives_that_wait();
    else sends_at_once(!strcmp(variant, "chain") ? IOSQE_IO_LINK : 0);
}

const struct test ring_cases[] = {
    {"ring", ring_, "send-recv write-read writev-readv sendmsg-recvmsg send-recv/unix sendmsg-recvmsg/v6"},
    {"ring_fixed", ring_, "fixed"},
    {"ring_worker", ring_worker, "send-recv writev-readv"},
    {"ring_polled", ring_polled, "send-recv sendmsg-recvmsg"},
    {"ring_provided", ring_provided, NULL},
    {"ring_buffers", ring_buffers, NULL},
    {"ring_multishot", ring_multishot, NULL},
    {"ring_meanwhile", ring_meanwhile, NULL},
    {"ring_several", ring_several, "waiting chain together"},
    {0},
};
