#include "engine/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static bool read_number(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fscanf(f, "%" SCNu64, out) == 1;
    if (f)
        fclose(f);
    return ok;
}

/* The value of "NAME: 123 kB" in /proc/meminfo, or of "NAME 123" in memory.stat. */
static bool read_field(const char *path, const char *name, uint64_t *out)
{
    char line[160];
    size_t n = strlen(name);
    bool found = false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    while (!found && fgets(line, sizeof line, f))
        if (!strncmp(line, name, n) && (line[n] == ' ' || line[n] == ':'))
            found = sscanf(line + n + 1, "%" SCNu64, out) == 1;
    fclose(f);
    return found;
}

/* Pages of files count as used in a control group although they can be dropped. */
static size_t left_in_group(const char *limit_path, const char *used_path, const char *stat_path)
{
    uint64_t limit, used, cached = 0;
    if (!read_number(limit_path, &limit) || !read_number(used_path, &used))
        return SIZE_MAX; /* "max": no limit */
    read_field(stat_path, "inactive_file", &cached);
    used -= cached < used ? cached : used;
    return limit > used ? (size_t)(limit - used) : 0;
}

size_t hd_memory_available(void)
{
    uint64_t kib;
    size_t left = SIZE_MAX;
    if (read_field("/proc/meminfo", "MemAvailable", &kib))
        left = (size_t)kib * 1024;
    size_t v2 = left_in_group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                              "/sys/fs/cgroup/memory.stat");
    size_t v1 = left_in_group("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                              "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                              "/sys/fs/cgroup/memory/memory.stat");
    left = left < v2 ? left : v2;
    return left < v1 ? left : v1;
}
