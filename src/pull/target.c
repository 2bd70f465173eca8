#include "pull/target.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"

enum { MAX_JOURNAL_BYTES = 64 << 20, HASH_STEP = 1 << 20, SPARE_BYTES = 16 << 20 };

struct range {
    uint64_t begin, end;
};

struct hd_target {
    char *models; /* the folder; owned, like the other paths */
    char *final_path, *partial_path, *journal_path, *lock_path, *converted_path;
    int lock_fd;
    int fd;         /* of the partial file; -1 before _begin */
    int journal_fd; /* opened for appending */
    bool converted; /* what is published lies under converted_path */
    uint64_t size;
    pthread_mutex_t mu;  /* guards what follows, and the journal */
    struct range *range; /* finished bytes: sorted, disjoint, not touching */
    size_t n_range, cap_range;
    atomic_ullong landed;
    atomic_bool failed;
};

const char *hd_size_text(char out[32], uint64_t bytes)
{
    double n = (double)bytes;
    if (n >= 1e9)
        snprintf(out, 32, "%.*f GB", n >= 1e10 ? 1 : 2, n / 1e9);
    else if (n >= 1e6)
        snprintf(out, 32, "%.*f MB", n >= 1e7 ? 0 : 1, n / 1e6);
    else if (n >= 1e3)
        snprintf(out, 32, "%.0f kB", n / 1e3);
    else
        snprintf(out, 32, "%.0f B", n);
    return out;
}

enum hd_err hd_space_check(const char *folder, const char *what, uint64_t bytes,
                           struct hd_errmsg *msg)
{
    struct statvfs fs;
    char need[32], have[32];
    if (statvfs(folder, &fs))
        return hd_fail(msg, HD_ERR_IO, "%s: %s", folder, strerror(errno));
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (available >= bytes)
        return HD_OK;
    return hd_fail(msg, HD_ERR_LIMIT,
                   "%s: the disk is too full: %s are needed, %s are free in %s (make room, or "
                   "choose another disk with --home)",
                   what, hd_size_text(need, bytes), hd_size_text(have, available), folder);
}

/* ------------------------------------------------------------------------- open, lock, close */

/* Whether the open lock file is still the one that its name means: another pull may have removed
 * it between our open and our lock. */
