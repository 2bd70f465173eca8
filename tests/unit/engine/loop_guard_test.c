/* What counts as going round in circles, and what must not. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "engine/loop_guard.h"

static uint32_t noise(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 8;
}

/* Ids until the guard speaks, at most `most`; every `period`-th id on is the one before; in each
 * round one place (of every `wobble`, 0: none) is drawn anew. -1: it never spoke. */
static int speaks_after(struct hd_loop_rule rule, int period, int wobble, int most)
{
    struct hd_loop_guard *guard;
    int32_t phrase[512];
    uint32_t x = 7;
    int found = -1;
    assert_int_equal(hd_loop_guard_new(&guard), HD_OK);
    hd_loop_guard_reset(guard, rule);
    for (int i = 0; i < period; i++)
        phrase[i] = (int32_t)(noise(&x) % 100000);
    for (int i = 0; i < most && found < 0; i++) {
        if (wobble && i % wobble == 0)
            phrase[i % period] = (int32_t)(noise(&x) % 100000);
        if (hd_loop_guard_push(guard, phrase[i % period]))
            found = i + 1;
    }
    hd_loop_guard_free(guard);
    return found;
}

static void periods_are_found_when_they_are_long_enough(void **state)
{
    const struct hd_loop_rule thought = HD_LOOP_IN_THOUGHT, answer = HD_LOOP_IN_ANSWER;
    /* the first round, then three more and at least 48 ids */
    assert_int_equal(speaks_after(thought, 1, 0, 1000), 1 + 48);
    assert_int_equal(speaks_after(thought, 20, 0, 1000), 20 + 60);
    assert_int_equal(speaks_after(answer, 1, 0, 1000), 1 + 192);
    assert_int_equal(speaks_after(answer, 20, 0, 1000), 20 + 192);
    assert_int_equal(speaks_after(answer, 100, 0, 1000), 100 + 500);
    assert_int_equal(speaks_after(answer, HD_LOOP_PERIOD, 0, 4000), 6 * HD_LOOP_PERIOD);
    /* longer rounds than the guard remembers */
    assert_int_equal(speaks_after(answer, HD_LOOP_PERIOD + 1, 0, 4000), -1);
}

static void text_that_goes_on_is_left_alone(void **state)
{
    const struct hd_loop_rule thought = HD_LOOP_IN_THOUGHT, answer = HD_LOOP_IN_ANSWER;
    assert_int_equal(speaks_after(thought, 1, 1, 20000), -1);
    assert_int_equal(speaks_after(answer, 1, 1, 20000), -1);
    /* three lines alike, then others */
    assert_int_equal(speaks_after(thought, 30, 0, 90), -1);
    /* a sentence of which every third word is new */
    assert_int_equal(speaks_after(thought, 16, 3, 5000), -1);
}

static void worn_phrases_are_a_loop_of_thoughts_only(void **state)
{
    const struct hd_loop_rule thought = HD_LOOP_IN_THOUGHT, answer = HD_LOOP_IN_ANSWER;
    int after = speaks_after(thought, 100, 199, 20000);
    assert_true(after > 4 * 100 && after < 1200);
    assert_int_equal(speaks_after(answer, 100, 199, 20000), -1);
}

static void reset_forgets(void **state)
{
    struct hd_loop_guard *guard;
    assert_int_equal(hd_loop_guard_new(&guard), HD_OK);
    for (int round = 0; round < 3; round++) {
        hd_loop_guard_reset(guard, HD_LOOP_IN_THOUGHT);
        for (int i = 0; i < 48; i++)
            assert_false(hd_loop_guard_push(guard, 5));
    }
    assert_true(hd_loop_guard_push(guard, 5));
    hd_loop_guard_free(guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(periods_are_found_when_they_are_long_enough),
        cmocka_unit_test(text_that_goes_on_is_left_alone),
        cmocka_unit_test(worn_phrases_are_a_loop_of_thoughts_only),
        cmocka_unit_test(reset_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
