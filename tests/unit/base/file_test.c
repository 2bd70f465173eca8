#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/checked.h"
#include "base/file.h"
#include "base/hash.h"

static char folder[] = "/tmp/holdfast-file-XXXXXX";

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char path[128];
    static const char *const names[] = {"a/b/c", "a/b", "a", "data", "empty", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    return 0;
}

static void writes_whole_files_and_reads_them_back(void **state)
{
    struct hd_errmsg msg = {0};
    char *path = hd_path_join(folder, "data"), *back;
    size_t len;
    assert_int_equal(hd_file_write(path, "one\0two", 7, &msg), HD_OK);
    assert_int_equal(hd_file_read(&back, &len, path, 7, &msg), HD_OK);
    assert_int_equal(len, 7);
    assert_memory_equal(back, "one\0two", 8);
    free(back);
    assert_int_equal(hd_file_read(&back, &len, path, 6, &msg), HD_ERR_LIMIT);
    assert_non_null(strstr(msg.text, path));
    free(path);
}

static void maps_files_and_names_what_is_wrong(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_map map;
    char *path = hd_path_join(folder, "empty");
    assert_int_equal(hd_map_open(&map, path, &msg), HD_ERR_NOTFOUND);
    assert_non_null(strstr(msg.text, path));
    assert_int_equal(hd_file_write(path, "", 0, &msg), HD_OK);
    assert_int_equal(hd_map_open(&map, path, &msg), HD_OK);
    assert_int_equal(map.size, 0);
    hd_map_close(&map);
    assert_int_equal(hd_map_open(&map, folder, &msg), HD_ERR_IO);
    free(path);
}

static void makes_folders_on_the_way(void **state)
{
    struct hd_errmsg msg = {0};
    char *deep = hd_path_join(folder, "a/b/c"), *blocked = hd_path_join(folder, "data/x");
    assert_int_equal(hd_mkdirs(deep, &msg), HD_OK);
    assert_int_equal(hd_mkdirs(deep, &msg), HD_OK);
    assert_true(hd_path_is_dir(deep));
    assert_int_not_equal(hd_mkdirs(blocked, &msg), HD_OK);
    free(deep);
    free(blocked);
}

static void hashes_as_published(void **state)
{
    char hex[65]; /* FIPS 180-4, example "abc" */
    assert_int_equal(hd_sha256_hex(hex, "abc", 3), HD_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(hd_git_blob_hex(hex, "hello\n", 6), HD_OK); /* git hash-object */
    assert_string_equal(hex, "ce013625030ba8dba906f756967f9e9ca394464a");
    assert_int_equal(hd_git_blob_hex(hex, "", 0), HD_OK);
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    assert_int_not_equal(hd_hash64("a", 1, 0), hd_hash64("a", 1, 1));
}

static void checks_products_sums_and_ranges(void **state)
{
    size_t out;
    assert_true(hd_mul(&out, 3, 5) && out == 15);
    assert_false(hd_mul(&out, SIZE_MAX / 2, 3));
    assert_false(hd_add(&out, SIZE_MAX, 1));
    assert_true(hd_within(5, 5, 10));
    assert_false(hd_within(5, 6, 10));
    assert_false(hd_within(SIZE_MAX, 2, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_whole_files_and_reads_them_back),
        cmocka_unit_test(maps_files_and_names_what_is_wrong),
        cmocka_unit_test(makes_folders_on_the_way),
        cmocka_unit_test(hashes_as_published),
        cmocka_unit_test(checks_products_sums_and_ranges),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
