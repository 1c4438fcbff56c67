/* A program's own globals that are called as those of rsplib's logging library: nobody calls or changes them. */
#define _POSIX_C_SOURCE 200809L

#include "pool.h"

const char gStdLog[] = "the program's own";
void beginLogging(void);
void initLogging(int level, const char* file);

void beginLogging(void)
{
    HOLDS(!"called");
}

void initLogging(int level, const char* file)
{
    HOLDS(level == 4711 && file == NULL);
}

int main(void)
{
    struct rsp_info info;

    initLogging(4711, NULL);
    rsp_initinfo(&info);
    SAME(1, rsp_initarg(&info, "-loglevel=1"));
    rsp_freeinfo(&info);
    start();
    OK(rsp_close(element("Namesake", SOCK_SEQPACKET, 0)));
    rsp_cleanup();
    SAME_TEXT("the program's own", gStdLog);
    return checked();
}
