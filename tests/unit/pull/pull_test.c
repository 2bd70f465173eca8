/* A pull as a whole, where no server is needed. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "pull/pull.h"
#include "pull/target.h"

enum { SIZE = 5000 };

static char folder[64], bytes[SIZE], sha[65];
static struct hd_catalogue *catalogue;
static struct hd_pull_result result;

/* One entry, pinned, whose only source is a file that does not exist. */
static int set_up(void **state)
{
    struct hd_buf text;
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 31 + i / 256);
    memcpy(bytes, "GGUF", 4);
    strcpy(folder, "/tmp/hd-pull-XXXXXX");
    if (!mkdtemp(folder) || hd_sha256_hex(sha, bytes, SIZE))
        return -1;
    hd_buf_init(&text, 1 << 14);
    hd_buf_printf(&text,
                  "{\"catalogue_version\":1,\"models\":[{\"name\":\"m:1\",\"file\":\"m.gguf\","
                  "\"size\":%d,\"sha256\":\"%s\",\"licence\":{\"id\":\"MIT\",\"url\":\"x\"},"
                  "\"sources\":[{\"type\":\"file\",\"path\":\"%s/absent\"}]}]}",
                  SIZE, sha, folder);
    enum hd_err err = hd_catalogue_parse(&catalogue, text.data, text.len, "test", NULL);
    hd_buf_dispose(&text);
    return err ? -1 : 0;
}

static int tear_down(void **state)
{
    char command[128];
    hd_catalogue_free(catalogue);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static enum hd_err pull(struct hd_errmsg *msg)
{
    struct hd_pull_options options = {.models = folder};
    return hd_pull(&result, hd_catalogue_at(catalogue, 0), &options, msg);
}

/* As a run leaves it that was killed after its last byte. */
static void leave_everything_but_the_check(void)
{
    struct hd_target *t;
    assert_int_equal(hd_target_open(&t, folder, "m.gguf", NULL), HD_OK);
    assert_int_equal(hd_target_begin(t, SIZE, sha, "pip", "", 0, NULL), HD_OK);
    assert_int_equal(hd_target_write(t, 0, bytes, SIZE, NULL), HD_OK);
    assert_int_equal(hd_target_commit(t, 0, SIZE, NULL), HD_OK);
    hd_target_close(t);
}

static void every_failed_source_is_remembered(void **state)
{
    struct hd_errmsg msg = {0};
    assert_int_equal(pull(&msg), HD_ERR_UNAVAILABLE);
    assert_non_null(strstr(msg.text, "--source"));
    assert_int_equal(result.n_tried, 1);
    assert_string_equal(result.tried[0].source, "file");
    assert_non_null(strstr(result.tried[0].reason, "No such file"));
}

static void a_complete_earlier_run_needs_no_source(void **state)
{
    leave_everything_but_the_check();
    assert_int_equal(pull(NULL), HD_OK);
    assert_false(result.already);
    assert_string_equal(result.sha256, sha);
    assert_true(hd_path_exists(result.path));
    assert_int_equal(pull(NULL), HD_OK);
    assert_true(result.already);
}

static void a_complete_but_wrong_earlier_run_is_thrown_away(void **state)
{
    bytes[SIZE / 2] ^= 1; /* not what the hash, taken before, stands for */
    leave_everything_but_the_check();
    assert_int_equal(pull(NULL), HD_ERR_UNAVAILABLE);
    assert_false(hd_path_exists(result.path));
    char partial[128];
    snprintf(partial, sizeof partial, "%s/m.gguf.partial", folder);
    assert_false(hd_path_exists(partial));
}

static void a_cancelled_pull_says_so(void **state)
{
    atomic_bool cancel = true;
    struct hd_pull_options options = {.models = folder, .cancel = &cancel};
    leave_everything_but_the_check();
    assert_int_equal(hd_pull(&result, hd_catalogue_at(catalogue, 0), &options, NULL),
                     HD_ERR_CANCELLED);
    assert_int_equal(pull(NULL), HD_OK); /* and has lost nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_failed_source_is_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_complete_earlier_run_needs_no_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_complete_but_wrong_earlier_run_is_thrown_away, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_cancelled_pull_says_so, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
