/* KV blocks on disk: what comes back is what was written under that key, or nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/spill.h"

enum { LEN = 50000 };

static char folder[64];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hd-spill-XXXXXX");
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static struct hd_block_key key_of(int i)
{
    struct hd_block_key key;
    for (int j = 0; j < 32; j++)
        key.bytes[j] = (uint8_t)(i * 37 + j * (i + 1));
    return key;
}

static void fill(unsigned char *data, int i)
{
    for (int j = 0; j < LEN; j++)
        data[j] = (unsigned char)(i * 31 + j * 7 + j / 256);
}

static struct hd_spill *start(uint64_t budget)
{
    struct hd_spill *s;
    struct hd_errmsg msg = {0};
    if (hd_spill_open(&s, folder, budget, &msg))
        fail_msg("%s", msg.text);
    return s;
}

static void write_block(struct hd_spill *s, int i)
{
    static unsigned char data[LEN];
    struct hd_block_key key = key_of(i);
    fill(data, i);
    assert_int_equal(hd_spill_write(s, &key, data, LEN), HD_OK);
}

/* Whether block i is there; if so, right. */
static bool read_block(struct hd_spill *s, int i)
{
    static unsigned char got[LEN], want[LEN];
    struct hd_block_key key = key_of(i);
    enum hd_err err = hd_spill_read(s, &key, got, LEN);
    assert_true(err == HD_OK || err == HD_ERR_NOTFOUND);
    fill(want, i);
    if (!err)
        assert_memory_equal(got, want, LEN);
    return !err;
}

static void name_of(int i, char path[200])
{
    struct hd_block_key key = key_of(i);
    int n = snprintf(path, 200, "%s/", folder);
    for (int j = 0; j < 32; j++)
        n += snprintf(path + n, (size_t)(200 - n), "%02x", key.bytes[j]);
    snprintf(path + n, (size_t)(200 - n), ".kv");
}

static void survives_a_restart(void **state)
{
    char path[200];
    struct stat st;
    (void)state;
    struct hd_spill *s = start(1 << 20);
    for (int i = 0; i < 5; i++)
        write_block(s, i);
    hd_spill_close(s);
    name_of(0, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    s = start(1 << 20);
    assert_int_equal(hd_spill_count(s), 5);
    for (int i = 0; i < 5; i++)
        assert_true(read_block(s, i));
    assert_false(read_block(s, 6));
    hd_spill_close(s);
}

/* Nothing of the content can be read in the file. */
static void content_is_encrypted(void **state)
{
    static unsigned char zero[LEN], file[LEN + 200];
    struct hd_block_key key = key_of(1);
    char path[200];
    int longest = 0, run = 0;
    (void)state;
    struct hd_spill *s = start(1 << 20);
    assert_int_equal(hd_spill_write(s, &key, zero, LEN), HD_OK);
    name_of(1, path);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_true(n > LEN);
    for (size_t i = 108; i < n; i++) {
        run = file[i] == 0 ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    assert_true(longest < 8);
    hd_spill_close(s);
}

static void budget_evicts_the_least_used(void **state)
{
    (void)state;
    struct hd_spill *s = start(5 * LEN);
    for (int i = 0; i < 4; i++)
        write_block(s, i);
    assert_true(read_block(s, 0)); /* used: stays */
    write_block(s, 4);
    assert_true(hd_spill_bytes(s) <= 5 * LEN);
    assert_true(read_block(s, 0));
    assert_false(read_block(s, 1));
    assert_true(read_block(s, 4));
    hd_spill_close(s);
    s = start(2 * LEN);
    assert_true(hd_spill_bytes(s) <= 2 * LEN);
    struct hd_block_key key = key_of(9);
    assert_int_equal(hd_spill_write(s, &key, folder, 3 * LEN), HD_ERR_LIMIT);
    hd_spill_close(s);
}

/* Every byte counts: one bit anywhere, a cut, another block's file. */
static void damage_is_absence(void **state)
{
    char path[200], other[200];
    (void)state;
    for (int i = 0; i < 40; i++) {
        struct hd_spill *s = start(1 << 20);
        write_block(s, 1);
        hd_spill_close(s);
        name_of(1, path);
        int fd = open(path, O_RDWR);
        off_t at = i < 30 ? i * 4 : 108 + i * 1237;
        unsigned char byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= (unsigned char)(1 << i % 8);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        s = start(1 << 20);
        assert_false(read_block(s, 1));
        assert_int_not_equal(access(path, F_OK), 0); /* removed */
        hd_spill_close(s);
    }
    struct hd_spill *s = start(1 << 20);
    write_block(s, 1);
    write_block(s, 2);
    write_block(s, 3);
    name_of(1, path);
    name_of(2, other);
    assert_int_equal(rename(path, other), 0);
    name_of(3, path);
    assert_int_equal(truncate(path, 30000), 0);
    assert_false(read_block(s, 1));
    assert_false(read_block(s, 2));
    assert_false(read_block(s, 3));
    hd_spill_close(s);
}

/* kill -9 at any moment: what is there afterwards is whole. */
static void killed_while_writing(void **state)
{
    int found = 0;
    (void)state;
    for (int round = 0; round < 25; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            struct hd_spill *s = start(100 << 20);
            for (int i = 0; i < 2000; i++)
                write_block(s, i);
            _exit(0);
        }
        usleep((useconds_t)(1000 + round * 1500));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        struct hd_spill *s = start(100 << 20);
        for (int i = 0; i < 100; i++)
            found += read_block(s, i);
        hd_spill_close(s);
    }
    assert_true(found > 0);
}

static void secrets_are_guarded(void **state)
{
    struct hd_spill *s;
    struct hd_errmsg msg = {0};
    char path[200];
    (void)state;
    s = start(1 << 20);
    struct hd_spill *second;
    assert_int_equal(hd_spill_open(&second, folder, 1, &msg), HD_ERR_BUSY);
    write_block(s, 1);
    hd_spill_close(s);
    snprintf(path, sizeof path, "%s/key", folder);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(hd_spill_open(&s, folder, 1 << 20, &msg), HD_ERR_INVALID);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(unlink(path), 0); /* another key: the blocks are worthless, and not believed */
    s = start(1 << 20);
    assert_false(read_block(s, 1));
    hd_spill_close(s);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "\x02", 1, 8), 1);
    close(fd);
    assert_int_equal(hd_spill_open(&s, folder, 1 << 20, &msg), HD_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(survives_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(content_is_encrypted, setup, teardown),
        cmocka_unit_test_setup_teardown(budget_evicts_the_least_used, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_absence, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_while_writing, setup, teardown),
        cmocka_unit_test_setup_teardown(secrets_are_guarded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
