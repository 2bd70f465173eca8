/* holdfast doctor: what this machine offers, what is installed, what is missing. Changes nothing.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "app.h"
#include "base/file.h"
#include "kernels/backend.h"
#include "kernels/repack.h"
#include "pull/installed.h"
#include "pull/process.h"
#include "pull/target.h"

enum { MAX_PROC_BYTES = 4 << 20, MAX_FLAGS_TEXT = 512 };

struct machine {
    char cpu[128];
    int cores;                /* that this process may use */
    double cpu_quota;         /* cores' worth of time by control group; 0 = no limit */
    char isa[MAX_FLAGS_TEXT]; /* those that kernels ask for, with spaces between */
    char kernels[16];         /* what `auto` picks */
    uint64_t memory_total, memory_available, memory_limit; /* limit: control group; 0 = none */
    uint64_t disk_free; /* of the file system of home, or of what exists above it */
};

/* ------------------------------------------------------------------------- processor, memory */

/* The rest of the first line that begins with `key` and has a colon; "" if there is none. */
static void find_line(char *out, size_t cap, const char *text, const char *key)
{
    size_t n = strlen(key);
    out[0] = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *colon = strncmp(line, key, n) ? NULL : strchr(line, ':');
        if (!colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(out, cap, "%.*s", (int)strcspn(colon, "\n"), colon);
        return;
    }
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

static void look_at_cpu(struct machine *m)
{
    static const char *const wanted[] = {
        "avx2",        "fma",         "f16c",     "avx512f",  "avx512bw", "avx512vl",
        "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16",
        "asimd",       "asimddp",     "i8mm",     "sve",
    };
    cpu_set_t set;
    char *text, *flags = malloc(16384);
    m->cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN)
                                                      : CPU_COUNT(&set);
    if (flags && !hd_file_read(&text, NULL, "/proc/cpuinfo", MAX_PROC_BYTES, NULL)) {
        size_t n = 0;
        find_line(m->cpu, sizeof m->cpu, text, "model name");
        find_line(flags, 16384, text, "flags");
        if (!flags[0])
            find_line(flags, 16384, text, "Features"); /* ARM's word */
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (has_word(flags, wanted[i]) && n + 20 < sizeof m->isa)
                n += (size_t)snprintf(m->isa + n, sizeof m->isa - n, "%s%s", n ? " " : "",
                                      wanted[i]);
        free(text);
    }
    free(flags);
    const struct hd_backend *backend;
    if (!hd_backend_get(&backend, "auto", NULL))
        snprintf(m->kernels, sizeof m->kernels, "%s", hd_backend_name(backend));
}

static uint64_t memory_line(const char *text, const char *key)
{
    char value[64];
    find_line(value, sizeof value, text, key);
    return strtoull(value, NULL, 10) * 1024;
}

static void look_at_memory(struct machine *m)
{
    char *text;
    if (!hd_file_read(&text, NULL, "/proc/meminfo", MAX_PROC_BYTES, NULL)) {
        m->memory_total = memory_line(text, "MemTotal");
        m->memory_available = memory_line(text, "MemAvailable");
        free(text);
    }
    if (!hd_file_read(&text, NULL, "/sys/fs/cgroup/memory.max", 256, NULL)) {
        m->memory_limit = strtoull(text, NULL, 10); /* "max" is 0: none */
        free(text);
    }
    if (!hd_file_read(&text, NULL, "/sys/fs/cgroup/cpu.max", 256, NULL)) {
        double quota, period;
        if (sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0)
            m->cpu_quota = quota / period;
        free(text);
    }
}

/* home need not exist yet: the nearest folder above it that does has its file system. */
static void look_at_disk(struct machine *m, const char *home)
{
    struct statvfs fs;
    char *path = strdup(home);
    while (path && statvfs(path, &fs)) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path) {
            strcpy(path, slash ? "/" : ".");
            if (statvfs(path, &fs))
                fs.f_bavail = 0;
            break;
        }
        *slash = 0;
    }
    if (path)
        m->disk_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    free(path);
}

/* ------------------------------------------------------------------------- repacked weights */

struct repacked {
    json_t *list;   /* owned: source (null where the file does not tell) and bytes of each */
    uint64_t bytes; /* on disk, of all */
};

