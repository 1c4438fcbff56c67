/* What the C tests say things with. A check that fails ends the program with 1. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned int checks;

/* A call that succeeds; its value. */
#define OK(expr) (errno = 0, check_ok((long long)(expr), #expr, __LINE__))
/* A call that returns a negative number, with that errno; its value. */
#define FAILS(code, expr) (errno = 0, check_fails((code), (long long)(expr), #expr, __LINE__))
/* What a function returned last, a negative number, with that errno. */
#define FAILED(code, function, result) check_fails((code), (long long)(result), #function, __LINE__)
/* A call that returns 0 and says by errno what was not done. */
#define SETS(code, expr) (errno = 0, check_sets((code), (long long)(expr), #expr, __LINE__))
/* Two numbers that are equal. */
#define SAME(expected, expr) check_same((long long)(expected), (long long)(expr), #expr, __LINE__)
/* Something that holds. */
#define HOLDS(expr) check_same(1, (expr) ? 1 : 0, #expr, __LINE__)
/* Two strings that are equal. */
#define SAME_TEXT(expected, text) check_text((expected), (text), #text, __LINE__)

static inline void check_end(const char* text, int line, const char* wrong)
{
    fprintf(stderr, "line %d: %s: %s\n", line, text, wrong);
    _Exit(1);
}

static inline long long check_ok(long long value, const char* text, int line)
{
    checks++;
    if (value < 0) {
        int code = errno;
        char wrong[128];
        snprintf(wrong, sizeof(wrong), "returned %lld, errno %d (%s)", value, code, strerror(code));
        check_end(text, line, wrong);
    }
    return value;
}

static inline long long check_fails(int expected, long long value, const char* text, int line)
{
    checks++;
    if (value >= 0 || errno != expected) {
        int code = errno;
        char wrong[160];
        snprintf(wrong, sizeof(wrong), "returned %lld, errno %d (%s), expected errno %d", value, code, strerror(code), expected);
        check_end(text, line, wrong);
    }
    return value;
}

static inline void check_sets(int expected, long long value, const char* text, int line)
{
    checks++;
    if (value != 0 || errno != expected) {
        int code = errno;
        char wrong[160];
        snprintf(wrong, sizeof(wrong), "returned %lld, errno %d (%s), expected 0 and errno %d", value, code, strerror(code), expected);
        check_end(text, line, wrong);
    }
}

static inline void check_same(long long expected, long long value, const char* text, int line)
{
    checks++;
    if (value != expected) {
        char wrong[128];
        snprintf(wrong, sizeof(wrong), "is %lld, expected %lld", value, expected);
        check_end(text, line, wrong);
    }
}

static inline void check_text(const char* expected, const char* value, const char* text, int line)
{
    checks++;
    if (value == NULL || strcmp(expected, value) != 0) {
        fprintf(stderr, "expected: %s\n     was: %s\n", expected, value == NULL ? "NULL" : value);
        check_end(text, line, "differs");
    }
}

/* How every test ends. */
static inline int checked(void)
{
    printf("%u checks\n", checks);
    return 0;
}

/* How many descriptors this process has. */
static inline int open_files(void)
{
    DIR* folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* How many it has when nothing moves any more: other threads close, and open, in their own time. Counted as settled
 * is what has been the same for a tenth of a second. */
static inline int settled_files(void)
{
    int count = open_files();

    for (int calm = 0, i = 0; calm < 10 && i < 1000; i++) {
        int now;

        poll(NULL, 0, 10);
        now = open_files();
        calm = now == count ? calm + 1 : 0;
        count = now;
    }
    return count;
}

/* No more descriptors than that are left, at the latest after a while. */
#define LEAVES_FILES(before) check_files((before), __LINE__)

static inline void check_files(int before, int line)
{
    int now = open_files();

    for (int i = 0; now > before && i < 1000; i++) {
        poll(NULL, 0, 10);
        now = open_files();
    }
    checks++;
    if (now > before) {
        char wrong[64];
        snprintf(wrong, sizeof(wrong), "are %d, and were %d", now, before);
        check_end("open descriptors", line, wrong);
    }
}

#endif
