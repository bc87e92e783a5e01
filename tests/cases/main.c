/* Moves bytes over sockets in every way there is, one case at a time, and prints what it did.
 *
 *   cases list                 every case, a line each: its name, then its variants
 *   cases NAME [VARIANT]       runs one; prints one JSON object for each end of a connection
 *   cases --hold NAME ...      connects, prints "ready", and moves bytes only when a line comes in
 *
 * An end: {"case", "family", "lport", "rport", "sent": [...], "received": [...], "eof": n, "connect": errno}. A message:
 * [bytes, process, thread, where the bytes were: see cases.h]. The judge looks for a connection that
 * moved the same messages, each seen once. A kernel that lacks what a case needs is told on standard error, with the exit code 77.
 * It needs no file but itself, so that it runs in a bare guest as well:
 *
 *   cc -std=gnu11 -O1 -static -pthread -o cases tests/cases/[a-z]*.c        (-m32 for a 32-bit one) */
#include "cases.h"

static const struct test *const all[] = {call_cases, copy_cases, buffer_cases, process_cases, socket_cases, ending_cases,
                                        ring_cases};
enum { SUBJECTS = sizeof all / sizeof *all };

static void list(void) {
    for (int i = 0; i < SUBJECTS; i++)
        for (const struct test *test = all[i]; test->name; test++)
            printf("%s%s%s\n", test->name, test->variants ? " " : "", test->variants ? test->variants : "");
}

void executed(char **arguments);

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count > 1 && !strcmp(arguments[1], "list")) {
        list();
        return 0;
    }
    if (count > 1 && !strcmp(arguments[1], "--executed")) {
        executed(arguments + 2);
        return 0;
    }
    if (count > 1 && !strcmp(arguments[1], "--hold")) {
        setenv("CASES_HOLD", "1", 1);
        arguments++;
        count--;
    }
    for (int i = 0; count > 1 && i < SUBJECTS; i++)
        for (const struct test *test = all[i]; test->name; test++)
            if (!strcmp(test->name, arguments[1])) {
                log_open();
                test->run(count > 2 ? arguments[2] : "");
                log_print(test->name);
                return 0;
            }
    fprintf(stderr, "usage: cases list | cases [--hold] NAME [VARIANT]\n");
    return 2;
}