static bool same_file(int fd, const char *path)
{
    struct stat a, b;
    return !fstat(fd, &a) && !stat(path, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static enum hd_err lock(struct hd_target *t, struct hd_errmsg *msg)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        t->lock_fd = open(t->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (t->lock_fd < 0)
            return hd_fail(msg, HD_ERR_IO, "%s: %s", t->lock_path, strerror(errno));
        if (flock(t->lock_fd, LOCK_EX | LOCK_NB)) {
            enum hd_err err =
                errno == EWOULDBLOCK
                    ? hd_fail(msg, HD_ERR_BUSY,
                              "%s: another pull of this file is running (wait for it, or end it)",
                              t->final_path)
                    : hd_fail(msg, HD_ERR_IO, "%s: %s", t->lock_path, strerror(errno));
            close(t->lock_fd);
            t->lock_fd = -1;
            return err;
        }
        if (same_file(t->lock_fd, t->lock_path))
            return HD_OK;
        close(t->lock_fd);
        t->lock_fd = -1;
    }
    return hd_fail(msg, HD_ERR_BUSY, "%s: cannot be locked", t->final_path);
}

enum hd_err hd_target_open(struct hd_target **out, const char *models, const char *file,
                           struct hd_errmsg *msg)
{
    *out = NULL;
    enum hd_err err = hd_mkdirs(models, msg);
    if (err)
        return err;
    struct hd_target *t = calloc(1, sizeof *t);
    if (!t)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    t->lock_fd = t->fd = t->journal_fd = -1;
    pthread_mutex_init(&t->mu, NULL);
    t->models = strdup(models);
    t->final_path = hd_path_join(models, file);
    if (t->final_path) {
        if (asprintf(&t->partial_path, "%s.partial", t->final_path) < 0)
            t->partial_path = NULL;
        if (asprintf(&t->journal_path, "%s.partial.journal", t->final_path) < 0)
            t->journal_path = NULL;
        if (asprintf(&t->converted_path, "%s.converted.partial", t->final_path) < 0)
            t->converted_path = NULL;
    }
    if (asprintf(&t->lock_path, "%s/.%s.lock", models, file) < 0)
        t->lock_path = NULL;
    if (!t->models || !t->partial_path || !t->journal_path || !t->lock_path || !t->converted_path)
        err = hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    if (!err)
        err = lock(t, msg);
    if (err) {
        hd_target_close(t);
        return err;
    }
    *out = t;
    return HD_OK;
}

static void close_files(struct hd_target *t)
{
    if (t->fd >= 0)
        close(t->fd);
    if (t->journal_fd >= 0)
        close(t->journal_fd);
    t->fd = t->journal_fd = -1;
}

void hd_target_close(struct hd_target *t)
{
    if (!t)
        return;
    close_files(t);
    if (t->lock_fd >= 0) {
        unlink(t->lock_path); /* while it is ours */
        close(t->lock_fd);
    }
    pthread_mutex_destroy(&t->mu);
    free(t->range);
    free(t->models);
    free(t->final_path);
    free(t->partial_path);
    free(t->journal_path);
    free(t->lock_path);
    free(t->converted_path);
    free(t);
}

/* ------------------------------------------------------------------------- finished ranges */

static enum hd_err add_range_locked(struct hd_target *t, uint64_t begin, uint64_t end)
{
    size_t i = 0, j;
    while (i < t->n_range && t->range[i].end < begin)
        i++;
    for (j = i; j < t->n_range && t->range[j].begin <= end; j++) {
        if (t->range[j].begin < begin)
            begin = t->range[j].begin;
        if (t->range[j].end > end)
            end = t->range[j].end;
    }
    if (i == j && t->n_range == t->cap_range) {
        size_t cap = t->cap_range ? 2 * t->cap_range : 64;
        struct range *grown = realloc(t->range, cap * sizeof *grown);
        if (!grown)
            return HD_ERR_NOMEM;
        t->range = grown;
        t->cap_range = cap;
    }
    memmove(t->range + i + 1, t->range + j, (t->n_range - j) * sizeof *t->range);
    t->n_range = t->n_range - (j - i) + 1;
    t->range[i] = (struct range){begin, end};
    return HD_OK;
}

static uint64_t sum_ranges(const struct hd_target *t)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n_range; i++)
        sum += t->range[i].end - t->range[i].begin;
    return sum;
}

bool hd_target_next_gap(struct hd_target *t, uint64_t from, uint64_t max, uint64_t *begin,
                        uint64_t *end)
{
    pthread_mutex_lock(&t->mu);
    uint64_t stop = t->size;
    for (size_t i = 0; i < t->n_range; i++) {
        if (t->range[i].end <= from)
            continue;
        if (t->range[i].begin <= from) {
            from = t->range[i].end;
            continue;
        }
        stop = t->range[i].begin;
        break;
    }
    pthread_mutex_unlock(&t->mu);
    if (from >= t->size)
        return false;
    *begin = from;
    *end = stop - from > max ? from + max : stop;
    return true;
}

bool hd_target_has(struct hd_target *t, uint64_t begin, uint64_t end)
{
    uint64_t gap_begin, gap_end;
    return !hd_target_next_gap(t, begin, 1, &gap_begin, &gap_end) || gap_begin >= end;
}

/* ------------------------------------------------------------------------- journal */

/* Appends one line with its checksum and syncs. */
static enum hd_err append_line(struct hd_target *t, const char *text, struct hd_errmsg *msg)
{
    char line[512];
    size_t len = strlen(text);
    int n = snprintf(line, sizeof line, "%s %016llx\n", text,
                     (unsigned long long)hd_hash64(text, len, 0));
    if (n < 0 || (size_t)n >= sizeof line)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: line too long", t->journal_path);
    if (write(t->journal_fd, line, (size_t)n) != n || fdatasync(t->journal_fd)) {
        atomic_store(&t->failed, true);
        return hd_fail(msg, HD_ERR_IO, "%s: %s", t->journal_path, strerror(errno));
    }
    return HD_OK;
}

