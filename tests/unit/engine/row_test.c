/* Arithmetic over rows of logits, against the plain definitions in double. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "engine/row.h"

enum { N = 10007 };
static float x[N];

static void fill(struct hd_rng *rng, float range)
{
    for (int i = 0; i < N; i++)
        x[i] = (float)((hd_rng_uniform(rng) - 0.5) * (double)range);
}

static void test_sums_are_those_of_the_definition(void **state)
{
    (void)state;
    struct hd_rng rng = {.state = 1};
    const int lengths[] = {1, 3, 4, 15, 16, 17, 4095, 4096, 4097, N};
    for (float range = 1; range < 200; range *= 3)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            int n = lengths[l];
            double sum = 0, scaled = 0;
            float max = -INFINITY;
            fill(&rng, range);
            for (int i = 0; i < n; i++)
                max = fmaxf(max, x[i]);
            for (int i = 0; i < n; i++) {
                sum += exp((double)x[i] - (double)max);
                scaled += exp(((double)x[i] - (double)max) * 1.25);
            }
            assert_true(fabs(hd_row_sum_exp(x, n, max, 1) / sum - 1) < 2e-6);
            assert_true(fabs(hd_row_sum_exp(x, n, max, 1.25f) / scaled - 1) < 1e-5);
            assert_true(fabs(hd_row_log_norm(x, n) - ((double)max + log(sum))) < 4e-6);
        }
}

static void test_what_is_ruled_out_weighs_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = -INFINITY;
    x[4711] = 3;
    assert_true(fabs(hd_row_log_norm(x, N) - 3) < 1e-6);
    assert_int_equal(hd_row_argmax(x, N), 4711);
}

static void test_the_largest_finite_one_is_found_the_first_of_equals(void **state)
{
    (void)state;
    struct hd_rng rng = {.state = 2};
    for (int n = 1; n < 70; n++)
        for (int at = 0; at < n; at++) {
            fill(&rng, 2);
            x[at] = 5;
            if (at + 1 < n)
                x[n - 1] = 5;
            assert_int_equal(hd_row_argmax(x, n), at);
            if (at)
                x[at - 1] = NAN;
            if (at > 1)
                x[at - 2] = INFINITY;
            assert_int_equal(hd_row_argmax(x, n), at);
        }
    for (int i = 0; i < N; i++)
        x[i] = i % 2 ? NAN : i % 4 ? INFINITY : -INFINITY;
    assert_int_equal(hd_row_argmax(x, N), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_those_of_the_definition),
        cmocka_unit_test(test_what_is_ruled_out_weighs_nothing),
        cmocka_unit_test(test_the_largest_finite_one_is_found_the_first_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
