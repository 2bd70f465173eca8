#include "ops/metrics.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

struct series {
    struct series *next;
    char *label[HD_METRIC_MAX_LABELS]; /* owned values */
    double value;                      /* counter, gauge; a histogram's sum */
    uint64_t count;
    uint64_t bucket[HD_METRIC_MAX_BUCKETS];
};

struct hd_metrics {
    pthread_mutex_t mu; /* guards all that follows */
    const struct hd_metric *table;
    size_t n, n_series, max_series;
    uint64_t dropped;
    double started; /* unix time */
    struct series **first, **last;
};

enum hd_err hd_metrics_new(struct hd_metrics **out, const struct hd_metric *table, size_t n,
                           size_t max_series)
{
    struct hd_metrics *metrics = calloc(1, sizeof *metrics);
    *out = NULL;
    if (!metrics)
        return HD_ERR_NOMEM;
    metrics->first = calloc(n ? n : 1, sizeof *metrics->first);
    metrics->last = calloc(n ? n : 1, sizeof *metrics->last);
    if (!metrics->first || !metrics->last) {
        free(metrics->first);
        free(metrics->last);
        free(metrics);
        return HD_ERR_NOMEM;
    }
    pthread_mutex_init(&metrics->mu, NULL);
    metrics->table = table;
    metrics->n = n;
    metrics->max_series = max_series;
    metrics->started = (double)hd_clock_unix();
    *out = metrics;
    return HD_OK;
}

static void series_free(struct series *series)
{
    for (size_t i = 0; i < HD_METRIC_MAX_LABELS; i++)
        free(series->label[i]);
    free(series);
}

void hd_metrics_free(struct hd_metrics *metrics)
{
    if (!metrics)
        return;
    for (size_t i = 0; i < metrics->n; i++)
        for (struct series *s = metrics->first[i], *next; s; s = next) {
            next = s->next;
            series_free(s);
        }
    pthread_mutex_destroy(&metrics->mu);
    free(metrics->first);
    free(metrics->last);
    free(metrics);
}

static size_t n_label(const struct hd_metric *metric)
{
    size_t n = 0;
    while (n < HD_METRIC_MAX_LABELS && metric->label[n])
        n++;
    return n;
}

static struct series *find_locked(const struct hd_metrics *metrics, size_t id,
                                  const char *const *labels)
{
    size_t n = n_label(&metrics->table[id]);
    for (struct series *s = metrics->first[id]; s; s = s->next) {
        size_t i = 0;
        while (i < n && !strcmp(s->label[i], labels[i]))
            i++;
        if (i == n)
            return s;
    }
    return NULL;
}

static struct series *get_locked(struct hd_metrics *metrics, size_t id, const char *const *labels)
{
    struct series *s = find_locked(metrics, id, labels);
    size_t n = n_label(&metrics->table[id]);
    if (s)
        return s;
    s = metrics->n_series < metrics->max_series ? calloc(1, sizeof *s) : NULL;
    for (size_t i = 0; s && i < n; i++) {
        s->label[i] = strdup(labels[i]);
        if (!s->label[i]) {
            series_free(s);
            s = NULL;
        }
    }
    if (!s) {
        metrics->dropped++;
        return NULL;
    }
    if (metrics->last[id])
        metrics->last[id]->next = s;
    else
        metrics->first[id] = s;
    metrics->last[id] = s;
    metrics->n_series++;
    return s;
}

void hd_metrics_add(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                    double value)
{
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->mu);
    struct series *s = get_locked(metrics, metric, labels);
    if (s)
        s->value += value;
    pthread_mutex_unlock(&metrics->mu);
}

void hd_metrics_set(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                    double value)
{
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->mu);
    struct series *s = get_locked(metrics, metric, labels);
    if (s)
        s->value = value;
    pthread_mutex_unlock(&metrics->mu);
}

void hd_metrics_observe(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                        double value)
{
    if (!metrics || isnan(value))
        return;
    pthread_mutex_lock(&metrics->mu);
    const struct hd_metric *of = &metrics->table[metric];
    struct series *s = get_locked(metrics, metric, labels);
    if (s) {
        size_t i = 0;
        while (i < of->n_bucket && value > of->bucket[i])
            i++;
        if (i < of->n_bucket)
            s->bucket[i]++;
        s->count++;
        s->value += value;
    }
    pthread_mutex_unlock(&metrics->mu);
}

