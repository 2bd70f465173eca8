/* The partial file and its journal. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "pull/target.h"

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
enum { SIZE = 1000 };

static char folder[64];
static char bytes[SIZE];

static int set_up(void **state)
{
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 7);
    strcpy(folder, "/tmp/hd-target-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static struct hd_target *open_target(void)
{
    struct hd_target *t;
    assert_int_equal(hd_target_open(&t, folder, "x.gguf", NULL), HD_OK);
    return t;
}

static void begin(struct hd_target *t, const char *identity, const char *label, const char *etag)
{
    assert_int_equal(hd_target_begin(t, SIZE, identity, label, etag, 0, NULL), HD_OK);
}

static void fill(struct hd_target *t, uint64_t from, uint64_t to)
{
    assert_int_equal(hd_target_write(t, from, bytes + from, to - from, NULL), HD_OK);
    assert_int_equal(hd_target_commit(t, from, to, NULL), HD_OK);
}

static void assert_gap(struct hd_target *t, uint64_t from, uint64_t want_begin, uint64_t want_end)
{
    uint64_t a, b;
    assert_true(hd_target_next_gap(t, from, SIZE, &a, &b));
    assert_int_equal(a, want_begin);
    assert_int_equal(b, want_end);
}

static char *journal_path(char out[128])
{
    snprintf(out, 128, "%s/x.gguf.partial.journal", folder);
    return out;
}

static void gaps_are_what_is_missing(void **state)
{
    struct hd_target *t = open_target();
    uint64_t a, b;
    begin(t, SHA, "huggingface", "");
    assert_gap(t, 0, 0, SIZE);
    fill(t, 100, 200);
    fill(t, 300, 400);
    assert_gap(t, 0, 0, 100);
    assert_gap(t, 100, 200, 300);
    assert_gap(t, 350, 400, SIZE);
    assert_true(hd_target_next_gap(t, 400, 50, &a, &b));
    assert_int_equal(b, 450);
    assert_true(hd_target_has(t, 120, 200));
    assert_false(hd_target_has(t, 120, 201));
    fill(t, 200, 300); /* joins its neighbours */
    assert_true(hd_target_has(t, 100, 400));
    fill(t, 0, SIZE); /* swallows everything */
    assert_false(hd_target_next_gap(t, 0, SIZE, &a, &b));
    assert_int_equal(hd_target_write(t, SIZE - 1, "xy", 2, NULL), HD_ERR_FORMAT);
    hd_target_close(t);
}

static void what_is_finished_survives(void **state)
{
    struct hd_target *t = open_target();
    begin(t, SHA, "huggingface", "\"v1\"");
    fill(t, 100, 200);
    hd_target_write(t, 500, bytes, 100, NULL); /* written, never committed */
    hd_target_close(t);

    t = open_target();
    begin(t, SHA, "huggingface", "\"v1\"");
    assert_int_equal(hd_target_progress(t, 0), 100);
    assert_gap(t, 0, 0, 100);
    assert_gap(t, 100, 200, SIZE);
    begin(t, SHA, "pip", ""); /* another source, the same hash */
    assert_true(hd_target_has(t, 100, 200));
    begin(t, SHA, "huggingface", "\"v2\""); /* another version there */
    assert_int_equal(hd_target_progress(t, 0), 0);
    fill(t, 0, 10);
    hd_target_close(t);

    t = open_target();
    begin(t, "ffff456789abcdef", "huggingface", "\"v2\""); /* another file */
    assert_int_equal(hd_target_progress(t, 0), 0);
    hd_target_close(t);
}

static void damaged_lines_are_not_believed(void **state)
{
    char path[128], *text;
    size_t len;
    struct hd_target *t = open_target();
    begin(t, SHA, "x", "");
    fill(t, 0, 100);
    fill(t, 200, 300);
    hd_target_close(t);
    assert_int_equal(hd_file_read(&text, &len, journal_path(path), 1 << 16, NULL), HD_OK);

    /* Cut at every byte: never more than what whole lines say, never an error. */
    for (size_t cut = 0; cut <= len; cut++) {
        assert_int_equal(hd_file_write(path, text, cut, NULL), HD_OK);
        t = open_target();
        begin(t, SHA, "x", "");
        uint64_t done = hd_target_progress(t, 0);
        assert_true(done == 0 || done == 100 || (done == 200 && cut == len));
        fill(t, 900, SIZE); /* the journal goes on after a tear */
        hd_target_close(t);
        t = open_target();
        begin(t, SHA, "x", "");
        assert_int_equal(hd_target_progress(t, 0), done + 100);
        hd_target_close(t);
    }
    /* Every byte changed: the line it stands in, and what follows, is gone. */
    for (size_t i = 0; i < len; i++) {
        char saved = text[i];
        text[i] ^= 1;
        assert_int_equal(hd_file_write(path, text, len, NULL), HD_OK);
        t = open_target();
        begin(t, SHA, "x", "");
        assert_true(hd_target_progress(t, 0) < 200);
        hd_target_close(t);
        text[i] = saved;
    }
    free(text);
}

static void one_pull_at_a_time(void **state)
{
    struct hd_target *a = open_target(), *b;
    struct hd_errmsg msg = {0};
    assert_int_equal(hd_target_open(&b, folder, "x.gguf", &msg), HD_ERR_BUSY);
    assert_null(b);
    assert_non_null(strstr(msg.text, "another pull"));
    assert_int_equal(hd_target_open(&b, folder, "y.gguf", NULL), HD_OK);
    hd_target_close(b);
    hd_target_close(a);
    hd_target_close(open_target());
}

static void published_whole_or_not_at_all(void **state)
{
    char hex[65], want[65], path[128];
    struct hd_target *t = open_target();
    begin(t, SHA, "x", "");
    snprintf(path, sizeof path, "%s/x.gguf", folder);
    fill(t, 0, SIZE);
    assert_false(hd_path_exists(path));
    assert_int_equal(hd_target_hash(t, hex, NULL, NULL, NULL), HD_OK);
    assert_int_equal(hd_sha256_hex(want, bytes, SIZE), HD_OK);
    assert_string_equal(hex, want);
    assert_int_equal(hd_target_publish(t, NULL), HD_OK);
    assert_true(hd_path_exists(path));
    assert_false(hd_path_exists(journal_path(path)));
    hd_target_close(t);

    t = open_target();
    begin(t, SHA, "x", "");
    fill(t, 0, 10);
    hd_target_discard(t);
    hd_target_close(t);
    assert_false(hd_path_exists(journal_path(path)));
}

static void a_lack_of_space_names_the_figures(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_target *t = open_target();
    assert_int_equal(hd_target_begin(t, 1ull << 45, SHA, "x", "", 0, &msg), HD_ERR_LIMIT);
    assert_non_null(strstr(msg.text, "35184.4 GB are needed"));
    assert_true(hd_target_failed(t));
    hd_target_close(t);
}

static void sizes_read_well(void **state)
{
    char text[32];
    assert_string_equal(hd_size_text(text, 999), "999 B");
    assert_string_equal(hd_size_text(text, 20000), "20 kB");
    assert_string_equal(hd_size_text(text, 1500000), "1.5 MB");
    assert_string_equal(hd_size_text(text, 491400064), "491 MB");
    assert_string_equal(hd_size_text(text, 1117320768), "1.12 GB");
    assert_string_equal(hd_size_text(text, 19851335584), "19.9 GB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gaps_are_what_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_finished_survives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_lines_are_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_pull_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(published_whole_or_not_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lack_of_space_names_the_figures, set_up, tear_down),
        cmocka_unit_test(sizes_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
