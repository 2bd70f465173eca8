#include "engine/spill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

enum { VERSION = 1, KEY_AT = 16, NONCE_AT = 48, TAG_AT = 60, SUM_AT = 76, HEADER = 108 };
enum { SECRET_FILE = 8 + 4 + 32 + 32 };

struct entry {
    struct hd_block_key key;
    uint64_t bytes, used; /* used: a count that grows */
};

struct hd_spill {
    char folder[PATH_MAX - 128];
    int lock_fd;
    uint64_t budget, bytes, clock;
    unsigned char secret[32];
    unsigned char *file; /* scratch, header and content */
    size_t file_cap;
    struct entry *entry;
    size_t n, cap;
};

static void put_u32(unsigned char *out, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(x >> 8 * i);
}

static uint32_t get_u32(const unsigned char *in)
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static void path_of(const struct hd_spill *s, const struct hd_block_key *key, const char *end,
                    char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/", s->folder);
    for (int i = 0; i < 32; i++)
        n += snprintf(out + n, (size_t)(PATH_MAX - n), "%02x", key->bytes[i]);
    snprintf(out + n, (size_t)(PATH_MAX - n), "%s", end);
}

/* --- files ----------------------------------------------------------------------------------- */

static bool write_all(const char *path, const void *data, size_t len, bool sync)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t done = 0;
    while (fd >= 0 && done < len) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    bool ok = fd >= 0 && done == len && (!sync || !fsync(fd));
    if (fd >= 0 && close(fd))
        ok = false;
    if (!ok)
        unlink(path);
    return ok;
}