double hd_metrics_value(struct hd_metrics *metrics, size_t metric, const char *const *labels)
{
    pthread_mutex_lock(&metrics->mu);
    const struct series *s = find_locked(metrics, metric, labels);
    double value = !s                                                   ? 0
                   : metrics->table[metric].kind == HD_METRIC_HISTOGRAM ? (double)s->count
                                                                        : s->value;
    pthread_mutex_unlock(&metrics->mu);
    return value;
}

/* --- text ------------------------------------------------------------------------------------- */

static void put_number(struct hd_buf *out, double value)
{
    if (value == floor(value) && fabs(value) < 1e15)
        hd_buf_printf(out, "%.0f", value);
    else
        hd_buf_printf(out, "%.9g", value);
}

static void put_value(struct hd_buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\\' || *s == '"')
            hd_buf_putc(out, '\\');
        if (*s == '\n')
            hd_buf_puts(out, "\\n");
        else
            hd_buf_putc(out, *s);
    }
}

/* {a="b",le="0.5"}; le NULL without. */
static void put_labels(struct hd_buf *out, const struct hd_metric *metric, const struct series *s,
                       const char *le)
{
    size_t n = n_label(metric);
    if (!n && !le)
        return;
    hd_buf_putc(out, '{');
    for (size_t i = 0; i < n; i++) {
        hd_buf_printf(out, "%s%s=\"", i ? "," : "", metric->label[i]);
        put_value(out, s->label[i]);
        hd_buf_putc(out, '"');
    }
    if (le)
        hd_buf_printf(out, "%sle=\"%s\"", n ? "," : "", le);
    hd_buf_putc(out, '}');
}

static void put_histogram(struct hd_buf *out, const struct hd_metric *metric,
                          const struct series *s)
{
    uint64_t sum = 0;
    char le[32];
    for (size_t i = 0; i <= metric->n_bucket; i++) {
        bool last = i == metric->n_bucket;
        sum = last ? s->count : sum + s->bucket[i];
        snprintf(le, sizeof le, "%g", last ? 0 : metric->bucket[i]);
        hd_buf_printf(out, "%s_bucket", metric->name);
        put_labels(out, metric, s, last ? "+Inf" : le);
        hd_buf_printf(out, " %llu\n", (unsigned long long)sum);
    }
    hd_buf_printf(out, "%s_sum", metric->name);
    put_labels(out, metric, s, NULL);
    hd_buf_printf(out, " %.9g\n%s_count", s->value, metric->name);
    put_labels(out, metric, s, NULL);
    hd_buf_printf(out, " %llu\n", (unsigned long long)s->count);
}

static void put_metric(struct hd_buf *out, const struct hd_metric *metric,
                       const struct series *first)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    hd_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
                  kinds[metric->kind]);
    for (const struct series *s = first; s; s = s->next) {
        if (metric->kind == HD_METRIC_HISTOGRAM) {
            put_histogram(out, metric, s);
            continue;
        }
        hd_buf_puts(out, metric->name);
        put_labels(out, metric, s, NULL);
        hd_buf_putc(out, ' ');
        put_number(out, s->value);
        hd_buf_putc(out, '\n');
    }
}

static void put_plain(struct hd_buf *out, const char *name, const char *kind, const char *help,
                      double value)
{
    hd_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s ", name, help, name, kind, name);
    put_number(out, value);
    hd_buf_putc(out, '\n');
}

static double open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -3; /* ".", ".." and this folder itself */
    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void put_process(struct hd_buf *out, double started)
{
    struct rusage usage;
    long pages = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm) {
        if (fscanf(statm, "%ld %ld", &pages, &resident) != 2)
            pages = resident = 0;
        fclose(statm);
    }
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    double page = (double)sysconf(_SC_PAGESIZE);
    put_plain(out, "process_cpu_seconds_total", "counter", "User and system time used.", cpu);
    put_plain(out, "process_resident_memory_bytes", "gauge", "Memory in use.",
              (double)resident * page);
    put_plain(out, "process_virtual_memory_bytes", "gauge", "Address space in use.",
              (double)pages * page);
    put_plain(out, "process_open_fds", "gauge", "Open descriptors.", open_files());
    put_plain(out, "process_start_time_seconds", "gauge", "Start, unix time.", started);
}

enum hd_err hd_metrics_write(struct hd_metrics *metrics, struct hd_buf *out)
{
    pthread_mutex_lock(&metrics->mu);
    for (size_t i = 0; i < metrics->n; i++)
        put_metric(out, &metrics->table[i], metrics->first[i]);
    put_plain(out, "holdfast_metrics_dropped_total", "counter",
              "Updates lost because there were too many series.", (double)metrics->dropped);
    put_process(out, metrics->started);
    pthread_mutex_unlock(&metrics->mu);
    return out->err;
}
