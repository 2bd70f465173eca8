/* Weights whose copy is made later: every product gives the same bits before, while and after. */
#include "support.h"

#include <pthread.h>

#include "kernels/ops.h"

enum { N_OUT = 75, MOST = 130 };

struct fixture {
    struct hd_rng rng;
    const struct hd_backend *b;
    struct hd_pool *pool;
    struct hd_stream *s;
};

static const char *const names[] = {"ref", "avx2", "avx512", "amx"};

static bool fixture_open(struct fixture *f, const char *name)
{
    *f = (struct fixture){.b = backend_or_null(name)};
    if (!f->b)
        return false;
    f->rng = (struct hd_rng){5};
    assert_int_equal(hd_pool_new(&f->pool, 3), 0);
    assert_int_equal(hd_stream_new(&f->s, f->b, f->pool, NULL), 0);
    return true;
}

static void fixture_close(struct fixture *f)
{
    hd_stream_free(f->s);
    hd_pool_free(f->pool);
}

static float *product(const struct fixture *f, const struct hd_weight *w, const float *x, int64_t n,
                      enum hd_form form)
{
    struct hd_tensor in = tensor_new(f->b, HD_F32, hd_weight_n_in(w), n, 1, 1, x);
    struct hd_tensor out = tensor_new(f->b, HD_F32, hd_weight_n_out(w), n, 1, 1, NULL);
    struct hd_matmul m = {.w = w, .out = out};
    hd_op_matmul(f->s, &m, 1, in, form);
    assert_int_equal(hd_sync(f->s), 0);
    float *y = tensor_take(&out);
    tensor_free(&in), tensor_free(&out);
    return y;
}

struct job {
    struct fixture *f;
    enum hd_dtype type;
    int64_t n_in;
    uint8_t *blocks;
    float *x, *want[2];
    int64_t n[2]; /* rows of a generated step, and of a prompt long enough for several chunks */
};

static struct hd_weight *new_weight(const struct job *j, unsigned usage)
{
    struct hd_weight *w;
    struct hd_errmsg msg;
    if (hd_weight_new(&w, j->f->b, j->type, j->n_in, N_OUT, 1, j->blocks, HD_WEIGHT_MATMUL | usage,
                      j->f->pool, &msg))
        fail_msg("%s", msg.text);
    return w;
}

static void expect_same(const struct job *j, const struct hd_weight *w, int which)
{
    float *got = product(j->f, w, j->x, j->n[which], which ? HD_FORM_PROMPT : HD_FORM_DECODE);
    assert_memory_equal(got, j->want[which], (size_t)(j->n[which] * N_OUT) * sizeof *got);
    free(got);
}

static void *worker(void *arg)
{
    hd_weight_work(arg, NULL, NULL);
    return NULL;
}

static void run_case(struct job *j)
{
    atomic_size_t made = 0;
    struct hd_weight *eager = new_weight(j, 0);
    for (int i = 0; i < 2; i++)
        j->want[i] = product(j->f, eager, j->x, j->n[i], i ? HD_FORM_PROMPT : HD_FORM_DECODE);

    struct hd_weight *w = new_weight(j, HD_WEIGHT_LAZY | HD_WEIGHT_COPY);
    size_t bytes = hd_weight_bytes(w);
    assert_true(bytes > 0 && bytes == hd_weight_work_bytes(w));
    expect_same(j, w, 0); /* no memory for the copy yet */
    void *memory = hd_pages_new(bytes);
    hd_weight_place(w, memory, &made, false);
    expect_same(j, w, 0);
    assert_int_equal(atomic_load(&made), 0); /* repacked on the way, nothing kept */
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, worker, w), 0);
    for (int i = 0; i < 6; i++)
        expect_same(j, w, i % 2);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&made), bytes);
    assert_true(hd_weight_ready(w));
    expect_same(j, w, 0);
    expect_same(j, w, 1);

    /* the same memory serves another handle, as a shared copy does */
    struct hd_weight *again = new_weight(j, HD_WEIGHT_LAZY | HD_WEIGHT_COPY);
    hd_weight_place_made(again, memory, &made);
    assert_int_equal(atomic_load(&made), 2 * bytes);
    expect_same(j, again, 1);

    /* nobody works on it: the first product makes the copy (where products need one) */
    struct hd_weight *demand = new_weight(j, HD_WEIGHT_LAZY | HD_WEIGHT_COPY);
    void *more = hd_pages_new(bytes);
    hd_weight_place(demand, more, NULL, true);
    expect_same(j, demand, 0);
    assert_true(hd_weight_ready(demand) || !demand->pack);

    hd_weight_free(eager), hd_weight_free(w), hd_weight_free(again), hd_weight_free(demand);
    hd_pages_free(memory, bytes), hd_pages_free(more, bytes);
    free(j->want[0]), free(j->want[1]);
}

static void same_bits_at_any_time(void **state)
{
    static const enum hd_dtype types[] = {HD_Q4_K, HD_Q6_K, HD_Q8_0, HD_Q5_0, HD_F16, HD_IQ3_S};
    for (size_t b = 0; b < sizeof names / sizeof *names; b++) {
        struct fixture f;
        if (!fixture_open(&f, names[b]))
            continue;
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            struct job j = {.f = &f, .type = types[t], .n_in = 4096, .n = {2, MOST}};
            j.blocks = random_blocks(&f.rng, types[t], (size_t)(j.n_in * N_OUT));
            j.x = random_floats(&f.rng, (size_t)(MOST * j.n_in));
            run_case(&j);
            free(j.blocks), free(j.x);
        }
        fixture_close(&f);
    }
}

static void a_stopped_worker_leaves_the_rest(void **state)
{
    struct fixture f;
    atomic_bool stop = true, hold = true;
    atomic_size_t made = 0;
    assert_true(fixture_open(&f, "ref"));
    struct job j = {.f = &f, .type = HD_F32, .n_in = 512};
    j.blocks = random_blocks(&f.rng, HD_F32, (size_t)(j.n_in * N_OUT));
    struct hd_weight *w = new_weight(&j, HD_WEIGHT_LAZY | HD_WEIGHT_COPY);
    size_t bytes = hd_weight_bytes(w);
    void *memory = hd_pages_new(bytes);
    hd_weight_place(w, memory, &made, false);
    hd_weight_work(w, &stop, &hold);
    assert_int_equal(atomic_load(&made), 0);
    assert_false(hd_weight_ready(w));
    hd_weight_finish(w, f.pool);
    assert_int_equal(atomic_load(&made), bytes);
    assert_memory_equal(memory, j.blocks, bytes);
    hd_weight_free(w);
    hd_pages_free(memory, bytes);
    free(j.blocks);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_at_any_time),
        cmocka_unit_test(a_stopped_worker_leaves_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
