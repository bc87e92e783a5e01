// A process that lives for a request or two: a batch job, a CGI script, what a supervisor starts for each connection.
//
//   short call PORT N            GET /hello/N at 127.0.0.1:PORT
//   short serve N                takes one connection from the listener that is descriptor 3, and answers its request
//   short twice PORT N PROGRAM   GET /hello/N, then goes on as `PROGRAM again FD N+1` with the same connection
//   short again FD N             GET /hello/N over that descriptor
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        _exit(2);
    return fd;
}

// Reads a message that ends with its head, or whose body has the announced length.
static void receive(int fd)
{
    char text[4096];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(fd, text + have, sizeof text - 1 - have);
        if (got <= 0)
            _exit(3);
        have += got;
        text[have] = 0;
        char *end = strstr(text, "\r\n\r\n");
        if (!end)
            continue;
        char *length = strcasestr(text, "content-length:");
        size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        if (have >= (size_t)(end + 4 - text) + body)
            return;
    }
}

static void get(int fd, long n)
{
    char text[128];
    int len = snprintf(text, sizeof text, "GET /hello/%ld HTTP/1.1\r\nHost: localhost\r\n\r\n", n);
    if (write(fd, text, len) != len)
        _exit(4);
    receive(fd);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "call")) {
        get(dial(atoi(argv[2])), atol(argv[3]));
    } else if (argc == 3 && !strcmp(argv[1], "serve")) {
        int fd = accept(3, NULL, NULL);
        receive(fd);
        char text[128];
        int len = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(argv[2]), argv[2]);
        if (write(fd, text, len) != len)
            _exit(4);
    } else if (argc == 5 && !strcmp(argv[1], "twice")) {
        int fd = dial(atoi(argv[2]));
        long n = atol(argv[3]);
        get(fd, n);
        char number[16], next[24];
        snprintf(number, sizeof number, "%d", fd);
        snprintf(next, sizeof next, "%ld", n + 1);
        setenv("OTEL_SERVICE_NAME", getenv("NEXT_NAME"), 1);
        execl(argv[4], argv[4], "again", number, next, (char *)NULL);
        _exit(5);
    } else if (argc == 4 && !strcmp(argv[1], "again")) {
        get(atoi(argv[2]), atol(argv[3]));
    } else {
        _exit(1);
    }
    _exit(0);
}
