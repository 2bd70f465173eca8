/* The cache of repacked weights: opening, checking, mapping. */
#include "kernels/repack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/hash.h"
#include "kernels/repack_impl.h"

enum { MAX_SOURCE = 4096, MAX_BODY = 1 << 30 };
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* --- the layout ------------------------------------------------------------------------------ */

static size_t padded(size_t bytes)
{
    return hd_round_up(bytes, HD_REPACK_PAGE);
}

size_t hd_repack_bytes(struct hd_weight *const *weights, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += padded(hd_weight_bytes(weights[i]));
    return sum;
}

uint64_t hd_repack__head_sum(const struct hd_repack__head *head)
{
    return hd_hash64(head, offsetof(struct hd_repack__head, checksum), 0);
}

/* One row per weight; returns the number of pieces. */
static uint64_t fill_rows(struct hd_repack__row *rows, const struct hd_repack_key *key)
{
    uint64_t at = 0, n_sum = 0;
    for (size_t i = 0; i < key->n; i++) {
        const struct hd_weight *w = key->weights[i];
        size_t grab = w->fill ? w->fill->grab : 1;
        if (rows)
            rows[i] = (struct hd_repack__row){.dtype = (uint32_t)w->dtype,
                                              .n_in = w->n_in,
                                              .n_out = w->n_out,
                                              .n_matrix = w->n_matrix,
                                              .at = at,
                                              .bytes = w->packed_bytes,
                                              .n_part = w->n_part,
                                              .grab = grab,
                                              .first_sum = n_sum};
        at += padded(w->packed_bytes);
        n_sum += w->packed_bytes ? (w->n_part + grab - 1) / grab : 0;
    }
    return n_sum;
}

enum hd_err hd_repack__plan(struct hd_repack__plan *out, const struct hd_repack_key *key,
                            struct hd_errmsg *msg)
{
    size_t n_source = strlen(key->source);
    struct hd_repack__head h = {.version = HD_REPACK_VERSION, .layout = HD_REPACK_LAYOUT};
    memset(out, 0, sizeof *out);
    if (n_source > MAX_SOURCE || strlen(key->identity) != sizeof h.identity)
        return hd_fail(msg, HD_ERR_INVALID, "%s: no name for repacked weights", key->source);
    memcpy(h.magic, "HDREPACK", 8);
    memcpy(h.identity, key->identity, sizeof h.identity);
    h.n_source = n_source;
    h.n_row = key->n;
    h.n_sum = fill_rows(NULL, key);
    h.data_bytes = hd_round_up(hd_repack_bytes(key->weights, key->n), HD_REPACK_HUGE);
    out->body_bytes = key->n * sizeof(struct hd_repack__row) + h.n_sum * 8 + n_source;
    h.data_at = hd_round_up(sizeof h + out->body_bytes, HD_REPACK_HUGE);
    out->head = h;
    out->body = calloc(1, out->body_bytes + 1);
    if (!out->body)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", key->path);
    fill_rows(hd_repack__rows(out), key);
    memcpy(hd_repack__sums(out) + h.n_sum, key->source, n_source);
    return HD_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

bool hd_repack__read(int fd, void *out, size_t n, uint64_t at)
{
    uint8_t *p = out;
    while (n) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got, at += (uint64_t)got, n -= (size_t)got;
    }
    return true;
}

/* The head alone, with its own checksum. */
static enum hd_err read_head(struct hd_repack__head *h, int fd, struct hd_errmsg *msg)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
        return hd_fail(msg, HD_ERR_DENIED, "no private file of this user");
    if (!hd_repack__read(fd, h, sizeof *h, 0) || memcmp(h->magic, "HDREPACK", 8))
        return hd_fail(msg, HD_ERR_FORMAT, "no file of repacked weights");
    if (h->version > HD_REPACK_VERSION)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "version %u is newer than this program's %d",
                       h->version, HD_REPACK_VERSION);
    if (h->version != HD_REPACK_VERSION || h->checksum != hd_repack__head_sum(h))
        return hd_fail(msg, HD_ERR_FORMAT, "the head is damaged");
    if (h->layout != HD_REPACK_LAYOUT)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "layout %u, this program uses %d", h->layout,
                       HD_REPACK_LAYOUT);
    if ((uint64_t)st.st_size != h->data_at + h->data_bytes || h->n_source > MAX_SOURCE)
        return hd_fail(msg, HD_ERR_FORMAT, "%lld bytes, it should have %" PRIu64,
                       (long long)st.st_size, h->data_at + h->data_bytes);
    return HD_OK;
}

