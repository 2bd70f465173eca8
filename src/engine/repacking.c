/* Repacked weights on disk: which models have them, where, and what makes room for them.
 *
 * A file's name comes from the model file's state and the layout, so what is outdated is never met,
 * only cleaned up: files whose model is gone or has changed, leftovers of processes that were
 * killed, and, where the disk is short, those that were used longest ago. Files in use are locked
 * and stay. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine/engine_impl.h"
#include "kernels/repack.h"

#define SUFFIX ".repack"
enum {
    MAX_ENTRIES = 1024,
    SMALLEST_AUTO = 32 << 20, /* smaller copies are made in no time */
    RESERVE = 256 << 20,      /* of the disk, that is left to others */
    SHARE = 10,               /* auto takes at most the 10th part of what is free */
};
/* With auto a short command is over before it begins to write gigabytes. */
static const double AUTO_DELAY_S = 10;

/* --- the folder ------------------------------------------------------------------------------ */

struct entry {
    char name[128];
    uint64_t bytes; /* on disk */
    struct timespec used;
};

struct folder {
    int fd;
    struct entry *entry; /* [n], without those that were removed */
    size_t n;
    uint64_t bytes;
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Removes a file that no process uses. */
static bool remove_unused(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool gone = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !unlinkat(folder, name, 0);
    if (fd >= 0)
        close(fd);
    return gone;
}

/* Whether an entry serves nobody any more: its model is gone, or is this one in another state. */
static bool is_outdated(int folder, const char *name, const struct hd_loaded *m)
{
    struct hd_repack_info info;
    struct stat st;
    bool outdated = true;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    enum hd_err err = hd_repack_look(&info, fd, NULL);
    close(fd);
    if (err)
        return err != HD_ERR_NOMEM && err != HD_ERR_DENIED;
    outdated = (stat(info.source, &st) && errno == ENOENT) ||
               (!strcmp(info.source, hd_store_path(m->store)) &&
                strcmp(info.identity, m->repacking.identity) != 0);
    free(info.source);
    return outdated;
}

static void note(struct folder *f, const char *name)
{
    struct stat st;
    if (f->n == MAX_ENTRIES || strlen(name) >= sizeof f->entry->name ||
        fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return;
    struct entry *e = &f->entry[f->n++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->bytes = (uint64_t)st.st_blocks * 512;
    e->used = st.st_mtim;
    f->bytes += e->bytes;
}

/* Cleans up and lists what is left. */
static bool folder_open(struct folder *f, const char *path, const char *keep,
                        const struct hd_loaded *m)
{
    struct dirent *d;
    *f = (struct folder){.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    f->entry = calloc(MAX_ENTRIES, sizeof *f->entry);
    DIR *dir = f->fd >= 0 && f->entry ? fdopendir(dup(f->fd)) : NULL;
    while (dir && (d = readdir(dir))) {
        bool stale = ends_with(d->d_name, SUFFIX ".tmp") ||
                     (ends_with(d->d_name, SUFFIX) && strcmp(d->d_name, keep) != 0 &&
                      is_outdated(f->fd, d->d_name, m));
        if (stale && remove_unused(f->fd, d->d_name))
            hd_log(HD_LOG_INFO, "engine", "repacked weights removed file=%s", d->d_name);
        else if (ends_with(d->d_name, SUFFIX))
            note(f, d->d_name);
    }
    if (dir)
        closedir(dir);
    return dir != NULL;
}

static void folder_close(struct folder *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->entry);
}

static uint64_t disk_free(const struct folder *f)
{
    struct statvfs fs;
    return fstatvfs(f->fd, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* What all files together may take. */
static uint64_t budget(const struct folder *f, enum hd_repack_mode mode)
{
    uint64_t all = disk_free(f) + f->bytes;
    if (mode == HD_REPACK_AUTO)
        return all / SHARE;
    return all > RESERVE ? all - RESERVE : 0;
}

static int by_use(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return (x->used.tv_nsec > y->used.tv_nsec) - (x->used.tv_nsec < y->used.tv_nsec);
}

/* Removes what was used longest ago until `need` more bytes fit. */
static bool make_room(struct folder *f, uint64_t need, enum hd_repack_mode mode)
{
    uint64_t most = budget(f, mode);
    if (need > most)
        return false;
    qsort(f->entry, f->n, sizeof *f->entry, by_use);
    for (size_t i = 0; i < f->n && f->bytes + need > most; i++)
        if (remove_unused(f->fd, f->entry[i].name)) {
            hd_log(HD_LOG_INFO, "engine", "repacked weights removed to make room file=%s",
                   f->entry[i].name);
            f->bytes -= f->entry[i].bytes;
        }
    return f->bytes + need <= most;
}

/* --- a model --------------------------------------------------------------------------------- */

static enum hd_err identify(struct hd_repacking *r, const struct hd_loaded *m)
{
    char text[132];
    enum hd_err err = hd_store_stamp(m->store, text);
    if (!err)
        err = hd_model_copies_digest(m->model, text + 64);
    return err ? err : hd_sha256_hex(r->identity, text, 128);
}

/* The file's name in the folder; marks it as used where it is there already. */
static bool is_there(const struct folder *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->entry[i].name, name)) {
            utimensat(f->fd, name, NULL, AT_SYMLINK_NOFOLLOW);
            return true;
        }
    return false;
}

void hd_repacking__plan(struct hd_engine *e, struct hd_loaded *m)
{
    struct hd_repacking *r = &m->repacking;
    struct hd_errmsg msg = {0};
    struct folder f;
    char name[64];
    size_t need = hd_model_copy_bytes(m->model);
    bool automatic = e->repack == HD_REPACK_AUTO;
    if (!e->cache_dir || !need || e->preload != HD_PRELOAD_MMAP || e->repack == HD_REPACK_OFF ||
        (automatic && need < SMALLEST_AUTO) || !strcmp(hd_backend_name(e->backend), "ref"))
        return;
    enum hd_err err = identify(r, m);
    if (!err)
        err = hd_mkdirs(e->cache_dir, &msg);
    if (err) {
        hd_log(HD_LOG_WARN, "engine", "repacked weights are not kept: %s",
               msg.text[0] ? msg.text : hd_err_text(err));
        return;
    }
    snprintf(name, sizeof name, "%.40s" SUFFIX, r->identity);
    if (!folder_open(&f, e->cache_dir, name, m)) {
        hd_log(HD_LOG_WARN, "engine", "repacked weights are not kept: %s: %s", e->cache_dir,
               strerror(errno));
    } else if (is_there(&f, name) || make_room(&f, need, e->repack)) {
        r->path = hd_path_join(e->cache_dir, name);
        r->cache = (struct hd_model_cache){r->path, r->identity, !automatic, m->loader.resident};
        r->delay_s = automatic ? AUTO_DELAY_S : 0;
    } else {
        hd_log(automatic ? HD_LOG_INFO : HD_LOG_WARN, "engine",
               "repacked weights are not kept: %.0f MB are needed, the budget of %s is %.0f MB",
               (double)need / 1e6, e->cache_dir, (double)budget(&f, e->repack) / 1e6);
    }
    folder_close(&f);
}

const struct hd_model_cache *hd_repacking__cache(const struct hd_loaded *m)
{
    return m->repacking.path ? &m->repacking.cache : NULL;
}

/* Until then, or until the loader is told to stop. */
static void wait_until(struct hd_loader *l, double when)
{
    struct timespec t = {.tv_sec = (time_t)when};
    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    pthread_mutex_lock(&l->mu);
    while (!atomic_load(&l->stop) && !pthread_cond_timedwait(&l->done, &l->mu, &t))
        ;
    pthread_mutex_unlock(&l->mu);
}

void hd_repacking__save(struct hd_loaded *m)
{
    struct hd_repacking *r = &m->repacking;
    struct hd_errmsg msg = {0};
    if (!r->path)
        return;
    if (!hd_model_found(m->model))
        wait_until(&m->loader, hd_clock_seconds() + r->delay_s);
    double start = hd_clock_seconds();
    enum hd_err err = hd_model_save_copies(m->model, &r->cache, &m->loader.stop, &msg);
    double s = hd_clock_seconds() - start;
    if (!err)
        hd_log(HD_LOG_INFO, "engine", "repacked weights kept name=%s file=%s s=%.2f", m->name,
               r->path, s);
    else if (err != HD_ERR_CANCELLED)
        hd_log(err == HD_ERR_UNSUPPORTED || err == HD_ERR_BUSY ? HD_LOG_INFO : HD_LOG_WARN,
               "engine", "repacked weights: %s", msg.text);
}