/* Cuts the checksum off; false if it is wrong. */
static bool check_line(char *line)
{
    char *space = strrchr(line, ' '), *end;
    if (!space)
        return false;
    errno = 0;
    unsigned long long check = strtoull(space + 1, &end, 16);
    if (errno || *end || end != space + 17)
        return false;
    *space = 0;
    return check == hd_hash64(line, strlen(line), 0);
}

static void header_text(char out[160], uint64_t size, const char *identity)
{
    snprintf(out, 160, "HDPULL01 %llu %.80s", (unsigned long long)size, identity);
}

/* An ETag may hold spaces and worse: its hash is enough to see a change. */
static void source_text(char out[96], const char *label, const char *etag)
{
    if (etag[0])
        snprintf(out, 96, "source %.40s %016llx", label,
                 (unsigned long long)hd_hash64(etag, strlen(etag), 1));
    else
        snprintf(out, 96, "source %.40s -", label);
}

struct journal_reading {
    bool header_seen, stale; /* stale: the source has another version now */
    bool source_seen;        /* this very source line is there already */
    size_t good;             /* bytes of whole, sound lines */
};

static enum hd_err take_line(struct hd_target *t, struct journal_reading *r, char *line,
                             const char *header, const char *source)
{
    unsigned long long begin, end;
    if (!r->header_seen) {
        r->header_seen = !strcmp(line, header);
        return r->header_seen ? HD_OK : HD_ERR_FORMAT;
    }
    size_t label = strlen(source) - strlen(strrchr(source, ' '));
    if (!strncmp(line, source, label + 1)) {
        r->stale = strcmp(line, source) != 0;
        r->source_seen = !r->stale;
    } else if (sscanf(line, "done %llu %llu", &begin, &end) == 2 && begin < end && end <= t->size) {
        return add_range_locked(t, begin, end);
    }
    return HD_OK;
}

/* Reads the journal into t->range. Leaves t->range empty and *usable false where it is absent,
 * about another file, or the partial file is not there in full. */
static enum hd_err read_journal(struct hd_target *t, bool *usable, struct journal_reading *r,
                                const char *header, const char *source)
{
    char *text = NULL;
    size_t len;
    struct stat st;
    *usable = false;
    *r = (struct journal_reading){0};
    t->n_range = 0;
    if (stat(t->partial_path, &st) || (uint64_t)st.st_size != t->size)
        return HD_OK;
    enum hd_err err = hd_file_read(&text, &len, t->journal_path, MAX_JOURNAL_BYTES, NULL);
    if (err)
        return err == HD_ERR_NOMEM ? err : HD_OK;
    for (char *line = text, *next; !err && (next = strchr(line, '\n')); line = next + 1) {
        *next = 0;
        if (!check_line(line))
            break; /* torn by a crash; nothing after it counts */
        err = take_line(t, r, line, header, source);
        if (!err)
            r->good = (size_t)(next + 1 - text);
    }
    free(text);
    *usable = !err && r->header_seen && !r->stale;
    if (!*usable)
        t->n_range = 0;
    return err == HD_ERR_NOMEM ? err : HD_OK;
}

/* ------------------------------------------------------------------------- begin */

static enum hd_err io_failed(struct hd_target *t, const char *path, struct hd_errmsg *msg)
{
    int code = errno;
    atomic_store(&t->failed, true);
    if (code == ENOSPC || code == EDQUOT)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: the disk is full (make room and run it again)",
                       path);
    return hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(code));
}

static void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

