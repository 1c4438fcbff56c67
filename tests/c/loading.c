/* The library is loaded and unloaded at run time. */
#define _GNU_SOURCE

#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>

#include "check.h"

static int open_files(void)
{
    DIR* folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

int main(void)
{
    int before = 0;

    for (int i = 0; i < 10; i++) {
        void* library = dlopen(getenv("LIBRSERPOOL"), RTLD_NOW | RTLD_LOCAL);
        int (*initialize)(void*);
        void (*cleanup)(void);
        int (*socket)(int, int, int);

        HOLDS(library != NULL);
        *(void**)&initialize = dlsym(library, "rsp_initialize");
        *(void**)&cleanup = dlsym(library, "rsp_cleanup");
        *(void**)&socket = dlsym(library, "rsp_socket");
        HOLDS(initialize != NULL && cleanup != NULL && socket != NULL);
        OK(initialize(NULL));
        OK(socket(0, 1, 132));
        cleanup();
        SAME(0, dlclose(library));
        before = i == 0 ? open_files() : before;
        SAME(before, open_files());
    }
    return checked();
}
