#include "kernels/arena.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/hash.h"
#include "kernels/ops.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define FOLDER "/dev/shm"
#define PREFIX "holdfast-"
enum { HEAD_BYTES = 4096, MAX_KEY = 128, HUGE_PAGE = 2 << 20 };
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* The first page of a shared file. */
struct head {
    char magic[8]; /* "HDSHMWTS" */
    uint32_t version, filled;
    uint64_t bytes, checksum; /* of what stands before it */
};

struct hd_arena {
    enum hd_arena_kind kind;
    uint8_t *map; /* SHM: the head first */
    size_t bytes, map_bytes;
    int fd;
    bool found, sealed;
    char path[sizeof FOLDER + sizeof PREFIX + MAX_KEY]; /* SHM */
};

/* --- shared files ---------------------------------------------------------------------------- */

static struct head make_head(size_t bytes, bool filled)
{
    struct head h = {.version = 1, .filled = filled, .bytes = bytes};
    memcpy(h.magic, "HDSHMWTS", 8);
    h.checksum = hd_hash64(&h, offsetof(struct head, checksum), 0);
    return h;
}

static bool path_of(char *out, size_t size, const char *key)
{
    int n = snprintf(out, size, FOLDER "/" PREFIX "%s", key);
    return n > 0 && (size_t)n < size && !strchr(key, '/') && *key;
}

/* Ours alone: a regular file of this user that nobody else can open, and no link to elsewhere. */
static bool is_ours(int fd)
{
    struct stat st;
    return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           !(st.st_mode & 077) && st.st_nlink == 1;
}

static bool is_filled(int fd, size_t bytes)
{
    struct head h, want = make_head(bytes, true);
    struct stat st;
    return !fstat(fd, &st) && (size_t)st.st_size == HEAD_BYTES + bytes &&
           pread(fd, &h, sizeof h, 0) == sizeof h && !memcmp(&h, &want, sizeof h);
}

/* An existing file: filled, or being filled (BUSY), or a leftover, which is removed (NOTFOUND). */
static enum hd_err open_existing(struct hd_arena *a, const char *path, struct hd_errmsg *msg)
{
    a->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (a->fd < 0)
        return errno == ENOENT ? HD_ERR_NOTFOUND
                               : hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    if (!is_ours(a->fd))
        return hd_fail(msg, HD_ERR_DENIED,
                       "%s: belongs to another user or can be opened by others (remove it)", path);
    if (flock(a->fd, LOCK_SH | LOCK_NB))
        return hd_fail(msg, HD_ERR_BUSY, "%s: another process is filling it", path);
    if (is_filled(a->fd, a->bytes)) {
        a->found = true;
        return HD_OK;
    }
    unlink(path); /* of a process that did not finish, or of another format */
    close(a->fd);
    a->fd = -1;
    return HD_ERR_NOTFOUND;
}

static enum hd_err make_new(struct hd_arena *a, const char *path, struct hd_errmsg *msg)
{
    struct statvfs fs;
    struct head h = make_head(a->bytes, false);
    a->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd < 0)
        return hd_fail(msg, errno == EEXIST ? HD_ERR_BUSY : HD_ERR_IO, "%s: %s", path,
                       strerror(errno));
    size_t free_bytes = !fstatvfs(a->fd, &fs) ? (size_t)fs.f_bavail * fs.f_frsize : 0;
    /* Reserved now: a write to a full /dev/shm would be a fatal signal later. */
    if (flock(a->fd, LOCK_EX) || posix_fallocate(a->fd, 0, (off_t)(HEAD_BYTES + a->bytes)) ||
        pwrite(a->fd, &h, sizeof h, 0) != sizeof h) {
        unlink(path);
        return hd_fail(msg, HD_ERR_LIMIT,
                       "%s: %.0f MB are needed, %.0f MB are free in " FOLDER
                       " (make it larger, remove old copies there, or use --preload mmap)",
                       path, (double)a->bytes / 1e6, (double)free_bytes / 1e6);
    }
    return HD_OK;
}

static enum hd_err open_shm(struct hd_arena *a, const char *key, struct hd_errmsg *msg)
{
    if (!path_of(a->path, sizeof a->path, key))
        return hd_fail(msg, HD_ERR_INVALID, "shared copy: the key \"%.40s\" is no name", key);
    enum hd_err err = open_existing(a, a->path, msg);
    return err == HD_ERR_NOTFOUND ? make_new(a, a->path, msg) : err;
}

/* --- life ------------------------------------------------------------------------------------ */

