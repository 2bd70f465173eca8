#include "engine/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PATH = 1024 };

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

/* --- control groups ---------------------------------------------------------------------------
 */

/* The names of the files of one version. */
struct version {
    const char *mount[3]; /* where such a hierarchy may be mounted */
    const char *limit[2], *used, *cached;
};
static const struct version version2 = {
    {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", NULL},
    {"memory.max", "memory.high"},
    "memory.current",
    "inactive_file",
};
static const struct version version1 = {
    {"/sys/fs/cgroup/memory", NULL, NULL},
    {"memory.limit_in_bytes", NULL},
    "memory.usage_in_bytes",
    "total_inactive_file",
};

static void tighten(struct hd_memory *m, uint64_t left, uint64_t limit, const char *group,
                    const char *file)
{
    if (left >= m->left)
        return;
    m->left = (size_t)left;
    m->limit = (size_t)limit;
    snprintf(m->who, sizeof m->who, "the control group %.150s (%s)", *group ? group : "/", file);
}

/* Looks at one group; folder is its directory, group its name. */
static void look_at(struct hd_memory *m, const struct version *v, const char *folder,
                    const char *group)
{
    char path[MAX_PATH + 64];
    uint64_t limit, used, cached = 0;
    snprintf(path, sizeof path, "%s/%s", folder, v->used);
    if (!read_number(path, &used))
        return;
    /* Pages of files count as used although they can be dropped. */
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    read_field(path, v->cached, &cached);
    used -= cached < used ? cached : used;
    for (int i = 0; i < 2 && v->limit[i]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, v->limit[i]);
        if (read_number(path, &limit)) /* "max" is no number: no limit */
            tighten(m, limit > used ? limit - used : 0, limit, group, v->limit[i]);
    }
}

/* The group and all around it. A container may see only its own, mounted as the root. */
static void look_up(struct hd_memory *m, const struct version *v, const char *root,
                    const char *group)
{
    char name[MAX_PATH], folder[MAX_PATH];
    for (int i = 0; i < 3 && v->mount[i]; i++) {
        if ((size_t)snprintf(name, sizeof name, "%s", group) >= sizeof name)
            return;
        for (;;) {
            size_t n = strlen(name);
            while (n && name[n - 1] == '/')
                name[--n] = 0;
            if ((size_t)snprintf(folder, sizeof folder, "%s%s%s", root, v->mount[i], name) <
                sizeof folder)
                look_at(m, v, folder, name);
            if (!n)
                break;
            *strrchr(name, '/') = 0;
        }
    }
}

/* "0::/path" is version 2; "9:memory:/path", among others, version 1. */
static void look_at_groups(struct hd_memory *m, const char *root)
{
    char line[MAX_PATH], path[MAX_PATH];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group || group[1] != '/' || strstr(group, "/../"))
            continue;
        *group++ = 0;
        if (!strcmp(line, "0:"))
            look_up(m, &version2, root, group);
        else if (strstr(names, "memory"))
            look_up(m, &version1, root, group);
    }
    if (f)
        fclose(f);
}

void hd_memory_look(struct hd_memory *m, const char *root)
{
    char path[MAX_PATH];
    uint64_t kib, total = 0;
    *m = (struct hd_memory){SIZE_MAX, SIZE_MAX, "this machine"};
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_field(path, "MemAvailable", &kib))
        m->left = (size_t)kib * 1024;
    if (read_field(path, "MemTotal", &total))
        m->limit = (size_t)total * 1024;
    look_at_groups(m, root);
}

size_t hd_memory_available(void)
{
    struct hd_memory m;
    hd_memory_look(&m, "");
    return m.left;
}
