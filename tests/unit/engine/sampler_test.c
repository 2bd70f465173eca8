/* The sampler: what each filter keeps, how often each token comes, and that seeds repeat. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "engine/sampler.h"

enum { N = 50, DRAWS = 20000 };

static struct hd_candidate scratch[N];

static void make_logits(float *out)
{
    for (int i = 0; i < N; i++)
        out[i] = (float)((i * 37 % N) * 0.13);
}

static struct hd_sampling warm(void)
{
    return (struct hd_sampling){
        .temperature = 0.8f, .top_p = 1, .repetition_penalty = 1, .seed = 5};
}

/* The definition: sort, cut, normalise. */
static void expected(const struct hd_sampling *p, double *out)
{
    float logits[N];
    int order[N], n = N;
    double weight[N], total = 0, sum = 0;
    make_logits(logits);
    for (int i = 0; i < N; i++)
        order[i] = i;
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++)
            if (logits[order[j]] > logits[order[i]]) {
                int t = order[i];
                order[i] = order[j];
                order[j] = t;
            }
    if (p->top_k && p->top_k < n)
        n = p->top_k;
    for (int i = 0; i < n; i++)
        total += weight[i] = exp((logits[order[i]] - logits[order[0]]) / (double)p->temperature);
    if (p->top_p < 1)
        for (int i = 0; i < n; i++)
            if ((sum += weight[i]) >= p->top_p * total)
                n = i + 1;
    for (int i = n; i-- > 1;)
        if (weight[i] < p->min_p)
            n = i;
    total = 0;
    for (int i = 0; i < n; i++)
        total += weight[i];
    memset(out, 0, N * sizeof *out);
    for (int i = 0; i < n; i++)
        out[order[i]] = weight[i] / total;
}

static void check_distribution(struct hd_sampling p)
{
    struct hd_sampler *s;
    double want[N];
    int count[N] = {0};
    expected(&p, want);
    assert_int_equal(hd_sampler_new(&s, &p, N), HD_OK);
    for (int i = 0; i < DRAWS; i++) {
        float logits[N];
        make_logits(logits);
        count[hd_sampler_pick(s, logits, scratch)]++;
    }
    hd_sampler_free(s);
    for (int i = 0; i < N; i++) {
        double sigma = sqrt(want[i] * (1 - want[i]) / DRAWS);
        if (want[i] == 0)
            assert_int_equal(count[i], 0);
        else
            assert_true(fabs((double)count[i] / DRAWS - want[i]) < 5 * sigma + 1e-9);
    }
}

static void filters_keep_what_they_say(void **state)
{
    struct hd_sampling p = warm();
    check_distribution(p);
    p.top_k = 7;
    check_distribution(p);
    p.top_p = 0.6f;
    check_distribution(p);
    p.top_k = 0;
    check_distribution(p);
    p.min_p = 0.5f;
    check_distribution(p);
    p.top_p = 1;
    check_distribution(p);
    p.min_p = 0;
    p.top_p = 0;
    check_distribution(p); /* the likeliest alone */
    p.top_p = 0.999f;
    check_distribution(p);
}

static void greedy_takes_the_largest_and_the_lowest_id(void **state)
{
    struct hd_sampler *s;
    struct hd_sampling p = HD_SAMPLING_GREEDY;
    float logits[] = {1, 3, NAN, 3, -INFINITY};
    assert_int_equal(hd_sampler_new(&s, &p, 5), HD_OK);
    assert_int_equal(hd_sampler_pick(s, logits, scratch), 1);
    float none[] = {NAN, NAN, NAN, INFINITY, NAN};
    assert_int_equal(hd_sampler_pick(s, none, scratch), -1);
    hd_sampler_free(s);
}

static void seeds_repeat(void **state)
{
    struct hd_sampler *a, *b, *c;
    struct hd_sampling p = warm(), q = warm();
    int differs = 0;
    q.seed = 6;
    assert_int_equal(hd_sampler_new(&a, &p, N), HD_OK);
    assert_int_equal(hd_sampler_new(&b, &p, N), HD_OK);
    assert_int_equal(hd_sampler_new(&c, &q, N), HD_OK);
    for (int i = 0; i < 200; i++) {
        float x[N], y[N], z[N];
        make_logits(x);
        make_logits(y);
        make_logits(z);
        int32_t id = hd_sampler_pick(a, x, scratch);
        assert_int_equal(id, hd_sampler_pick(b, y, scratch));
        differs += id != hd_sampler_pick(c, z, scratch);
    }
    assert_true(differs > 50);
    hd_sampler_free(a);
    hd_sampler_free(b);
    hd_sampler_free(c);
}

static void penalties_move_logits(void **state)
{
    struct hd_sampler *s;
    struct hd_sampling p = HD_SAMPLING_GREEDY;
    p.repetition_penalty = 2;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    assert_int_equal(hd_sampler_new(&s, &p, 4), HD_OK);
    hd_sampler_accept(s, 0, 0);
    hd_sampler_accept(s, 1, 1);
    hd_sampler_accept(s, 1, 1);
    hd_sampler_accept(s, -1, 1); /* no id: ignored */
    hd_sampler_accept(s, 9, 1);
    float logits[] = {4, 4, -1, 0.5f};
    assert_int_equal(hd_sampler_pick(s, logits, scratch), 0);
    assert_float_equal(logits[0], 2, 1e-6); /* in the prompt: halved */
    assert_float_equal(logits[1], 1, 1e-6); /* generated twice: 4 / 2 - 0.5 - 2 · 0.25 */
    assert_float_equal(logits[2], -1, 1e-6);
    hd_sampler_free(s);
}

static void bad_values_are_refused(void **state)
{
    struct hd_errmsg msg;
    struct hd_sampling p = HD_SAMPLING_GREEDY;
    assert_int_equal(hd_sampling_check(&p, &msg), HD_OK);
    p.temperature = NAN;
    assert_int_equal(hd_sampling_check(&p, &msg), HD_ERR_INVALID);
    p = HD_SAMPLING_GREEDY;
    p.top_p = 1.5f;
    assert_int_equal(hd_sampling_check(&p, &msg), HD_ERR_INVALID);
    assert_non_null(strstr(msg.text, "top_p is 1.5"));
    p = HD_SAMPLING_GREEDY;
    p.repetition_penalty = 0;
    assert_int_equal(hd_sampling_check(&p, &msg), HD_ERR_INVALID);
    p = HD_SAMPLING_GREEDY;
    p.top_k = -1;
    assert_int_equal(hd_sampling_check(&p, &msg), HD_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_keep_what_they_say),
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(penalties_move_logits),
        cmocka_unit_test(bad_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
