/* Metrics in Prometheus' text form (exposition format 0.0.4).
 *
 * A registry is made from a static table; a metric is named by its index there. The number of
 * series is bounded: what would exceed it is counted in holdfast_metrics_dropped_total instead.
 * Never label by user text, key or request id. Thread-safe. */
#ifndef HD_OPS_METRICS_H
#define HD_OPS_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum hd_metric_kind { HD_METRIC_COUNTER, HD_METRIC_GAUGE, HD_METRIC_HISTOGRAM };
enum { HD_METRIC_MAX_LABELS = 4, HD_METRIC_MAX_BUCKETS = 24 };

struct hd_metric {
    const char *name;
    enum hd_metric_kind kind;
    const char *help;
    const char *label[HD_METRIC_MAX_LABELS]; /* names, NULL ends */
    const double *bucket;                    /* histograms: upper bounds, ascending, +Inf implied */
    size_t n_bucket;
};

struct hd_metrics;
enum hd_err hd_metrics_new(struct hd_metrics **out, const struct hd_metric *table, size_t n,
                           size_t max_series);
void hd_metrics_free(struct hd_metrics *metrics); /* NULL is fine */

/* Label values in the table's order. */
#define HD_LABELS(...) ((const char *const[]){__VA_ARGS__})

/* `labels` may be NULL for a metric without any. A NULL registry does nothing. */
void hd_metrics_add(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                    double value);
void hd_metrics_set(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                    double value);
void hd_metrics_observe(struct hd_metrics *metrics, size_t metric, const char *const *labels,
                        double value);
/* A counter's or gauge's value, a histogram's count; 0 for a series that does not exist. */
double hd_metrics_value(struct hd_metrics *metrics, size_t metric, const char *const *labels);

/* Everything as text, and the process's own figures (process_*). */
enum hd_err hd_metrics_write(struct hd_metrics *metrics, struct hd_buf *out);

#endif
