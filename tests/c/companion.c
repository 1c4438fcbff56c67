/* A program with rsplib's logging library linked into it: the library starts it, as rsplib does, and passes its
 * switches on. What stands here for that library has the same names and types. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>

#include "pool.h"

static FILE* stream;
static unsigned int begun, switches;

FILE** gStdLog = &stream;
unsigned int gLogLevel = 1;
pthread_mutex_t gLogMutex = PTHREAD_MUTEX_INITIALIZER;

void beginLogging(void);
void finishLogging(void);
bool initLogging(const char* parameter);
void loggingMutexLock(void);
void loggingMutexUnlock(void);
void setLogColor(unsigned int color);
const char* getHostName(void);

void beginLogging(void)
{
    begun++;
    stream = stderr;
}

void finishLogging(void)
{
    stream = NULL;
}

bool initLogging(const char* parameter)
{
    switches += strncmp(parameter, "-log", 4) == 0;
    return true;
}

void loggingMutexLock(void)
{
}

void loggingMutexUnlock(void)
{
}

void setLogColor(unsigned int color)
{
    (void)color;
}

const char* getHostName(void)
{
    return "localhost";
}

int main(void)
{
    struct rsp_info info;

    rsp_initinfo(&info);
    SAME(1, rsp_initarg(&info, "-loglevel=2"));
    SAME(1, switches);
    SAME(0, begun);
    rsp_freeinfo(&info);
    start();
    SAME(1, begun);
    /* As the program's own lines go. */
    HOLDS(fprintf(*gStdLog, "%s", "") == 0);
    rsp_cleanup();
    HOLDS(*gStdLog != NULL);
    return checked();
}