static enum hd_err open_memfd(struct hd_arena *a, struct hd_errmsg *msg)
{
    a->fd = memfd_create("holdfast-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (a->fd < 0 || ftruncate(a->fd, (off_t)a->map_bytes))
        return hd_fail(msg, HD_ERR_IO, "memfd of %zu bytes: %s", a->map_bytes, strerror(errno));
    return HD_OK;
}

/* Address space that begins at a huge page's boundary, as the file does: else its pages could not
 * be huge. */
static uint8_t *aligned_space(size_t bytes)
{
    size_t size = hd_round_up(bytes, HEAD_BYTES);
    uint8_t *p =
        mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    uint8_t *start = (uint8_t *)hd_round_up((uintptr_t)p, HUGE_PAGE);
    if (start > p)
        munmap(p, (size_t)(start - p));
    munmap(start + size, (size_t)(p + HUGE_PAGE - start));
    return start;
}

/* Huge pages whatever shmem_enabled says; where the kernel cannot, answers are a third slower. */
static void collapse(struct hd_arena *a)
{
    madvise(a->map, a->map_bytes / HUGE_PAGE * HUGE_PAGE, MADV_COLLAPSE);
}

static enum hd_err map_file(struct hd_arena *a, struct hd_errmsg *msg)
{
    int protection = a->found ? PROT_READ : PROT_READ | PROT_WRITE;
    uint8_t *space = aligned_space(a->map_bytes);
    void *map = space ? mmap(space, a->map_bytes, protection, MAP_SHARED | MAP_FIXED, a->fd, 0)
                      : MAP_FAILED;
    if (map == MAP_FAILED)
        return hd_fail(msg, HD_ERR_NOMEM, "copy of the weights, %zu bytes: %s", a->map_bytes,
                       strerror(errno));
    a->map = map;
    madvise(map, a->map_bytes, MADV_HUGEPAGE); /* only where shmem_enabled allows it */
    if (a->found)
        collapse(a);
    return HD_OK;
}

enum hd_err hd_arena_new(struct hd_arena **out, enum hd_arena_kind kind, size_t bytes,
                         const char *key, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    *out = NULL;
    struct hd_arena *a = calloc(1, sizeof *a);
    if (!a)
        return hd_fail(msg, HD_ERR_NOMEM, "copy of the weights: out of memory");
    *a = (struct hd_arena){.kind = kind, .bytes = bytes, .map_bytes = bytes, .fd = -1};
    if (kind == HD_ARENA_PRIVATE) {
        a->map = hd_pages_new(bytes);
        if (!a->map)
            err =
                hd_fail(msg, HD_ERR_NOMEM, "copy of the weights, %zu bytes: out of memory", bytes);
    } else {
        a->map_bytes += kind == HD_ARENA_SHM ? HEAD_BYTES : 0;
        err = kind == HD_ARENA_SHM ? open_shm(a, key, msg) : open_memfd(a, msg);
        if (!err)
            err = map_file(a, msg);
    }
    if (err) {
        hd_arena_free(a);
        return err;
    }
    *out = a;
    return HD_OK;
}

void *hd_arena_data(const struct hd_arena *a)
{
    return a->map + (a->kind == HD_ARENA_SHM ? HEAD_BYTES : 0);
}

bool hd_arena_found(const struct hd_arena *a)
{
    return a->found;
}

void hd_arena_seal(struct hd_arena *a)
{
    if (a->kind == HD_ARENA_PRIVATE || a->found)
        return;
    if (a->kind == HD_ARENA_SHM) {
        struct head h = make_head(a->bytes, true);
        memcpy(a->map, &h, sizeof h);
        flock(a->fd, LOCK_SH); /* in use, for hd_arena_remove */
    }
    a->sealed = true;
    /* Huge pages whatever shmem_enabled says; where the kernel cannot, answers are a third slower.
     */
    madvise(a->map, a->map_bytes / HUGE_PAGE * HUGE_PAGE, MADV_COLLAPSE);
    mprotect(a->map, a->map_bytes, PROT_READ);
    if (a->kind == HD_ARENA_MEMFD)
        fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
}

void hd_arena_free(struct hd_arena *a)
{
    if (!a)
        return;
    if (a->map && a->kind == HD_ARENA_PRIVATE)
        hd_pages_free(a->map, a->map_bytes);
    else if (a->map)
        munmap(a->map, a->map_bytes);
    if (a->kind == HD_ARENA_SHM && a->map && !a->found && !a->sealed)
        unlink(a->path); /* half filled: of no use to anyone */
    if (a->fd >= 0)
        close(a->fd);
    free(a);
}

int hd_arena_remove(const char *prefix, const char *keep)
{
    int n = 0;
    size_t n_prefix = strlen(prefix);
    DIR *dir = opendir(FOLDER);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        const char *key = entry->d_name + strlen(PREFIX);
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) || strncmp(key, prefix, n_prefix) ||
            (keep && !strcmp(key, keep)))
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && is_ours(fd) && !flock(fd, LOCK_EX | LOCK_NB))
            n += !unlinkat(dirfd(dir), entry->d_name, 0);
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return n;
}
