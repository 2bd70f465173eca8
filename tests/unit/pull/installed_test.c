/* The list of installed models and how a name finds one of them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "pull/installed.h"

static char folder[64];

static void put(const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_int_equal(hd_file_write(path, text, strlen(text), NULL), HD_OK);
}

static int set_up(void **state)
{
    strcpy(folder, "/tmp/hd-installed-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void empty_and_absent_folders_are_empty_lists(void **state)
{
    struct hd_installed *list;
    size_t n = 7;
    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_int_equal(n, 0);
    assert_null(hd_installed_default(list, n));
    assert_int_equal(hd_installed_list(&list, &n, "/nonexistent/models", NULL), HD_OK);
    assert_int_equal(n, 0);
}

static void finds_by_every_name_a_user_may_type(void **state)
{
    struct hd_installed *list;
    size_t n;
    char path[128];
    put("b.gguf", "12345");
    put("b.gguf.json", "{\"name\":\"made-up:7b\",\"size\":5,\"licence\":\"MIT\",\"sha256\":\"x\"}");
    put("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "x");
    put("half.gguf.partial", "x");
    put("notes.txt", "x");
    snprintf(path, sizeof path, "%s/folder", folder);
    assert_int_equal(mkdir(path, 0755), 0);
    put("folder/config.json", "{}");
    snprintf(path, sizeof path, "%s/other", folder);
    assert_int_equal(mkdir(path, 0755), 0);

    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].name, "made-up:7b");
    assert_string_equal(list[0].licence, "MIT");
    assert_true(list[0].noted);
    assert_string_equal(list[0].sha256, "");
    assert_ptr_equal(hd_installed_find(list, n, "made-up:7b"), &list[0]);
    assert_ptr_equal(hd_installed_find(list, n, "Made-Up"), &list[0]);
    assert_ptr_equal(hd_installed_find(list, n, "b"), &list[0]);
    assert_ptr_equal(hd_installed_find(list, n, "b.gguf"), &list[0]);
    assert_ptr_equal(hd_installed_find(list, n, "folder"), &list[1]);
    assert_ptr_equal(hd_installed_find(list, n, "qwen2.5-coder:0.5b"), &list[2]);
    assert_null(hd_installed_find(list, n, "qwen2.5-coder:1.5b"));
    assert_null(hd_installed_find(list, n, "notes"));
    assert_null(hd_installed_find(list, n, ""));
    /* Several, but the small default is among them. */
    assert_ptr_equal(hd_installed_default(list, n), &list[2]);
    hd_installed_free(list, n);
}

static void a_note_of_another_size_is_not_believed(void **state)
{
    struct hd_installed *list;
    size_t n;
    put("a.gguf", "123");
    put("a.gguf.json", "{\"name\":\"made-up:7b\",\"size\":4}");
    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].name, "a.gguf");
    assert_false(list[0].noted);
    assert_ptr_equal(hd_installed_default(list, n), &list[0]); /* the only one */
    hd_installed_free(list, n);
}

static void a_file_put_there_by_hand_has_the_catalogues_name(void **state)
{
    const char *text = "{\"catalogue_version\":1,\"models\":[{\"name\":\"r1:7b\",\"file\":"
                       "\"Odd-Name.gguf\",\"size\":3,\"licence\":{\"id\":\"MIT\",\"url\":\"x\"},"
                       "\"sources\":[{\"type\":\"file\",\"path\":\"/x\"}]}]}";
    struct hd_catalogue *catalogue;
    struct hd_installed *list;
    size_t n;
    assert_int_equal(hd_catalogue_parse(&catalogue, text, strlen(text), "t", NULL), HD_OK);
    put("Odd-Name.gguf", "abc");
    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_null(hd_installed_find(list, n, "r1:7b"));
    assert_int_equal(hd_installed_name(list, n, catalogue), HD_OK);
    assert_ptr_equal(hd_installed_find(list, n, "r1:7b"), &list[0]);
    hd_installed_free(list, n);
    put("Odd-Name.gguf", "abcd"); /* another size: not that file */
    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_int_equal(hd_installed_name(list, n, catalogue), HD_OK);
    assert_string_equal(list[0].name, "Odd-Name.gguf");
    hd_installed_free(list, n);
    hd_catalogue_free(catalogue);
}

static void seven_is_not_seventy(void **state)
{
    struct hd_installed *list;
    size_t n;
    put("some-r1-70b-q4.gguf", "x");
    put("zz.gguf", "x");
    assert_int_equal(hd_installed_list(&list, &n, folder, NULL), HD_OK);
    assert_null(hd_installed_find(list, n, "some-r1:7"));
    assert_ptr_equal(hd_installed_find(list, n, "some-r1:70b"), &list[0]);
    assert_null(hd_installed_default(list, n)); /* no way to choose */
    hd_installed_free(list, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(empty_and_absent_folders_are_empty_lists, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(finds_by_every_name_a_user_may_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_note_of_another_size_is_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_put_there_by_hand_has_the_catalogues_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(seven_is_not_seventy, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
