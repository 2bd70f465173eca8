/* Memory for copies of weights: sealed, shared, and what lies in /dev/shm besides. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/arena.h"

enum { BYTES = 3 << 20 };
static char key[64], path[128];

static int name_it(void **state)
{
    snprintf(key, sizeof key, "test%d-a", (int)getpid());
    snprintf(path, sizeof path, "/dev/shm/holdfast-%s", key);
    return 0;
}

static int remove_it(void **state)
{
    unlink(path);
    return 0;
}

static struct hd_arena *open_arena(enum hd_arena_kind kind)
{
    struct hd_arena *a;
    struct hd_errmsg msg = {0};
    if (hd_arena_new(&a, kind, BYTES, key, &msg))
        fail_msg("%s", msg.text);
    return a;
}

/* Whether writing to the memory kills: in a child. */
static bool write_kills(void *p)
{
    pid_t child = fork();
    if (!child) {
        signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on */
        *(volatile char *)p = 1;
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void private_memory_is_zeroed(void **state)
{
    struct hd_arena *a = open_arena(HD_ARENA_PRIVATE);
    char *p = hd_arena_data(a);
    for (size_t i = 0; i < BYTES; i += 4096)
        assert_int_equal(p[i], 0);
    p[BYTES - 1] = 7;
    assert_false(hd_arena_found(a));
    hd_arena_seal(a);
    hd_arena_free(a);
    hd_arena_free(NULL);
}

static void sealed_memory_cannot_be_written(void **state)
{
    struct hd_arena *a = open_arena(HD_ARENA_MEMFD);
    char *p = hd_arena_data(a);
    p[5] = 42;
    assert_false(write_kills(p));
    hd_arena_seal(a);
    assert_int_equal(p[5], 42);
    assert_true(write_kills(p));
    hd_arena_free(a);
}

static void a_shared_copy_is_found_again(void **state)
{
    struct stat st;
    struct hd_arena *a = open_arena(HD_ARENA_SHM);
    char *p = hd_arena_data(a);
    assert_false(hd_arena_found(a));
    assert_int_equal((uintptr_t)p % 64, 0);
    p[0] = 1, p[BYTES - 1] = 2;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    hd_arena_seal(a);
    struct hd_arena *b = open_arena(HD_ARENA_SHM); /* beside the first */
    hd_arena_free(a);
    assert_true(hd_arena_found(b));
    p = hd_arena_data(b);
    assert_true(p[0] == 1 && p[BYTES - 1] == 2);
    assert_true(write_kills(p));
    /* in use: not removed; afterwards it is */
    assert_int_equal(hd_arena_remove(key, NULL), 0);
    hd_arena_free(b);
    assert_int_equal(hd_arena_remove(key, key), 0);
    assert_int_equal(hd_arena_remove(key, NULL), 1);
    assert_int_equal(access(path, F_OK), -1);
}

static void half_filled_copies_are_of_no_use(void **state)
{
    struct hd_arena *a = open_arena(HD_ARENA_SHM), *b;
    struct hd_errmsg msg = {0};
    /* somebody is filling it: in another process, for locks of one process do not collide */
    pid_t child = fork();
    if (!child)
        _exit(hd_arena_new(&b, HD_ARENA_SHM, BYTES, key, &msg) == HD_ERR_BUSY ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hd_arena_free(a); /* not sealed */
    assert_int_equal(access(path, F_OK), -1);
    /* a process that was killed leaves one behind */
    child = fork();
    if (!child) {
        open_arena(HD_ARENA_SHM);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, &status, 0);
    assert_int_equal(access(path, F_OK), 0);
    a = open_arena(HD_ARENA_SHM);
    assert_false(hd_arena_found(a));
    hd_arena_free(a);
}

static void damaged_or_foreign_files_are_refused(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_arena *a = open_arena(HD_ARENA_SHM);
    hd_arena_seal(a);
    hd_arena_free(a);
    /* a flipped bit in the head, another size: made anew */
    for (int i = 0; i < 2; i++) {
        int fd = open(path, O_RDWR);
        char byte;
        if (i)
            assert_int_equal(ftruncate(fd, BYTES), 0);
        else
            assert_true(pread(fd, &byte, 1, 9) == 1 && (byte ^= 4, pwrite(fd, &byte, 1, 9) == 1));
        close(fd);
        a = open_arena(HD_ARENA_SHM);
        assert_false(hd_arena_found(a));
        hd_arena_seal(a);
        hd_arena_free(a);
    }
    /* that others can open it, or a link: somebody else's doing */
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(hd_arena_new(&a, HD_ARENA_SHM, BYTES, key, &msg), HD_ERR_DENIED);
    unlink(path);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    assert_int_not_equal(hd_arena_new(&a, HD_ARENA_SHM, BYTES, key, &msg), HD_OK);
    unlink(path);
    assert_int_equal(hd_arena_new(&a, HD_ARENA_SHM, BYTES, "../x", &msg), HD_ERR_INVALID);
    assert_int_equal(hd_arena_new(&a, HD_ARENA_SHM, (size_t)1 << 50, key, &msg), HD_ERR_LIMIT);
    assert_non_null(strstr(msg.text, "MB are free in /dev/shm"));
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_memory_is_zeroed),
        cmocka_unit_test(sealed_memory_cannot_be_written),
        cmocka_unit_test_setup_teardown(a_shared_copy_is_found_again, name_it, remove_it),
        cmocka_unit_test_setup_teardown(half_filled_copies_are_of_no_use, name_it, remove_it),
        cmocka_unit_test_setup_teardown(damaged_or_foreign_files_are_refused, name_it, remove_it),
    };
    if (access("/dev/shm", W_OK)) {
        puts("skipped: no /dev/shm here");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
