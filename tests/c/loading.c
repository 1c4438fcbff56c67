/* The library is loaded and unloaded at run time. */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdlib.h>

#include "check.h"

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
        before = i == 0 ? settled_files() : before;
        LEAVES_FILES(before);
    }
    return checked();
}
