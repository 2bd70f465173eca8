/* A file of this machine: brought by hand, or on a share. Copied on write where the file system
 * can, else copied in pieces, and checked like any other source. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "net/url.h"
#include "pull/pull_impl.h"

enum { COPY_STEP = 1 << 20 };
static const uint64_t copy_piece = 64u << 20;

/* What needs no hash to be seen: a model in GGUF begins with these four bytes. */
static bool looks_right(int fd, const char *name)
{
    char magic[4] = {0};
    size_t n = strlen(name);
    if (n < 5 || strcasecmp(name + n - 5, ".gguf"))
        return true;
    return pread(fd, magic, 4, 0) == 4 && !memcmp(magic, "GGUF", 4);
}

/* A folder stands for the model's file in it. */
static enum hd_err open_source(int *out, struct stat *st, const struct hd_pull__job *job,
                               const char *given, struct hd_errmsg *msg)
{
    char *plain = strncasecmp(given, "file:", 5) ? strdup(given) : hd_url_file_path(given);
    if (!plain)
        return hd_fail(msg, HD_ERR_USAGE, "%s: a file address is file:///PATH", given);
    char *path = hd_path_is_dir(plain) ? hd_path_join(plain, job->model->file) : strdup(plain);
    free(plain);
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = HD_OK;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        err = hd_fail(msg, errno == ENOENT ? HD_ERR_NOTFOUND : HD_ERR_IO, "%s: %s", path,
                      strerror(errno));
    else if (fstat(fd, st) || !S_ISREG(st->st_mode))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: not a regular file", path);
    else if (!st->st_size)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: is empty", path);
    else if (!job->convert && !looks_right(fd, job->model->file))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: is no GGUF file", path);
    if (err && fd >= 0)
        close(fd);
    *out = err ? -1 : fd;
    free(path);
    return err;
}

static enum hd_err copy_range(struct hd_pull__job *job, int fd, uint64_t begin, uint64_t end,
                              char *block, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    uint64_t at = begin;
    while (!err && at < end) {
        size_t want = end - at < COPY_STEP ? (size_t)(end - at) : COPY_STEP;
        ssize_t n = pread(fd, block, want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hd_fail(msg, HD_ERR_IO, "cannot be read at byte %llu: %s",
                           (unsigned long long)at, n ? strerror(errno) : "it became shorter");
        err = hd_target_write(job->target, at, block, (size_t)n, msg);
        at += (uint64_t)n;
        if (!err)
            err = hd_pull__tick(job, HD_PULL_PROGRESS, hd_target_progress(job->target, (int64_t)n));
    }
    return err ? err : hd_target_commit(job->target, begin, end, msg);
}

enum hd_err hd_pull__from_file(struct hd_pull__job *job, const struct hd_source *source,
                               struct hd_errmsg *msg)
{
    struct stat st;
    int fd = -1;
    char version[96];
    enum hd_err err = open_source(&fd, &st, job, source->path, msg);
    if (err)
        return err;
    uint64_t size = (uint64_t)st.st_size;
    char *block = malloc(COPY_STEP);
    snprintf(version, sizeof version, "%lld.%09ld-%llu", (long long)st.st_mtim.tv_sec,
             st.st_mtim.tv_nsec, (unsigned long long)st.st_ino);
    if (!block)
        err = hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    else if (source->size && source->size != size)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: has %llu bytes where the catalogue says %llu",
                      source->path, (unsigned long long)size, (unsigned long long)source->size);
    else
        err = hd_pull__begin(job, size, source->sha256 ? source->sha256 : "", version, 0, msg);
    if (!err && hd_target_clone(job->target, fd)) {
        hd_target_progress(job->target, (int64_t)(size - hd_target_progress(job->target, 0)));
        err = hd_target_commit(job->target, 0, size, msg);
    }
    for (uint64_t begin = 0, end;
         !err && hd_target_next_gap(job->target, begin, copy_piece, &begin, &end); begin = end)
        err = copy_range(job, fd, begin, end, block, msg);
    free(block);
    close(fd);
    return err;
}
