/* The cache of repacked weights: writing it, and moving over to it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "kernels/repack_impl.h"

enum { BLOCK = 4 << 20 }; /* written at once; between two of them a stop is noticed */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

static bool is_set(const atomic_bool *flag)
{
    return flag && atomic_load_explicit(flag, memory_order_relaxed);
}

/* --- writing --------------------------------------------------------------------------------- */

struct writer {
    const struct hd_repack_key *key;
    const atomic_bool *stop;
    struct hd_errmsg *msg;
    int fd;
    uint8_t *block; /* BLOCK bytes on a page's boundary */
    size_t n;       /* bytes in it */
    uint64_t at;    /* where it goes */
};

static enum hd_err fail_io(const struct writer *w, const char *what)
{
    return hd_fail(w->msg, errno == ENOSPC || errno == EDQUOT ? HD_ERR_LIMIT : HD_ERR_IO,
                   "%s: cannot %s: %s", w->key->path, what, strerror(errno));
}

static enum hd_err write_all(const struct writer *w, const uint8_t *p, size_t n, uint64_t at)
{
    while (n) {
        if (is_set(w->stop))
            return HD_ERR_CANCELLED;
        ssize_t put = pwrite(w->fd, p, n, (off_t)at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return fail_io(w, "write");
        p += put, at += (uint64_t)put, n -= (size_t)put;
    }
    return HD_OK;
}

/* Everything goes through one block, so that writes are whole pages from an aligned place, as
 * writing past the page cache demands. */
static enum hd_err flush(struct writer *w)
{
    size_t n = hd_round_up(w->n, HD_REPACK_PAGE);
    memset(w->block + w->n, 0, n - w->n);
    enum hd_err err = write_all(w, w->block, n, w->at);
    w->at += n;
    w->n = 0;
    return err;
}

static enum hd_err put(struct writer *w, const void *data, size_t n)
{
    const uint8_t *p = data;
    enum hd_err err = HD_OK;
    while (n && !err) {
        size_t part = BLOCK - w->n < n ? BLOCK - w->n : n;
        memcpy(w->block + w->n, p, part);
        w->n += part, p += part, n -= part;
        if (w->n == BLOCK)
            err = flush(w);
    }
    return err;
}

static enum hd_err put_data(struct writer *w)
{
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < w->key->n; i++) {
        const struct hd_weight *weight = w->key->weights[i];
        static const uint8_t zeros[HD_REPACK_PAGE];
        if (!weight->packed_bytes)
            continue;
        err = put(w, weight->packed, weight->packed_bytes);
        size_t rest = weight->packed_bytes % HD_REPACK_PAGE;
        if (!err && rest)
            err = put(w, zeros, HD_REPACK_PAGE - rest);
    }
    return err ? err : flush(w);
}

/* Checksums of all pieces of the finished copies. */
static enum hd_err sum_pieces(const struct hd_repack__plan *p, const struct writer *w)
{
    for (size_t i = 0; i < w->key->n; i++) {
        const struct hd_repack__row *row = &hd_repack__rows(p)[i];
        uint64_t *sum = hd_repack__sums(p) + row->first_sum;
        if (!row->bytes)
            continue;
        size_t part = row->bytes / row->n_part;
        for (uint64_t at = 0; at < row->n_part; at += row->grab) {
            uint64_t n = row->n_part - at < row->grab ? row->n_part - at : row->grab;
            if (is_set(w->stop))
                return HD_ERR_CANCELLED;
            *sum++ = hd_hash64_bulk(w->key->weights[i]->packed + at * part, n * part, at);
        }
    }
    return HD_OK;
}

/* Data first, head last: what has a head is complete. */
static enum hd_err write_file(struct writer *w, struct hd_repack__plan *p)
{
    enum hd_err err = sum_pieces(p, w);
    if (err)
        return err;
    p->head.body_sum = hd_hash64(p->body, p->body_bytes, 0);
    p->head.checksum = hd_repack__head_sum(&p->head);
    if (ftruncate(w->fd, 0) || ftruncate(w->fd, (off_t)(p->head.data_at + p->head.data_bytes)))
        return fail_io(w, "size");
    w->at = p->head.data_at;
    if ((err = put_data(w)))
        return err;
    if (fdatasync(w->fd))
        return fail_io(w, "sync");
    w->at = 0;
    err = put(w, &p->head, sizeof p->head);
    if (!err)
        err = put(w, p->body, p->body_bytes);
    if (!err)
        err = flush(w);
    if (!err && fsync(w->fd))
        err = fail_io(w, "sync");
    /* Where the page cache could not be gone round: its small pages must not stay. */
    posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    return err;
}

