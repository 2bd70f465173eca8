/* KV blocks: random use against the invariants, reuse by key, eviction order. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/rng.h"
#include "engine/blocks.h"

static struct hd_block_key key_of(uint32_t n)
{
    struct hd_block_key key = {{0}};
    memcpy(key.bytes, &n, sizeof n);
    return key;
}

static void take_publish_find(void **state)
{
    struct hd_blocks *b;
    struct hd_block_key key = key_of(7);
    assert_int_equal(hd_blocks_new(&b, 3), HD_OK);
    int32_t x = hd_blocks_take(b);
    assert_int_equal(hd_blocks_find(b, &key), -1);
    hd_blocks_publish(b, x, &key);
    assert_int_equal(hd_blocks_find(b, &key), x); /* a second reference */
    hd_blocks_release(b, x);
    assert_int_equal(hd_blocks_used(b), 1);
    hd_blocks_release(b, x);
    assert_int_equal(hd_blocks_used(b), 0);
    assert_int_equal(hd_blocks_available(b), 3);
    assert_int_equal(hd_blocks_find(b, &key), x); /* still cached */
    assert_true(hd_blocks_check(b));
    hd_blocks_release(b, x);
    hd_blocks_forget(b);
    assert_int_equal(hd_blocks_find(b, &key), -1);
    assert_true(hd_blocks_check(b));
    hd_blocks_free(b);
}

static void least_recently_used_goes_first(void **state)
{
    struct hd_blocks *b;
    struct hd_block_key keys[3];
    int32_t block[3];
    assert_int_equal(hd_blocks_new(&b, 3), HD_OK);
    for (uint32_t i = 0; i < 3; i++) {
        keys[i] = key_of(i);
        block[i] = hd_blocks_take(b);
        hd_blocks_publish(b, block[i], &keys[i]);
    }
    assert_int_equal(hd_blocks_take(b), -1); /* all held */
    for (int i = 0; i < 3; i++)
        hd_blocks_release(b, block[i]);
    assert_int_equal(hd_blocks_find(b, &keys[0]), block[0]); /* used again: now the youngest */
    hd_blocks_release(b, block[0]);
    assert_int_equal(hd_blocks_take(b), block[1]);
    assert_int_equal(hd_blocks_find(b, &keys[1]), -1);
    assert_int_equal(hd_blocks_find(b, &keys[0]), block[0]);
    assert_true(hd_blocks_check(b));
    hd_blocks_free(b);
}

/* Keys that fall into the same slots, published, evicted and found in random order. */
static void random_use_keeps_the_invariants(void **state)
{
    enum { N = 37, KEYS = 80 };
    struct hd_blocks *b;
    struct hd_rng rng = {3};
    int32_t held[N];
    int n_held = 0;
    assert_int_equal(hd_blocks_new(&b, N), HD_OK);
    for (int step = 0; step < 20000; step++) {
        /* the low bits choose the slot: multiples of 64 collide */
        struct hd_block_key key = key_of((uint32_t)(hd_rng_next(&rng) % KEYS) * 64);
        switch (hd_rng_next(&rng) % 4) {
        case 0:
        case 1: {
            int32_t x = n_held < N ? hd_blocks_find(b, &key) : -1;
            if (x < 0 && n_held < N && (x = hd_blocks_take(b)) >= 0 && hd_rng_next(&rng) % 3)
                hd_blocks_publish(b, x, &key);
            if (x >= 0)
                held[n_held++] = x;
            break;
        }
        default:
            if (n_held) {
                int i = (int)(hd_rng_next(&rng) % (uint64_t)n_held);
                hd_blocks_release(b, held[i]);
                held[i] = held[--n_held];
            }
        }
        if (step % 50 == 0)
            assert_true(hd_blocks_check(b));
    }
    while (n_held)
        hd_blocks_release(b, held[--n_held]);
    assert_int_equal(hd_blocks_used(b), 0);
    assert_true(hd_blocks_check(b));
    hd_blocks_free(b);
}

static void absurd_counts_are_refused(void **state)
{
    struct hd_blocks *b;
    assert_int_equal(hd_blocks_new(&b, 0), HD_ERR_LIMIT);
    assert_int_equal(hd_blocks_new(&b, -5), HD_ERR_LIMIT);
    assert_null(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take_publish_find),
        cmocka_unit_test(least_recently_used_goes_first),
        cmocka_unit_test(random_use_keeps_the_invariants),
        cmocka_unit_test(absurd_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
