#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static enum hd_log_level max_level = HD_LOG_WARN;
static void (*sink_fn)(enum hd_log_level, const char *, void *);
static void *sink_ud;

void hd_log_set_level(enum hd_log_level level)
{
    pthread_mutex_lock(&mu);
    max_level = level;
    pthread_mutex_unlock(&mu);
}

void hd_log_set_sink(void (*sink)(enum hd_log_level, const char *, void *), void *ud)
{
    pthread_mutex_lock(&mu);
    sink_fn = sink;
    sink_ud = ud;
    pthread_mutex_unlock(&mu);
}

void hd_log(enum hd_log_level level, const char *subsystem, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    char text[1024], line[1200], when[21];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    hd_clock_iso(when);
    snprintf(line, sizeof line, "%s %s %s: %s", when, names[level], subsystem, text);
    pthread_mutex_lock(&mu);
    if (level <= max_level) {
        if (sink_fn)
            sink_fn(level, line, sink_ud);
        else
            fprintf(stderr, "%s\n", line);
    }
    pthread_mutex_unlock(&mu);
}
