#include "pull/wheel.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

enum { MAX_ENTRIES = 10000, STEP = 256 * 1024, MAX_RATIO = 100 };

/* Absolute, upwards, or with a drive or backslash: what an unpacker must fear. */
static bool leaves_folder(const char *name)
{
    if (name[0] == '/' || strchr(name, '\\') || (name[0] && name[1] == ':'))
        return true;
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return true;
        p += n + (p[n] == '/');
    }
    return false;
}

/* The index of the one entry named `member`. */
static enum hd_err find_member(zip_uint64_t *out, zip_t *zip, const char *member,
                               struct hd_errmsg *msg)
{
    zip_int64_t n = zip_get_num_entries(zip, 0);
    int found = 0;
    if (n < 0 || n > MAX_ENTRIES)
        return hd_fail(msg, HD_ERR_FORMAT, "the wheel has more than %d entries", MAX_ENTRIES);
    for (zip_uint64_t i = 0; i < (zip_uint64_t)n; i++) {
        const char *name = zip_get_name(zip, i, ZIP_FL_ENC_RAW);
        if (!name)
            return hd_fail(msg, HD_ERR_FORMAT, "the wheel has an entry without a name");
        if (leaves_folder(name))
            return hd_fail(msg, HD_ERR_FORMAT,
                           "the wheel holds the path \"%.100s\", which leaves its folder", name);
        if (!strcmp(name, member)) {
            *out = i;
            found++;
        }
    }
    if (found > 1)
        return hd_fail(msg, HD_ERR_FORMAT, "the wheel holds %s twice", member);
    return found ? HD_OK : hd_fail(msg, HD_ERR_FORMAT, "the wheel lacks %s", member);
}

static enum hd_err check_member(const zip_stat_t *st, const char *member, uint64_t size,
                                struct hd_errmsg *msg)
{
    const zip_uint64_t need =
        ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if ((st->valid & need) != need)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: the wheel does not describe it", member);
    if (st->encryption_method != ZIP_EM_NONE)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: is encrypted", member);
    if (st->comp_method != ZIP_CM_STORE && st->comp_method != ZIP_CM_DEFLATE)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: unknown compression %u", member, st->comp_method);
    if (st->size != size)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: has %llu bytes where the catalogue says %llu",
                       member, (unsigned long long)st->size, (unsigned long long)size);
    if (st->size / MAX_RATIO > st->comp_size)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: is a zip bomb (%llu bytes out of %llu)", member,
                       (unsigned long long)st->size, (unsigned long long)st->comp_size);
    return HD_OK;
}

static enum hd_err stream(zip_file_t *file, const char *member, uint64_t size,
                          enum hd_err (*sink)(const void *data, size_t len, void *ud), void *ud,
                          struct hd_errmsg *msg)
{
    char *block = malloc(STEP);
    uint64_t total = 0;
    enum hd_err err = block ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "wheel: out of memory");
    while (!err) {
        /* Also after the last byte: only the end of the stream has the checksum compared. */
        zip_int64_t n = zip_fread(file, block, STEP);
        if (n < 0)
            err = hd_fail(msg, HD_ERR_FORMAT, "%s: damaged: %s", member,
                          zip_error_strerror(zip_file_get_error(file)));
        else if ((uint64_t)n > size - total)
            err = hd_fail(msg, HD_ERR_FORMAT, "%s: holds more bytes than it declares", member);
        else if (n > 0)
            err = sink(block, (size_t)n, ud);
        else
            break;
        total += err ? 0 : (uint64_t)n;
    }
    if (!err && total != size)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: holds fewer bytes than it declares", member);
    free(block);
    return err;
}

enum hd_err hd_wheel_extract(const char *path, const char *member, uint64_t size,
                             enum hd_err (*sink)(const void *data, size_t len, void *ud), void *ud,
                             struct hd_errmsg *msg)
{
    int code;
    zip_uint64_t index = 0;
    zip_stat_t st;
    zip_t *zip = zip_open(path, ZIP_RDONLY, &code);
    if (!zip) {
        zip_error_t error;
        zip_error_init_with_code(&error, code);
        hd_fail(msg, code == ZIP_ER_MEMORY ? HD_ERR_NOMEM : HD_ERR_FORMAT,
                "the wheel is no sound zip archive: %s", zip_error_strerror(&error));
        zip_error_fini(&error);
        return code == ZIP_ER_MEMORY ? HD_ERR_NOMEM : HD_ERR_FORMAT;
    }
    zip_file_t *file = NULL;
    enum hd_err err = find_member(&index, zip, member, msg);
    if (!err && zip_stat_index(zip, index, 0, &st))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: the wheel does not describe it", member);
    if (!err)
        err = check_member(&st, member, size, msg);
    if (!err && !(file = zip_fopen_index(zip, index, 0)))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: cannot be read: %s", member, zip_strerror(zip));
    if (!err)
        err = stream(file, member, size, sink, ud, msg);
    if (file)
        zip_fclose(file);
    zip_discard(zip);
    return err;
}
