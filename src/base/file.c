#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

enum hd_err hd_map_open(struct hd_map *out, const char *path, struct hd_errmsg *msg)
{
    struct stat st;
    *out = (struct hd_map){.fd = -1};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return hd_fail(msg, errno == ENOENT ? HD_ERR_NOTFOUND : HD_ERR_IO, "%s: %s", path,
                       strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return hd_fail(msg, HD_ERR_IO, "%s: not a regular file", path);
    }
    void *data = NULL;
    if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            int why = errno;
            close(fd);
            return hd_fail(msg, HD_ERR_IO, "%s: cannot map: %s", path, strerror(why));
        }
    }
    *out = (struct hd_map){.data = data, .size = (size_t)st.st_size, .fd = fd};
    return HD_OK;
}

void hd_map_close(struct hd_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    if (map->fd >= 0)
        close(map->fd);
    *map = (struct hd_map){.fd = -1};
}

void hd_map_advise(const void *data, size_t bytes, bool wanted)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data;
    uintptr_t end = begin + bytes;
    begin = (wanted ? begin : begin + page - 1) / page * page;
    end = (wanted ? end + page - 1 : end) / page * page;
    if (end > begin)
        madvise((void *)begin, end - begin, wanted ? MADV_WILLNEED : MADV_DONTNEED);
}

enum hd_err hd_fd_read(char **out, size_t *out_len, int fd, size_t max, struct hd_errmsg *msg)
{
    struct hd_buf buf;
    hd_buf_init(&buf, max);
    for (;;) {
        size_t chunk = max - buf.len < 65536 ? max - buf.len + 1 : 65536;
        if (buf.len == max)
            chunk = 0;
        char one;
        char *to =
            chunk ? hd_buf_reserve(&buf, chunk > max - buf.len ? max - buf.len : chunk) : &one;
        if (!to)
            break;
        ssize_t n = read(fd, to, chunk ? (chunk > max - buf.len ? max - buf.len : chunk) : 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            hd_buf_dispose(&buf);
            return hd_fail(msg, HD_ERR_IO, "read: %s", strerror(errno));
        }
        if (n == 0)
            break;
        if (!chunk) {
            buf.err = HD_ERR_LIMIT;
            break;
        }
        buf.len += (size_t)n;
    }
    enum hd_err err = buf.err;
    size_t len = buf.len;
    char *data = err ? NULL : hd_buf_take(&buf);
    hd_buf_dispose(&buf);
    if (!data)
        return hd_fail(msg, err ? err : HD_ERR_NOMEM, "input: %s (at most %zu bytes)",
                       hd_err_text(err ? err : HD_ERR_NOMEM), max);
    *out = data;
    if (out_len)
        *out_len = len;
    return HD_OK;
}

enum hd_err hd_file_read(char **out, size_t *out_len, const char *path, size_t max,
                         struct hd_errmsg *msg)
{
    struct hd_errmsg why = {0};
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return hd_fail(msg, errno == ENOENT ? HD_ERR_NOTFOUND : HD_ERR_IO, "%s: %s", path,
                       strerror(errno));
    enum hd_err err = hd_fd_read(out, out_len, fd, max, &why);
    close(fd);
    return err ? hd_fail(msg, err, "%s: %s", path, why.text) : HD_OK;
}

static enum hd_err write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return HD_ERR_IO;
        data += n;
        len -= (size_t)n;
    }
    return HD_OK;
}

static void sync_folder_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(copy);
}

enum hd_err hd_file_write(const char *path, const void *data, size_t len, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    char *temp = NULL;
    if (asprintf(&temp, "%s.XXXXXX", path) < 0)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
        free(temp);
        return err;
    }
    if (fchmod(fd, 0644) || write_all(fd, data, len) || fsync(fd) || close(fd) ||
        rename(temp, path)) {
        err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
        unlink(temp);
    } else {
        sync_folder_of(path);
    }
    free(temp);
    return err;
}

enum hd_err hd_mkdirs(const char *path, struct hd_errmsg *msg)
{
    char *copy = strdup(path);
    if (!copy)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    enum hd_err err = HD_OK;
    for (char *p = copy + 1; !err; p++) {
        if (*p && *p != '/')
            continue;
        char saved = *p;
        *p = 0;
        if (mkdir(copy, 0755) && errno != EEXIST)
            err = hd_fail(msg, HD_ERR_IO, "%s: cannot create folder: %s", copy, strerror(errno));
        *p = saved;
        if (!saved)
            break;
    }
    if (!err && !hd_path_is_dir(path))
        err = hd_fail(msg, HD_ERR_IO, "%s: not a folder", path);
    free(copy);
    return err;
}

bool hd_path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool hd_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *hd_path_join(const char *a, const char *b)
{
    char *out = NULL;
    size_t n = strlen(a);
    const char *slash = n && a[n - 1] == '/' ? "" : "/";
    return asprintf(&out, "%s%s%s", a, slash, b) < 0 ? NULL : out;
}

char *hd_path_home(const char *home)
{
    const char *env;
    if (home && *home)
        return strdup(home);
    if ((env = getenv("HOLDFAST_HOME")) && *env)
        return strdup(env);
    if ((env = getenv("XDG_DATA_HOME")) && *env)
        return hd_path_join(env, "holdfast");
    env = getenv("HOME");
    return hd_path_join(env && *env ? env : "/tmp", ".local/share/holdfast");
}
