/* The registry and its text form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ops/metrics.h"

static const double bounds[] = {0.5, 1, 2};
enum { REQUESTS, DEPTH, LATENCY };
static const struct hd_metric table[] = {
    {"t_requests_total", HD_METRIC_COUNTER, "Requests.", {"route", "code"}, NULL, 0},
    {"t_depth", HD_METRIC_GAUGE, "Depth.", {NULL}, NULL, 0},
    {"t_latency_seconds", HD_METRIC_HISTOGRAM, "Latency.", {"route"}, bounds, 3},
};

static void assert_has(const struct hd_buf *text, const char *line)
{
    if (!strstr(hd_buf_str(text), line))
        fail_msg("missing: %s\nin:\n%s", line, hd_buf_str(text));
}

static void test_text(void **state)
{
    struct hd_metrics *m;
    struct hd_buf text;
    assert_int_equal(hd_metrics_new(&m, table, 3, 100), HD_OK);
    hd_metrics_add(m, REQUESTS, HD_LABELS("/a\"b\\c\n", "200"), 1);
    hd_metrics_add(m, REQUESTS, HD_LABELS("/a\"b\\c\n", "200"), 2);
    hd_metrics_set(m, DEPTH, NULL, 2.5);
    const double seen[] = {0.5, 0.6, 1.5, 9};
    for (size_t i = 0; i < 4; i++)
        hd_metrics_observe(m, LATENCY, HD_LABELS("/x"), seen[i]);
    hd_buf_init(&text, 1 << 16);
    assert_int_equal(hd_metrics_write(m, &text), HD_OK);
    assert_has(&text, "# TYPE t_requests_total counter\n");
    assert_has(&text, "t_requests_total{route=\"/a\\\"b\\\\c\\n\",code=\"200\"} 3\n");
    assert_has(&text, "t_depth 2.5\n");
    assert_has(&text, "t_latency_seconds_bucket{route=\"/x\",le=\"0.5\"} 1\n");
    assert_has(&text, "t_latency_seconds_bucket{route=\"/x\",le=\"1\"} 2\n");
    assert_has(&text, "t_latency_seconds_bucket{route=\"/x\",le=\"2\"} 3\n");
    assert_has(&text, "t_latency_seconds_bucket{route=\"/x\",le=\"+Inf\"} 4\n");
    assert_has(&text, "t_latency_seconds_sum{route=\"/x\"} 11.6\n");
    assert_has(&text, "t_latency_seconds_count{route=\"/x\"} 4\n");
    assert_has(&text, "process_resident_memory_bytes ");
    assert_true(hd_metrics_value(m, LATENCY, HD_LABELS("/x")) == 4);
    assert_true(hd_metrics_value(m, LATENCY, HD_LABELS("/y")) == 0);
    hd_buf_dispose(&text);
    hd_metrics_free(m);
}

static void test_series_are_bounded(void **state)
{
    struct hd_metrics *m;
    struct hd_buf text;
    assert_int_equal(hd_metrics_new(&m, table, 3, 2), HD_OK);
    for (int i = 0; i < 5; i++) {
        char route[8];
        snprintf(route, sizeof route, "/%d", i);
        hd_metrics_add(m, REQUESTS, HD_LABELS(route, "200"), 1);
    }
    hd_buf_init(&text, 1 << 16);
    hd_metrics_write(m, &text);
    assert_has(&text, "route=\"/1\"");
    assert_null(strstr(hd_buf_str(&text), "route=\"/2\""));
    assert_has(&text, "holdfast_metrics_dropped_total 3\n");
    hd_buf_dispose(&text);
    hd_metrics_free(m);
}

static void *add_many(void *arg)
{
    for (int i = 0; i < 10000; i++)
        hd_metrics_add(arg, REQUESTS, HD_LABELS("/", "200"), 1);
    return NULL;
}

static void test_threads(void **state)
{
    struct hd_metrics *m;
    pthread_t threads[4];
    assert_int_equal(hd_metrics_new(&m, table, 3, 100), HD_OK);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_many, m);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(hd_metrics_value(m, REQUESTS, HD_LABELS("/", "200")) == 40000);
    hd_metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_series_are_bounded),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