/* The journal goes first: no moment in which it speaks of bytes that are not there. */
static enum hd_err start_afresh(struct hd_target *t, const char *header, struct hd_errmsg *msg)
{
    if (unlink(t->journal_path) && errno != ENOENT)
        return io_failed(t, t->journal_path, msg);
    sync_folder(t->models);
    t->fd = open(t->partial_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (t->fd < 0 || ftruncate(t->fd, (off_t)t->size))
        return io_failed(t, t->partial_path, msg);
    t->journal_fd =
        open(t->journal_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    if (t->journal_fd < 0)
        return io_failed(t, t->journal_path, msg);
    enum hd_err err = append_line(t, header, msg);
    sync_folder(t->models);
    return err;
}

static enum hd_err go_on(struct hd_target *t, size_t good, struct hd_errmsg *msg)
{
    t->fd = open(t->partial_path, O_RDWR | O_CLOEXEC);
    if (t->fd < 0)
        return io_failed(t, t->partial_path, msg);
    t->journal_fd = open(t->journal_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (t->journal_fd < 0 || ftruncate(t->journal_fd, (off_t)good)) /* a torn line goes */
        return io_failed(t, t->journal_path, msg);
    return HD_OK;
}

enum hd_err hd_target_check_space(struct hd_target *t, uint64_t size, uint64_t extra,
                                  struct hd_errmsg *msg)
{
    struct stat st;
    uint64_t have = stat(t->partial_path, &st) ? 0 : (uint64_t)st.st_blocks * 512;
    uint64_t need = have >= size ? 0 : size - have + SPARE_BYTES;
    enum hd_err err = hd_space_check(t->models, t->final_path, need + extra, msg);
    if (err)
        atomic_store(&t->failed, true);
    return err;
}

/* Takes the blocks now, so that a disk that others fill shows at once and not after gigabytes. */
static enum hd_err reserve(struct hd_target *t, struct hd_errmsg *msg)
{
    if (fallocate(t->fd, 0, 0, (off_t)t->size) && (errno == ENOSPC || errno == EDQUOT))
        return io_failed(t, t->partial_path, msg);
    return HD_OK;
}

enum hd_err hd_target_begin(struct hd_target *t, uint64_t size, const char *identity,
                            const char *label, const char *etag, uint64_t extra,
                            struct hd_errmsg *msg)
{
    char header[160], source[96];
    struct journal_reading reading;
    bool usable;
    close_files(t);
    t->size = size;
    header_text(header, size, identity);
    source_text(source, label, etag);
    enum hd_err err = hd_target_check_space(t, size, extra, msg);
    if (err)
        return err;
    err = read_journal(t, &usable, &reading, header, source);
    if (err)
        return hd_fail(msg, err, "pull: %s", hd_err_text(err));
    err = usable ? go_on(t, reading.good, msg) : start_afresh(t, header, msg);
    if (!err && !(usable && reading.source_seen))
        err = append_line(t, source, msg);
    if (!err)
        err = reserve(t, msg);
    atomic_store(&t->landed, sum_ranges(t));
    return err;
}

bool hd_target_is_complete(struct hd_target *t, uint64_t size, const char *identity)
{
    char header[160], source[96];
    struct journal_reading reading;
    bool usable;
    t->size = size;
    header_text(header, size, identity);
    source_text(source, "", "");
    return !read_journal(t, &usable, &reading, header, source) && usable &&
           hd_target_has(t, 0, size);
}

void hd_target_discard(struct hd_target *t)
{
    close_files(t);
    unlink(t->journal_path);
    unlink(t->partial_path);
    t->n_range = 0;
    atomic_store(&t->landed, 0);
}

/* ------------------------------------------------------------------------- filling */

enum hd_err hd_target_write(struct hd_target *t, uint64_t offset, const void *data, size_t len,
                            struct hd_errmsg *msg)
{
    const char *p = data;
    if (offset > t->size || len > t->size - offset)
        return hd_fail(msg, HD_ERR_FORMAT, "more bytes than the file has");
    while (len) {
        ssize_t n = pwrite(t->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_failed(t, t->partial_path, msg);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return HD_OK;
}

enum hd_err hd_target_commit(struct hd_target *t, uint64_t begin, uint64_t end,
                             struct hd_errmsg *msg)
{
    char line[96];
    if (begin >= end)
        return HD_OK;
    if (fdatasync(t->fd))
        return io_failed(t, t->partial_path, msg);
    snprintf(line, sizeof line, "done %llu %llu", (unsigned long long)begin,
             (unsigned long long)end);
    pthread_mutex_lock(&t->mu);
    enum hd_err err = append_line(t, line, msg);
    if (!err && add_range_locked(t, begin, end))
        err = hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    pthread_mutex_unlock(&t->mu);
    return err;
}

uint64_t hd_target_progress(struct hd_target *t, int64_t delta)
{
    return atomic_fetch_add(&t->landed, (unsigned long long)delta) + (uint64_t)delta;
}

uint64_t hd_target_size(const struct hd_target *t)
{
    return t->size;
}

bool hd_target_failed(const struct hd_target *t)
{
    return atomic_load(&t->failed);
}

bool hd_target_clone(struct hd_target *t, int fd)
{
    struct stat st;
    if (ioctl(t->fd, FICLONE, fd))
        return false;
    return !fstat(t->fd, &st) && (uint64_t)st.st_size == t->size;
}

/* ------------------------------------------------------------------------- finishing */

static enum hd_err hash_fd(int fd, uint64_t size, char hex[65],
                           enum hd_err (*tick)(uint64_t done, void *ud), void *ud)
{
    struct hd_sha256 *sha = NULL;
    char *block = malloc(HASH_STEP);
    enum hd_err err = block ? hd_sha256_new(&sha) : HD_ERR_NOMEM;
    if (!err)
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    uint64_t at = 0;
    while (!err && at < size) {
        ssize_t n = pread(fd, block, HASH_STEP, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            err = HD_ERR_IO;
            break;
        }
        hd_sha256_update(sha, block, (size_t)n);
        at += (uint64_t)n;
        err = tick ? tick(at, ud) : HD_OK;
    }
    if (err)
        hd_sha256_free(sha);
    else
        hd_sha256_finish(sha, hex);
    free(block);
    return err;
}

enum hd_err hd_target_hash(struct hd_target *t, char hex[65],
                           enum hd_err (*tick)(uint64_t done, void *ud), void *ud,
                           struct hd_errmsg *msg)
{
    enum hd_err err = hash_fd(t->fd, t->size, hex, tick, ud);
    if (err == HD_ERR_IO)
        return io_failed(t, t->partial_path, msg);
    return err ? hd_fail(msg, err, "pull: %s", hd_err_text(err)) : HD_OK;
}

enum hd_err hd_target_git_blob(struct hd_target *t, char hex[41], struct hd_errmsg *msg)
{
    struct hd_map map;
    enum hd_err err = hd_map_open(&map, t->partial_path, msg);
    if (err)
        return err;
    err = hd_git_blob_hex(hex, map.data, map.size);
    hd_map_close(&map);
    return err ? hd_fail(msg, err, "pull: %s", hd_err_text(err)) : HD_OK;
}

enum hd_err hd_target_convert(struct hd_target *t,
                              enum hd_err (*fn)(int fd, const char *path, struct hd_errmsg *msg),
                              uint64_t *size, char hex[65], struct hd_errmsg *msg)
{
    struct stat st;
    int fd = open(t->converted_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    enum hd_err err = fd < 0 ? io_failed(t, t->converted_path, msg) : fn(fd, t->partial_path, msg);
    if (!err && (fsync(fd) || fstat(fd, &st)))
        err = io_failed(t, t->converted_path, msg);
    if (!err) {
        *size = (uint64_t)st.st_size;
        err = hash_fd(fd, *size, hex, NULL, NULL);
        if (err)
            hd_fail(msg, err, "%s: %s", t->converted_path, hd_err_text(err));
    }
    if (fd >= 0)
        close(fd);
    t->converted = !err;
    if (err)
        unlink(t->converted_path);
    return err;
}

enum hd_err hd_target_publish(struct hd_target *t, struct hd_errmsg *msg)
{
    const char *from = t->converted ? t->converted_path : t->partial_path;
    if (fsync(t->fd) || rename(from, t->final_path))
        return io_failed(t, t->final_path, msg);
    close_files(t);
    if (t->converted)
        unlink(t->partial_path);
    t->converted = false;
    unlink(t->journal_path);
    sync_folder(t->models);
    return HD_OK;
}
