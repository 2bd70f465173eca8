/* Programs run without a shell, watched and ended. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "pull/process.h"

static struct hd_process_result result;

static enum hd_err run(double limit_s, enum hd_err (*tick)(void *ud), void *ud,
                       struct hd_errmsg *msg, const char *script)
{
    char *argv[] = {"/bin/sh", "-c", (char *)script, NULL};
    return hd_process_run(&result, argv, NULL, limit_s, tick, ud, msg);
}

static void output_and_status_come_back(void **state)
{
    assert_int_equal(run(10, NULL, NULL, NULL, "echo out; echo err >&2; exit 3"), HD_OK);
    assert_int_equal(result.status, 3);
    assert_non_null(strstr(result.output, "out\n"));
    assert_non_null(strstr(result.output, "err\n"));
    assert_int_equal(run(10, NULL, NULL, NULL, "kill -9 $$"), HD_OK);
    assert_int_equal(result.status, 128 + 9);
    assert_int_equal(run(10, NULL, NULL, NULL, "cat"), HD_OK); /* stdin is empty */
    assert_int_equal(result.status, 0);
}

static void the_end_of_a_long_output_is_kept(void **state)
{
    assert_int_equal(run(10, NULL, NULL, NULL,
                         "i=0; while [ $i -lt 4000 ]; do echo 'a line of twenty bytes'; "
                         "i=$((i+1)); done; echo last"),
                     HD_OK);
    size_t n = strlen(result.output);
    assert_true(n <= HD_PROCESS_MAX_OUTPUT && n > 1000);
    assert_string_equal(result.output + n - 5, "last\n");
}

static void a_limit_ends_the_whole_group(void **state)
{
    struct hd_errmsg msg = {0};
    double begin = hd_clock_seconds();
    assert_int_equal(run(0.3, NULL, NULL, &msg, "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"),
                     HD_ERR_TIMEOUT);
    assert_true(hd_clock_seconds() - begin < 5);
    assert_non_null(strstr(msg.text, "not done within"));
    int child = atoi(result.output);
    assert_true(child > 1);
    /* Killed; whoever inherits it may need a moment to reap it. */
    for (int i = 0; i < 200 && !kill(child, 0); i++) {
        char path[64], text[256] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", child);
        FILE *f = fopen(path, "r");
        size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
        if (f)
            fclose(f);
        if (!n || strstr(text, ") Z "))
            return;
        usleep(10000);
    }
    assert_int_equal(kill(child, 0), -1);
}

static enum hd_err stop_at_three(void *ud)
{
    return ++*(int *)ud >= 3 ? HD_ERR_CANCELLED : HD_OK;
}

static void a_tick_can_stop_it(void **state)
{
    int ticks = 0;
    assert_int_equal(run(60, stop_at_three, &ticks, NULL, "sleep 60"), HD_ERR_CANCELLED);
    assert_int_equal(ticks, 3);
}

static void programs_are_found_on_the_path(void **state)
{
    char *sh = hd_process_find("sh");
    assert_non_null(sh);
    assert_int_equal(sh[0], '/');
    free(sh);
    assert_null(hd_process_find("no-such-program-anywhere"));
    assert_null(hd_process_find("/etc/passwd")); /* no program */
    assert_null(hd_process_find("/etc"));
    char *argv[] = {"/no/such/program", NULL};
    assert_int_equal(hd_process_run(&result, argv, NULL, 5, NULL, NULL, NULL), HD_OK);
    assert_int_equal(result.status, 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_status_come_back),
        cmocka_unit_test(the_end_of_a_long_output_is_kept),
        cmocka_unit_test(a_limit_ends_the_whole_group),
        cmocka_unit_test(a_tick_can_stop_it),
        cmocka_unit_test(programs_are_found_on_the_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