/* Ours until it is closed: a temporary file that nobody else writes to. */
static enum hd_err open_temporary(struct writer *w, const char *path)
{
    struct stat here, there;
    w->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0)
        return fail_io(w, "make it");
    if (flock(w->fd, LOCK_EX | LOCK_NB) || fstat(w->fd, &here) || stat(path, &there) ||
        here.st_ino != there.st_ino || here.st_dev != there.st_dev)
        return hd_fail(w->msg, HD_ERR_BUSY, "%s: another process is writing it", w->key->path);
    if (!S_ISREG(here.st_mode) || here.st_uid != geteuid() || fchmod(w->fd, 0600))
        return hd_fail(w->msg, HD_ERR_DENIED, "%s: no file of this user", path);
    int flags = fcntl(w->fd, F_GETFL);
    if (flags >= 0)
        (void)fcntl(w->fd, F_SETFL, flags | O_DIRECT); /* where the file system can */
    return HD_OK;
}

static void sync_folder(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) : 1;
    if (snprintf(folder, sizeof folder, "%.*s", n, slash ? path : ".") >= (int)sizeof folder)
        return;
    int fd = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

enum hd_err hd_repack_write(const struct hd_repack_key *key, const atomic_bool *stop,
                            struct hd_errmsg *msg)
{
    struct writer w = {.key = key, .stop = stop, .msg = msg, .fd = -1};
    struct hd_repack__plan plan;
    size_t n = strlen(key->path);
    char *path = malloc(n + 5);
    enum hd_err err = hd_repack__plan(&plan, key, msg);
    w.block = hd_pages_new(BLOCK);
    if (!err && (!path || !w.block))
        err = hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", key->path);
    if (!err) {
        memcpy(path, key->path, n);
        memcpy(path + n, ".tmp", 5);
        err = open_temporary(&w, path);
    }
    bool mine = !err;
    if (!err)
        err = write_file(&w, &plan);
    if (!err && rename(path, key->path))
        err = fail_io(&w, "rename");
    if (!err)
        sync_folder(key->path);
    else if (mine)
        unlink(path);
    if (w.fd >= 0)
        close(w.fd);
    hd_pages_free(w.block, BLOCK);
    free(plan.body);
    free(path);
    return err;
}

/* --- moving over ----------------------------------------------------------------------------- */

/* [at, at + n) of the data, read into huge pages at an address that begins at one. */
static uint8_t *map_slice(const struct hd_repack *r, size_t at, size_t n)
{
    uint8_t *space = hd_repack__space(n);
    if (!space)
        return NULL;
    uint8_t *p = mmap(space, n, PROT_READ, MAP_PRIVATE | MAP_FIXED, r->fd,
                      (off_t)(r->plan.head.data_at + at));
    if (p == MAP_FAILED) {
        munmap(space, n);
        return NULL;
    }
    madvise(p, n, MADV_HUGEPAGE);
    madvise(p, n, MADV_POPULATE_READ);
    return p;
}

/* The kernel puts the new pages in the old ones' place under its own lock: who reads meanwhile
 * reads one or the other, and they are equal. */
static enum hd_err move_slice(const struct hd_repack *r, uint8_t *to, size_t at, size_t n,
                              bool small, struct hd_errmsg *msg)
{
    uint8_t *p = map_slice(r, at, n);
    enum hd_err err = HD_OK;
    if (!p)
        return hd_fail(msg, HD_ERR_NOMEM, "cannot map repacked weights: %s", strerror(errno));
    if (memcmp(p, to, n))
        err = hd_fail(msg, HD_ERR_FORMAT, "repacked weights were not written as they are");
    else if (!small && !hd_repack__is_huge(p))
        err = hd_fail(msg, HD_ERR_UNSUPPORTED, "no huge pages for files here");
    else if (mremap(p, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
        err = hd_fail(msg, HD_ERR_NOMEM, "cannot move to repacked weights: %s", strerror(errno));
    else
        return HD_OK;
    munmap(p, n);
    return err;
}

enum hd_err hd_repack_move(struct hd_repack *r, void *memory, size_t bytes, bool small,
                           const atomic_bool *stop, struct hd_errmsg *msg)
{
    if ((uintptr_t)memory % (small ? HD_REPACK_PAGE : HD_REPACK_HUGE))
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "the copies do not begin at a huge page");
    for (size_t at = 0; at < bytes; at += HD_REPACK_SLICE) {
        size_t n = bytes - at < HD_REPACK_SLICE ? bytes - at : HD_REPACK_SLICE;
        if (is_set(stop))
            return HD_ERR_CANCELLED;
        enum hd_err err = move_slice(r, (uint8_t *)memory + at, at, n, small, msg);
        if (err)
            return err;
    }
    return HD_OK;
}
