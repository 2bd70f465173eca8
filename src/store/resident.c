/* What the system knows of a model's files: whether they are in memory, and which they are. */
#include <errno.h>
#include <stdio.h>
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