static bool read_exactly(const char *path, void *out, size_t len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t done = 0;
    bool ok = fd >= 0 && !fstat(fd, &st) && (uint64_t)st.st_size == len;
    while (ok && done < len) {
        ssize_t n = read(fd, (char *)out + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        ok = n > 0;
        done += ok ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

/* --- the secret ------------------------------------------------------------------------------ */

static enum hd_err make_secret(struct hd_spill *s, const char *path, struct hd_errmsg *msg)
{
    unsigned char file[SECRET_FILE] = "HDKVKEY";
    char temporary[PATH_MAX];
    put_u32(file + 8, VERSION);
    if (getrandom(file + 12, 32, 0) != 32)
        return hd_fail(msg, HD_ERR_IO, "%s: no random bytes", path);
    SHA256(file, 44, file + 44);
    snprintf(temporary, sizeof temporary, "%s/key.new", s->folder);
    bool ok = write_all(temporary, file, sizeof file, true) && !rename(temporary, path);
    memcpy(s->secret, file + 12, 32);
    OPENSSL_cleanse(file, sizeof file);
    return ok ? HD_OK : hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
}

static enum hd_err load_secret(struct hd_spill *s, struct hd_errmsg *msg)
{
    unsigned char file[SECRET_FILE], sum[32];
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/key", s->folder);
    if (stat(path, &st) && errno == ENOENT)
        return make_secret(s, path, msg);
    if (st.st_mode & 077)
        return hd_fail(msg, HD_ERR_INVALID,
                       "%s: a key that others may read (mode %03o) is refused (chmod 600 it, or "
                       "remove the folder)",
                       path, (unsigned)st.st_mode & 0777);
    bool ok = read_exactly(path, file, sizeof file) && !memcmp(file, "HDKVKEY", 8);
    if (ok && get_u32(file + 8) > VERSION)
        return hd_fail(
            msg, HD_ERR_UNSUPPORTED,
            "%s: version %u is newer than this program (remove the folder to start anew)", path,
            get_u32(file + 8));
    if (ok)
        SHA256(file, 44, sum);
    if (!ok || memcmp(sum, file + 44, 32))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: damaged (remove the folder to start anew)", path);
    memcpy(s->secret, file + 12, 32);
    OPENSSL_cleanse(file, sizeof file);
    return HD_OK;
}

/* --- the index ------------------------------------------------------------------------------- */

static struct entry *find(const struct hd_spill *s, const struct hd_block_key *key)
{
    for (size_t i = 0; i < s->n; i++)
        if (!memcmp(&s->entry[i].key, key, sizeof *key))
            return &s->entry[i];
    return NULL;
}

static bool add(struct hd_spill *s, const struct hd_block_key *key, uint64_t bytes, uint64_t used)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct entry *grown = realloc(s->entry, cap * sizeof *grown);
        if (!grown)
            return false;
        s->entry = grown;
        s->cap = cap;
    }
    s->entry[s->n++] = (struct entry){*key, bytes, used};
    s->bytes += bytes;
    return true;
}

static void drop(struct hd_spill *s, struct entry *at)
{
    char path[PATH_MAX];
    path_of(s, &at->key, ".kv", path);
    unlink(path);
    s->bytes -= at->bytes;
    *at = s->entry[--s->n];
}

static bool make_room(struct hd_spill *s, uint64_t bytes)
{
    if (bytes > s->budget)
        return false;
    while (s->n && s->bytes + bytes > s->budget) {
        struct entry *oldest = s->entry;
        for (size_t i = 1; i < s->n; i++)
            if (s->entry[i].used < oldest->used)
                oldest = &s->entry[i];
        drop(s, oldest);
    }
    return true;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool key_of_name(struct hd_block_key *key, const char *name)
{
    if (strlen(name) != 67 || strcmp(name + 64, ".kv"))
        return false;
    for (int i = 0; i < 32; i++) {
        int hi = digit(name[2 * i]), lo = digit(name[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        key->bytes[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

/* Whole files are remembered by their time of writing; scraps of a killed process go. */
static enum hd_err scan(struct hd_spill *s, struct hd_errmsg *msg)
{
    DIR *dir = opendir(s->folder);
    struct hd_block_key key;
    enum hd_err err = HD_OK;
    if (!dir)
        return hd_fail(msg, HD_ERR_IO, "%s: %s", s->folder, strerror(errno));
    for (struct dirent *d; !err && (d = readdir(dir));) {
        struct stat st;
        size_t n = strlen(d->d_name);
        if (n > 4 && !strcmp(d->d_name + n - 4, ".new"))
            unlinkat(dirfd(dir), d->d_name, 0);
        else if (key_of_name(&key, d->d_name) && !fstatat(dirfd(dir), d->d_name, &st, 0)) {
            uint64_t used =
                (uint64_t)st.st_mtim.tv_sec * 1000000 + (uint64_t)st.st_mtim.tv_nsec / 1000;
            s->clock = used > s->clock ? used : s->clock;
            if (!add(s, &key, (uint64_t)st.st_size, used))
                err = hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", s->folder);
        }
    }
    closedir(dir);
    make_room(s, 0);
    return err;
}

/* --- life ------------------------------------------------------------------------------------ */

static enum hd_err lock(struct hd_spill *s, struct hd_errmsg *msg)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", s->folder);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        return hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
        return hd_fail(msg, HD_ERR_BUSY,
                       "%s: another process uses this folder (give one of them another --home)",
                       s->folder);
    return HD_OK;
}

enum hd_err hd_spill_open(struct hd_spill **out, const char *folder, uint64_t budget,
                          struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_spill *s = calloc(1, sizeof *s);
    if (!s)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", folder);
    s->lock_fd = -1;
    s->budget = budget;
    int n = snprintf(s->folder, sizeof s->folder, "%s", folder);
    enum hd_err err = n < (int)sizeof s->folder
                          ? hd_mkdirs(folder, msg)
                          : hd_fail(msg, HD_ERR_LIMIT, "%s: the path is too long", folder);
    if (!err && chmod(folder, 0700))
        err = hd_fail(msg, HD_ERR_IO, "%s: %s", folder, strerror(errno));
    if (!err)
        err = lock(s, msg);
    if (!err)
        err = load_secret(s, msg);
    if (!err)
        err = scan(s, msg);
    if (err)
        hd_spill_close(s);
    else
        *out = s;
    return err;
}

void hd_spill_close(struct hd_spill *s)
{
    if (!s)
        return;
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    OPENSSL_cleanse(s->secret, sizeof s->secret);
    free(s->file);
    free(s->entry);
    free(s);
}

/* --- blocks ---------------------------------------------------------------------------------- */

static bool reserve(struct hd_spill *s, size_t len)
{
    if (s->file_cap >= len)
        return true;
    unsigned char *grown = realloc(s->file, len);
    if (grown) {
        s->file = grown;
        s->file_cap = len;
    }
    return grown != NULL;
}

/* Encrypts or decrypts; the header's first bytes are authenticated with it. */
static bool cipher(const struct hd_spill *s, bool encrypt, unsigned char *header,
                   unsigned char *out, const unsigned char *in, int len)
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n;
    bool ok = c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, s->secret, header + NONCE_AT,
                                     encrypt) == 1;
    if (ok && !encrypt)
        ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, 16, header + TAG_AT) == 1;
    ok = ok && EVP_CipherUpdate(c, NULL, &n, header, TAG_AT) == 1;
    ok = ok && EVP_CipherUpdate(c, out, &n, in, len) == 1 && n == len;
    ok = ok && EVP_CipherFinal_ex(c, out + len, &n) == 1;
    if (ok && encrypt)
        ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, header + TAG_AT) == 1;
    EVP_CIPHER_CTX_free(c);
    return ok;
}

enum hd_err hd_spill_write(struct hd_spill *s, const struct hd_block_key *key, const void *data,
                           size_t len)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    size_t total = HEADER + len;
    if (len > INT_MAX / 2 || !make_room(s, total))
        return HD_ERR_LIMIT;
    if (find(s, key))
        return HD_OK;
    if (!reserve(s, total + 16))
        return HD_ERR_NOMEM;
    unsigned char *h = s->file;
    memcpy(h, "HDKVBLK", 8);
    put_u32(h + 8, VERSION);
    put_u32(h + 12, (uint32_t)len);
    memcpy(h + KEY_AT, key->bytes, 32);
    if (getrandom(h + NONCE_AT, 12, 0) != 12 || !cipher(s, true, h, h + HEADER, data, (int)len))
        return HD_ERR_INTERNAL;
    SHA256(h, SUM_AT, h + SUM_AT);
    path_of(s, key, ".kv", path);
    path_of(s, key, ".new", temporary);
    if (!write_all(temporary, h, total, false) || rename(temporary, path))
        return HD_ERR_IO;
    return add(s, key, total, ++s->clock) ? HD_OK : HD_ERR_NOMEM;
}

enum hd_err hd_spill_read(struct hd_spill *s, const struct hd_block_key *key, void *data,
                          size_t len)
{
    char path[PATH_MAX];
    unsigned char sum[32];
    struct entry *at = find(s, key);
    if (!at)
        return HD_ERR_NOTFOUND;
    if (!reserve(s, HEADER + len + 16))
        return HD_ERR_NOMEM;
    unsigned char *h = s->file;
    path_of(s, key, ".kv", path);
    bool ok = read_exactly(path, h, HEADER + len) && !memcmp(h, "HDKVBLK", 8) &&
              get_u32(h + 8) == VERSION && get_u32(h + 12) == len &&
              !memcmp(h + KEY_AT, key->bytes, 32);
    if (ok)
        SHA256(h, SUM_AT, sum);
    ok =
        ok && !memcmp(sum, h + SUM_AT, 32) && cipher(s, false, h, h + HEADER, h + HEADER, (int)len);
    if (!ok) {
        hd_log(HD_LOG_WARN, "engine", "kv block on disk is damaged or foreign: removed");
        drop(s, at);
        return HD_ERR_NOTFOUND;
    }
    memcpy(data, h + HEADER, len);
    at->used = ++s->clock;
    return HD_OK;
}

bool hd_spill_has(const struct hd_spill *s, const struct hd_block_key *key)
{
    return find(s, key) != NULL;
}

uint64_t hd_spill_bytes(const struct hd_spill *s)
{
    return s->bytes;
}

size_t hd_spill_count(const struct hd_spill *s)
{
    return s->n;
}
