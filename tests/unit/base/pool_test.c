#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/pool.h"

enum { N = 10007 };

struct count {
    atomic_int seen[N];
    atomic_int wrong_thread;
    int n_thread;
    size_t chunk;
};

static void count_range(void *ud, size_t begin, size_t end, int thread)
{
    struct count *count = ud;
    if (thread < 0 || thread >= count->n_thread || (count->chunk && end - begin > count->chunk))
        atomic_fetch_add(&count->wrong_thread, 1);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&count->seen[i], 1);
}

static void covers_every_index_once(void **state)
{
    static const int threads[] = {1, 2, 3, 7};
    static const size_t chunks[] = {0, 1, 64, N, 2 * N};
    static struct count count;
    for (size_t t = 0; t < 4; t++) {
        struct hd_pool *pool;
        assert_int_equal(hd_pool_new(&pool, threads[t]), HD_OK);
        assert_int_equal(hd_pool_threads(pool), threads[t]);
        for (size_t c = 0; c < 5; c++) {
            for (int round = 0; round < 20; round++) {
                memset(&count, 0, sizeof count);
                count.n_thread = threads[t];
                count.chunk = chunks[c];
                hd_pool_run(pool, N, chunks[c], count_range, &count);
                for (size_t i = 0; i < N; i++)
                    assert_int_equal(count.seen[i], 1);
                assert_int_equal(count.wrong_thread, 0);
            }
        }
        hd_pool_run(pool, 0, 0, count_range, &count);
        hd_pool_free(pool);
    }
}

struct guide {
    atomic_int seen[N];
    atomic_size_t longest, shortest; /* the last range may be shorter than `least` */
};

static void guide_range(void *ud, size_t begin, size_t end, int thread)
{
    struct guide *g = ud;
    size_t n = end - begin, longest = atomic_load(&g->longest),
           shortest = atomic_load(&g->shortest);
    while (n > longest && !atomic_compare_exchange_weak(&g->longest, &longest, n))
        ;
    while (end < N && n < shortest && !atomic_compare_exchange_weak(&g->shortest, &shortest, n))
        ;
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&g->seen[i], 1);
}

static void guided_ranges_begin_long_and_end_short(void **state)
{
    static const int threads[] = {2, 3, 7};
    static struct guide g;
    for (size_t t = 0; t < 3; t++) {
        struct hd_pool *pool;
        assert_int_equal(hd_pool_new(&pool, threads[t]), HD_OK);
        for (int round = 0; round < 20; round++) {
            memset(&g, 0, sizeof g);
            g.shortest = N;
            hd_pool_run_guided(pool, N, 10, guide_range, &g);
            for (size_t i = 0; i < N; i++)
                assert_int_equal(g.seen[i], 1);
            assert_int_equal(g.longest, (size_t)N / (2 * (size_t)threads[t]));
            assert_int_equal(g.shortest, 10);
        }
        hd_pool_run_guided(pool, 0, 0, guide_range, &g);
        hd_pool_free(pool);
    }
}

static void wakes_workers_that_have_gone_to_sleep(void **state)
{
    static struct count count;
    struct hd_pool *pool;
    assert_int_equal(hd_pool_new(&pool, 2), HD_OK);
    for (int round = 0; round < 3; round++) {
        memset(&count, 0, sizeof count);
        count.n_thread = 2;
        usleep(20000);
        hd_pool_run(pool, N, 10, count_range, &count);
        for (size_t i = 0; i < N; i++)
            assert_int_equal(count.seen[i], 1);
    }
    hd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(covers_every_index_once),
        cmocka_unit_test(guided_ranges_begin_long_and_end_short),
        cmocka_unit_test(wakes_workers_that_have_gone_to_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