static void note_repacked(struct repacked *r, int folder, const char *name)
{
    static const char suffix[] = ".repack";
    const size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    struct hd_repack_info info = {0};
    struct stat st;
    if (n < n_suffix || strcmp(name + n - n_suffix, suffix) != 0)
        return;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        if (hd_repack_look(&info, fd, NULL))
            info.source = NULL;
        r->bytes += (uint64_t)st.st_blocks * 512;
        json_array_append_new(r->list, json_pack("{s:s?, s:I}", "source", info.source, "bytes",
                                                 (json_int_t)st.st_blocks * 512));
        free(info.source);
    }
    if (fd >= 0)
        close(fd);
}

/* What --repack keeps under home; no folder means nothing. */
static void look_at_repacked(struct repacked *r, const char *home)
{
    char *path = hd_path_join(home, "cache/repack");
    DIR *dir = path ? opendir(path) : NULL;
    struct dirent *d;
    r->list = json_array();
    while (dir && (d = readdir(dir)))
        note_repacked(r, dirfd(dir), d->d_name);
    if (dir)
        closedir(dir);
    free(path);
}

/* ------------------------------------------------------------------------- components */

/* Optional parts of the system: a program, or a library that can be loaded. */
static const struct component {
    const char *name, *program, *library, *package, *use;
} components[] = {
    {"pdftotext", "pdftotext", NULL, "poppler-utils", "PDF documents"},
    {"pip", NULL, NULL, "python3-pip", "models from a Python package index"},
    {"tesseract", "tesseract", NULL, "tesseract-ocr tesseract-ocr-chi-sim", "scanned documents"},
    {"openblas", NULL, "libopenblas.so.0", "libopenblas0", "training"},
    {"libpq", NULL, "libpq.so.5", "libpq5", "knowledge bases in PostgreSQL (pgvector)"},
    {"mpi", "mpirun", NULL, "openmpi-bin", "one model on several machines"},
    {"cuda", NULL, "libcuda.so.1", "the NVIDIA driver", "NVIDIA GPUs"},
};

static bool program_there(const char *name)
{
    char *path = hd_process_find(name);
    free(path);
    return path != NULL;
}

/* pip is there where a python3 has it or a program of its own is. */
static bool pip_there(void)
{
    char *python = hd_process_find("python3");
    struct hd_process_result *result = malloc(sizeof *result);
    char *argv[] = {python, "-m", "pip", "--version", NULL};
    bool there = python && result && !hd_process_run(result, argv, NULL, 20, NULL, NULL, NULL) &&
                 result->status == 0;
    free(python);
    free(result);
    return there || program_there("pip3") || program_there("pip");
}

static bool component_there(const struct component *c)
{
    if (c->program)
        return program_there(c->program);
    if (!c->library)
        return pip_there();
    void *handle = dlopen(c->library, RTLD_LAZY | RTLD_LOCAL);
    if (handle)
        dlclose(handle);
    return handle != NULL;
}

/* ------------------------------------------------------------------------- output */

static json_t *machine_json(const struct machine *m, const char *home)
{
    json_t *isa = json_array();
    for (const char *p = m->isa; *p;) {
        size_t n = strcspn(p, " ");
        json_array_append_new(isa, json_stringn(p, n));
        p += n + (p[n] == ' ');
    }
    return json_pack("{s:s, s:s, s:i, s:o, s:o, s:s, s:I, s:I, s:o, s:s, s:I}", "version",
                     HOLDFAST_VERSION, "cpu", m->cpu, "cores", m->cores, "cpu_quota",
                     m->cpu_quota > 0 ? json_real(m->cpu_quota) : json_null(), "isa", isa,
                     "kernels", m->kernels, "memory_bytes", (json_int_t)m->memory_total,
                     "memory_available_bytes", (json_int_t)m->memory_available,
                     "memory_limit_bytes",
                     m->memory_limit ? json_integer((json_int_t)m->memory_limit) : json_null(),
                     "home", home, "disk_free_bytes", (json_int_t)m->disk_free);
}

static json_t *models_json(const struct hd_installed *list, size_t n)
{
    json_t *models = json_array();
    const struct hd_installed *chosen = hd_installed_default(list, n);
    for (size_t i = 0; i < n; i++) {
        json_t *o = json_pack("{s:s, s:s, s:I, s:b, s:b}", "name", list[i].name, "path",
                              list[i].path, "bytes", (json_int_t)list[i].size, "checked",
                              list[i].sha256[0] != 0, "default", &list[i] == chosen);
        if (list[i].licence)
            json_object_set_new(o, "licence", json_string(list[i].licence));
        json_array_append_new(models, o);
    }
    return models;
}

