/* What was moved over each end, in a memory file that children inherit. */
#include "cases.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { ENDS = 2048, MESSAGES = 65536 };
struct log {
    int ends, messages;
    struct {
        uint16_t family, lport, rport;
        int eof, connect;
        uint32_t position[2];
    } end[ENDS];
    struct {
        int end, direction, process, thread, where;
        uint32_t bytes;
    } message[MESSAGES];
};
static struct log *the_log;
static int file;

_Noreturn void die(const char *where, int line, const char *format, ...) {
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s:%d: ", where, line);
    vfprintf(stderr, format, list);
    fprintf(stderr, " (errno: %s)\n", strerror(error));
    va_end(list);
    _exit(1);
}

_Noreturn void lacking(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(77);
}

void log_attach(int fd) {
    file = fd;
    the_log = mmap(NULL, sizeof *the_log, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(the_log != MAP_FAILED);
}

void log_open(void) {
    int fd = (int)syscall(SYS_memfd_create, "cases", 0);
    MUST(fd >= 0 && ftruncate(fd, sizeof *the_log) == 0);
    log_attach(fd);
}

int log_fd(void) { return file; }

static uint16_t port(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

static int new_end(uint16_t family, uint16_t local, uint16_t remote) {
    int at = __atomic_fetch_add(&the_log->ends, 1, __ATOMIC_SEQ_CST);
    MUST(at < ENDS);
    the_log->end[at].family = family;
    the_log->end[at].lport = local;
    the_log->end[at].rport = remote;
    return at;
}

struct end end_of(int fd) {
    struct sockaddr_storage local = {0}, remote = {0};
    socklen_t size = sizeof local;
    MUST(getsockname(fd, (struct sockaddr *)&local, &size) == 0);
    size = sizeof remote;
    getpeername(fd, (struct sockaddr *)&remote, &size);
    return (struct end){fd, new_end(local.ss_family, port(&local), port(&remote))};
}

int own_thread(void) { return (int)syscall(SYS_gettid); }

void moved(struct end *end, enum direction direction, size_t bytes, int where) {
    moved_by(end, direction, bytes, where, own_thread());
}

void moved_by(struct end *end, enum direction direction, size_t bytes, int where, int thread) {
    int at = __atomic_fetch_add(&the_log->messages, 1, __ATOMIC_SEQ_CST);
    MUST(at < MESSAGES);
    the_log->end[end->log].position[direction] += (uint32_t)bytes;
    the_log->message[at].end = end->log;
    the_log->message[at].direction = direction;
    the_log->message[at].process = getpid();
    the_log->message[at].thread = thread;
    the_log->message[at].where = where;
    the_log->message[at].bytes = (uint32_t)bytes;
}

void ended(struct end *end) { the_log->end[end->log].eof++; }

void failed(const struct address *address, int error) {
    int at = new_end(address->any.sa_family, 0, port(&address->storage));
    the_log->end[at].connect = error;
}

static unsigned char pattern(uint32_t position) {
    return (unsigned char)((position / 4 * 2654435761u) >> (position % 4 * 8));
}

void fill(const struct end *end, void *bytes, size_t size) {
    uint32_t position = the_log->end[end->log].position[SENT];
    for (size_t i = 0; i < size; i++) ((unsigned char *)bytes)[i] = pattern(position + (uint32_t)i);
}

void check(const struct end *end, const void *bytes, size_t size) {
    uint32_t position = the_log->end[end->log].position[RECEIVED];
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)bytes)[i] != pattern(position + (uint32_t)i)) DIE("byte %zu of %zu is wrong", i, size);
}

static void print_messages(int end, int direction) {
    const char *separator = "";
    for (int i = 0; i < the_log->messages; i++)
        if (the_log->message[i].end == end && the_log->message[i].direction == direction) {
            printf("%s[%u,%d,%d,%d]", separator, the_log->message[i].bytes, the_log->message[i].process,
                   the_log->message[i].thread, the_log->message[i].where);
            separator = ",";
        }
}

void log_print(const char *name) {
    static char buffer[1 << 16];
    fflush(stdout);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    for (int i = 0; i < the_log->ends; i++) {
        printf("{\"case\":\"%s\",\"family\":%d,\"lport\":%d,\"rport\":%d,\"eof\":%d,\"connect\":%d,\"sent\":[", name,
               the_log->end[i].family, the_log->end[i].lport, the_log->end[i].rport, the_log->end[i].eof,
               the_log->end[i].connect);
        print_messages(i, SENT);
        printf("],\"received\":[");
        print_messages(i, RECEIVED);
        printf("]}\n");
    }
    fflush(stdout);
}