/* Head and body as planned, but for the checksums of pieces, which are taken from the file. */
static enum hd_err check(struct hd_repack *r, struct hd_errmsg *msg)
{
    struct hd_repack__plan *p = &r->plan;
    struct hd_repack__head found;
    enum hd_err err = read_head(&found, r->fd, msg);
    if (err)
        return err;
    uint64_t body_sum = found.body_sum, checksum = found.checksum;
    found.body_sum = p->head.body_sum, found.checksum = p->head.checksum;
    /* The source's path is told, not compared: another name of the same file may use this too. */
    uint64_t n_source = found.n_source;
    size_t body = p->body_bytes - p->head.n_source + n_source;
    found.n_source = p->head.n_source;
    if (memcmp(&found, &p->head, sizeof found))
        return hd_fail(msg, HD_ERR_FORMAT, "it is of another model file");
    uint8_t *bytes = malloc(body + 1);
    if (!bytes)
        return hd_fail(msg, HD_ERR_NOMEM, "out of memory");
    size_t rows = p->head.n_row * sizeof(struct hd_repack__row);
    if (!hd_repack__read(r->fd, bytes, body, sizeof found) ||
        hd_hash64(bytes, body, 0) != body_sum || memcmp(bytes, p->body, rows)) {
        free(bytes);
        return hd_fail(msg, HD_ERR_FORMAT, "the table of its contents is damaged");
    }
    free(p->body);
    p->body = bytes;
    p->body_bytes = body;
    p->head.n_source = n_source;
    p->head.body_sum = body_sum, p->head.checksum = checksum;
    return HD_OK;
}

static enum hd_err open_locked(int *fd, const char *path, struct hd_errmsg *msg)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return errno == ENOENT ? HD_ERR_NOTFOUND : hd_fail(msg, HD_ERR_IO, "%s", strerror(errno));
    if (flock(*fd, LOCK_SH | LOCK_NB)) /* it is being removed */
        return hd_fail(msg, HD_ERR_BUSY, "another process has locked it");
    return HD_OK;
}

enum hd_err hd_repack_open(struct hd_repack **out, const struct hd_repack_key *key,
                           struct hd_errmsg *msg)
{
    struct hd_errmsg why = {0};
    *out = NULL;
    struct hd_repack *r = calloc(1, sizeof *r);
    if (!r)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", key->path);
    r->fd = -1;
    enum hd_err err = hd_repack__plan(&r->plan, key, &why);
    if (!err)
        err = open_locked(&r->fd, key->path, &why);
    if (!err)
        err = check(r, &why);
    r->of_weight = calloc(key->n + 1, sizeof *r->of_weight);
    if (!err && !r->of_weight)
        err = hd_fail(&why, HD_ERR_NOMEM, "out of memory");
    if (err) {
        hd_repack_free(r);
        return err == HD_ERR_NOTFOUND ? err : hd_fail(msg, err, "%s: %s", key->path, why.text);
    }
    *out = r;
    return HD_OK;
}

void hd_repack_free(struct hd_repack *r)
{
    if (!r)
        return;
    if (r->map)
        munmap(r->map, r->plan.head.data_bytes);
    if (r->fd >= 0)
        close(r->fd);
    free(r->plan.body);
    free(r->of_weight);
    free(r);
}

enum hd_err hd_repack_look(struct hd_repack_info *out, int fd, struct hd_errmsg *msg)
{
    struct hd_repack__head h;
    memset(out, 0, sizeof *out);
    enum hd_err err = read_head(&h, fd, msg);
    if (err)
        return err;
    uint64_t before = h.n_row * sizeof(struct hd_repack__row) + h.n_sum * 8;
    if (h.n_row > MAX_BODY || h.n_sum > MAX_BODY || before > h.data_at)
        return hd_fail(msg, HD_ERR_FORMAT, "the head is damaged");
    out->source = calloc(1, h.n_source + 1);
    if (!out->source)
        return HD_ERR_NOMEM;
    memcpy(out->identity, h.identity, sizeof h.identity);
    out->bytes = h.data_at + h.data_bytes;
    out->version = h.version;
    out->layout = h.layout;
    if (hd_repack__read(fd, out->source, h.n_source, sizeof h + before))
        return HD_OK;
    free(out->source);
    out->source = NULL;
    return hd_fail(msg, HD_ERR_IO, "%s", strerror(errno));
}