static int print_json(const struct machine *m, const char *home, const struct hd_installed *list,
                      size_t n, const struct repacked *repacked)
{
    json_t *parts = json_array();
    for (size_t i = 0; i < sizeof components / sizeof *components; i++)
        json_array_append_new(parts,
                              json_pack("{s:s, s:b, s:s, s:s}", "name", components[i].name,
                                        "present", component_there(&components[i]), "package",
                                        components[i].package, "use", components[i].use));
    json_t *root = machine_json(m, home);
    json_object_set_new(root, "models", models_json(list, n));
    json_object_set(root, "repacked", repacked->list);
    json_object_set_new(root, "components", parts);
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!text)
        return hd_app_fail(HD_ERR_NOMEM, NULL);
    puts(text);
    free(text);
    return HD_EXIT_OK;
}

static void print_models(const struct hd_installed *list, size_t n)
{
    const struct hd_installed *chosen = hd_installed_default(list, n);
    if (!n)
        printf("models      none (get one: holdfast pull qwen2.5-coder:1.5b)\n");
    for (size_t i = 0; i < n; i++) {
        char size[32] = "folder";
        if (list[i].size)
            hd_size_text(size, list[i].size);
        printf("%-11s %s (%s%s%s)\n", i ? "" : "models", list[i].name, size,
               list[i].sha256[0] ? ", hash checked" : "",
               &list[i] == chosen ? ", used when none is named" : "");
    }
}

static int print_text(const struct machine *m, const char *home, const struct hd_installed *list,
                      size_t n, const struct repacked *repacked)
{
    char total[32], available[32], disk[32], limit[32], copies[32];
    printf("holdfast    %s\n", HOLDFAST_VERSION);
    printf("processor   %s, %d core%s", m->cpu[0] ? m->cpu : "unknown", m->cores,
           m->cores == 1 ? "" : "s");
    if (m->cpu_quota > 0)
        printf(" (limited to the time of %.1f)", m->cpu_quota);
    printf("\nisa         %s\n", m->isa[0] ? m->isa : "none that the kernels use");
    printf("kernels     %s\n", m->kernels[0] ? m->kernels : "unknown");
    printf("memory      %s, %s available", hd_size_text(total, m->memory_total),
           hd_size_text(available, m->memory_available));
    if (m->memory_limit)
        printf(" (limited to %s)", hd_size_text(limit, m->memory_limit));
    printf("\nhome        %s, %s free\n", home, hd_size_text(disk, m->disk_free));
    print_models(list, n);
    if (repacked->bytes)
        printf("repacked    weights of %zu model%s in cache/repack, %s (--repack)\n",
               json_array_size(repacked->list), json_array_size(repacked->list) == 1 ? "" : "s",
               hd_size_text(copies, repacked->bytes));
    printf("\noptional components\n");
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        const struct component *c = &components[i];
        bool there = component_there(c);
        printf("  %-10s %-8s %s", c->name, there ? "present" : "missing", c->use);
        if (!there)
            printf(" (install: %s)", c->package);
        printf("\n");
    }
    return HD_EXIT_OK;
}

int hd_cmd_doctor(struct hd_app *app)
{
    struct machine machine = {0};
    struct repacked repacked = {0};
    struct hd_installed *list = NULL;
    struct hd_errmsg msg = {0};
    size_t n = 0;
    char *models = hd_path_join(app->home, "models");
    if (!models)
        return hd_app_fail(HD_ERR_NOMEM, NULL);
    look_at_cpu(&machine);
    look_at_memory(&machine);
    look_at_disk(&machine, app->home);
    look_at_repacked(&repacked, app->home);
    enum hd_err err = hd_installed_list(&list, &n, models, &msg);
    int status = err         ? hd_app_fail(err, &msg)
                 : app->json ? print_json(&machine, app->home, list, n, &repacked)
                             : print_text(&machine, app->home, list, n, &repacked);
    json_decref(repacked.list);
    hd_installed_free(list, n);
    free(models);
    return status;
}
