/* What the system knows of a model's files: whether they are in memory, and which they are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/hash.h"
#include "store/store_impl.h"

enum { STEP = 256 << 10 };

/* A read that must not wait fails where the page would have to be fetched. */
static bool is_cached(int fd, size_t at)
{
    char byte;
    struct iovec v = {&byte, 1};
    return preadv2(fd, &v, 1, (off_t)at, RWF_NOWAIT) == 1;
}

bool hd_store_resident(const struct hd_store *store)
{
    for (size_t i = 0; i < store->n_file; i++)
        for (size_t at = 0; at < store->file[i].map.size; at += STEP)
            if (!is_cached(store->file[i].map.fd, at))
                return false;
    return true;
}

void hd_store_forget_pages(const struct hd_store *store)
{
    for (size_t i = 0; i < store->n_file; i++)
        if (store->file[i].map.size)
            madvise((void *)store->file[i].map.data, store->file[i].map.size, MADV_DONTNEED);
}

enum hd_err hd_store_identity(const struct hd_store *store, char hex[65])
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    hd_sha256_update(sha, store->path, strlen(store->path) + 1);
    for (size_t i = 0; i < store->n_file; i++) {
        struct stat st;
        if (fstat(store->file[i].map.fd, &st)) {
            hd_sha256_free(sha);
            return HD_ERR_IO;
        }
        uint64_t id[] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                         (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
        hd_sha256_update(sha, id, sizeof id);
    }
    hd_sha256_finish(sha, hex);
    return HD_OK;
}

/* --- what is kept across restarts ------------------------------------------------------------ */

static void add_samples(struct hd_sha256 *sha, const struct hd_map *map)
{
    enum { FIRST = 64 << 10, PAGE = 4096, PAGES = 16 };
    hd_sha256_update(sha, map->data, map->size < FIRST ? map->size : FIRST);
    for (size_t i = 1; i <= PAGES && map->size > FIRST; i++) {
        size_t at = (map->size - PAGE) / PAGES * i;
        hd_sha256_update(sha, map->data + at, PAGE);
    }
}

enum hd_err hd_store_stamp(const struct hd_store *store, char hex[65])
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    for (size_t i = 0; !err && i < store->n_file; i++) {
        const struct hd_map *map = &store->file[i].map;
        struct stat st;
        if (fstat(map->fd, &st)) {
            hd_sha256_free(sha);
            return HD_ERR_IO;
        }
        uint64_t id[] = {(uint64_t)st.st_ino,         (uint64_t)st.st_size,
                         (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec,
                         (uint64_t)st.st_ctim.tv_sec, (uint64_t)st.st_ctim.tv_nsec};
        hd_sha256_update(sha, id, sizeof id);
        if (map->size)
            add_samples(sha, map);
    }
    if (err)
        return err;
    char *config = store->config ? json_dumps(store->config, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (config)
        hd_sha256_update(sha, config, strlen(config));
    free(config);
    hd_sha256_finish(sha, hex);
    return HD_OK;
}