/* --- the map --------------------------------------------------------------------------------- */

void *hd_repack__space(size_t bytes)
{
    uint8_t *p = mmap(NULL, bytes + HD_REPACK_HUGE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    uint8_t *start = (uint8_t *)hd_round_up((uintptr_t)p, HD_REPACK_HUGE);
    if (start > p)
        munmap(p, (size_t)(start - p));
    if (start + bytes < p + bytes + HD_REPACK_HUGE)
        munmap(start + bytes, (size_t)(p + HD_REPACK_HUGE - start));
    return start;
}

bool hd_repack__is_huge(const void *p)
{
    char line[256];
    uintptr_t begin = 0, end = 0;
    unsigned long rss = 0, huge = 0, kib;
    FILE *f = fopen("/proc/self/smaps", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
            continue;
        if ((uintptr_t)p < begin || (uintptr_t)p >= end)
            continue;
        if (sscanf(line, "Rss: %lu", &kib) == 1)
            rss = kib;
        else if (sscanf(line, "FilePmdMapped: %lu", &kib) == 1)
            huge = kib;
    }
    if (f)
        fclose(f);
    return rss && huge >= rss / 16 * 15;
}

/* A look at three places: whether a map of this file system gets huge pages, and whether the file
 * came into the page cache in them. */
static bool gets_huge_pages(const struct hd_repack *r)
{
    size_t n = r->plan.head.data_bytes / HD_REPACK_HUGE;
    for (size_t i = 0; i < 3 && n; i++)
        madvise(r->map + (n - 1) * i / 2 * HD_REPACK_HUGE, HD_REPACK_HUGE, MADV_POPULATE_READ);
    return hd_repack__is_huge(r->map);
}

void *hd_repack_map(struct hd_repack *r, bool small)
{
    size_t bytes = r->plan.head.data_bytes;
    uint8_t *space = bytes ? hd_repack__space(bytes) : NULL;
    if (!space)
        return NULL;
    r->map = mmap(space, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                  r->fd, (off_t)r->plan.head.data_at);
    if (r->map == MAP_FAILED)
        r->map = NULL;
    if (r->map)
        madvise(r->map, bytes, MADV_HUGEPAGE);
    if (r->map && (small || gets_huge_pages(r)))
        return r->map;
    munmap(space, bytes);
    r->map = NULL;
    return NULL;
}

/* A read that must not wait fails where the page would have to be fetched. */
bool hd_repack_resident(const struct hd_repack *r)
{
    char byte;
    struct iovec v = {&byte, 1};
    for (uint64_t i = 0; i < r->plan.head.data_bytes; i += HD_REPACK_HUGE)
        if (preadv2(r->fd, &v, 1, (off_t)(r->plan.head.data_at + i), RWF_NOWAIT) != 1)
            return false;
    return true;
}

void hd_repack_attach(struct hd_repack *r, struct hd_weight *w, size_t i)
{
    const struct hd_repack__row *row = &hd_repack__rows(&r->plan)[i];
    if (!row->bytes || !w->fill || !w->pack)
        return;
    r->of_weight[i] = (struct hd_weight_cached){.fd = r->fd,
                                                .mapped = r->map != NULL,
                                                .at = r->plan.head.data_at + row->at,
                                                .sums = hd_repack__sums(&r->plan) + row->first_sum,
                                                .n_bad = &r->n_bad};
    w->fill->cached = &r->of_weight[i];
}

void hd_repack_seal(struct hd_repack *r)
{
    if (r->map)
        mprotect(r->map, r->plan.head.data_bytes, PROT_READ);
}

size_t hd_repack_n_bad(const struct hd_repack *r)
{
    return atomic_load(&((struct hd_repack *)r)->n_bad);
}
