/* What memory is left, in made-up machines and control groups. */
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
#include "engine/memory.h"

static char root[] = "/tmp/hd_memory_XXXXXX";

static void put(const char *name, const char *text)
{
    char path[512], folder[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    assert_int_equal(hd_mkdirs(folder, NULL), 0);
    assert_int_equal(hd_file_write(path, text, strlen(text), NULL), 0);
}

static int make_root(void **state)
{
    strcpy(root, "/tmp/hd_memory_XXXXXX");
    if (!mkdtemp(root))
        return 1;
    put("proc/meminfo", "MemTotal:  8000000 kB\nMemFree: 1000 kB\nMemAvailable:   6000000 kB\n");
    return 0;
}

static int remove_root(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void expect(size_t left, size_t limit, const char *who)
{
    struct hd_memory m;
    hd_memory_look(&m, root);
    assert_int_equal(m.left, left);
    assert_int_equal(m.limit, limit);
    assert_string_equal(m.who, who);
}

static void the_machine_alone(void **state)
{
    expect((size_t)6000000 * 1024, (size_t)8000000 * 1024, "this machine");
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/memory.stat", "anon 1\n"); /* the root has neither limit nor use */
    expect((size_t)6000000 * 1024, (size_t)8000000 * 1024, "this machine");
}

static void version_2_and_its_parents(void **state)
{
    put("proc/self/cgroup", "0::/service/holdfast.scope\n");
    put("sys/fs/cgroup/service/holdfast.scope/memory.max", "2000000000\n");
    put("sys/fs/cgroup/service/holdfast.scope/memory.high", "max\n");
    put("sys/fs/cgroup/service/holdfast.scope/memory.current", "500000000\n");
    put("sys/fs/cgroup/service/holdfast.scope/memory.stat",
        "anon 100000000\nfile 400000000\ninactive_file 300000000\n");
    expect(1800000000, 2000000000, "the control group /service/holdfast.scope (memory.max)");
    /* memory.high throttles: as good as a limit */
    put("sys/fs/cgroup/service/holdfast.scope/memory.high", "1500000000\n");
    expect(1300000000, 1500000000, "the control group /service/holdfast.scope (memory.high)");
    /* a group around it has less left */
    put("sys/fs/cgroup/service/memory.max", "1000000000\n");
    put("sys/fs/cgroup/service/memory.current", "900000000\n");
    put("sys/fs/cgroup/service/memory.stat", "inactive_file 0\n");
    expect(100000000, 1000000000, "the control group /service (memory.max)");
    /* more in use than allowed: nothing is left */
    put("sys/fs/cgroup/service/memory.current", "1100000000\n");
    expect(0, 1000000000, "the control group /service (memory.max)");
}

/* A container without a namespace of its own sees the host's path, and its group as the root. */
static void version_2_as_a_container_sees_it(void **state)
{
    put("proc/self/cgroup", "0::/docker/0123456789\n");
    put("sys/fs/cgroup/memory.max", "700000000\n");
    put("sys/fs/cgroup/memory.current", "200000000\n");
    put("sys/fs/cgroup/memory.stat", "inactive_file 100000000\n");
    expect(600000000, 700000000, "the control group / (memory.max)");
}

static void version_1_beside_version_2(void **state)
{
    put("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/jobs/a\n0::/\n");
    put("sys/fs/cgroup/memory/jobs/a/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/jobs/a/memory.usage_in_bytes", "100000000\n");
    put("sys/fs/cgroup/memory/jobs/a/memory.stat", "total_inactive_file 50000000\n");
    expect((size_t)6000000 * 1024, (size_t)8000000 * 1024, "this machine");
    put("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "400000000\n");
    put("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", "100000000\n");
    put("sys/fs/cgroup/memory/jobs/memory.stat", "total_inactive_file 0\n");
    expect(300000000, 400000000, "the control group /jobs (memory.limit_in_bytes)");
}

static void odd_files_mean_no_limit(void **state)
{
    put("proc/self/cgroup", "nonsense\n0:\n::\n0::relative\n0::/../../etc\n0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "-5 apples\n");
    put("sys/fs/cgroup/a/memory.current", "\n");
    expect((size_t)6000000 * 1024, (size_t)8000000 * 1024, "this machine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_machine_alone, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_2_and_its_parents, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_2_as_a_container_sees_it, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_1_beside_version_2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(odd_files_mean_no_limit, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
