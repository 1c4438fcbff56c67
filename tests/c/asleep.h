/* A thread that is in a call, which shows by its sleep: what others do to it then, they do not do before. Needs _GNU_SOURCE. */
#ifndef ASLEEP_H
#define ASLEEP_H

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What two threads know of one that will sleep. */
struct sleeper {
    int sd;
    /* The kernel's number for it; 0: it has not begun. */
    int thread;
};

/* Says that it is the calling thread. */
static inline void is_me(struct sleeper* sleeper)
{
    __atomic_store_n(&sleeper->thread, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
}

static inline bool sleeps(int thread)
{
    char path[64], text[512] = "";
    const char* state;
    FILE* file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
    file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    /* Behind its name, which may be anything. */
    state = strrchr(text, ')');
    return state != NULL && strncmp(state, ") S", 3) == 0;
}

/* Returns once it sleeps, and not only for a lock in passing. */
static inline void until_asleep(const struct sleeper* sleeper)
{
    for (int calm = 0; calm < 3;) {
        int thread = __atomic_load_n(&sleeper->thread, __ATOMIC_SEQ_CST);

        poll(NULL, 0, 5);
        calm = thread != 0 && sleeps(thread) ? calm + 1 : 0;
    }
}

#endif
