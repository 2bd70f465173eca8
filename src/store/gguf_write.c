/* GGUF out; see gguf_write.h for the contract, the GGUF v3 specification (MIT) for the layout. */
#include "store/gguf_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/checked.h"

enum { ALIGNMENT = 32, VERSION = 3, MAX_HEADER = 256 << 20 };

struct hd_gguf_writer {
    int fd;
    struct hd_buf kv, tensors;
    uint64_t n_kv, n_tensor;
    size_t *bytes; /* [n_tensor] */
    size_t cap;
    uint64_t offset; /* of the next tensor put */
    size_t at;       /* the tensor being written */
    size_t left;     /* of its bytes */
    enum hd_err err;
};

/* --- numbers, little endian ------------------------------------------------------------------- */

static void put(struct hd_buf *buf, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        hd_buf_putc(buf, (char)(value >> 8 * i));
}

static void put_text(struct hd_buf *buf, const char *text, size_t len)
{
    put(buf, len, 8);
    hd_buf_append(buf, text, len);
}

static void put_key(struct hd_gguf_writer *w, const char *key, enum hd_gguf_type type)
{
    put_text(&w->kv, key, strlen(key));
    put(&w->kv, type, 4);
    w->n_kv++;
}

/* --- metadata --------------------------------------------------------------------------------- */

enum hd_err hd_gguf_writer_new(struct hd_gguf_writer **out, int fd)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return HD_ERR_NOMEM;
    (*out)->fd = fd;
    hd_buf_init(&(*out)->kv, MAX_HEADER);
    hd_buf_init(&(*out)->tensors, MAX_HEADER);
    return HD_OK;
}

void hd_gguf_writer_free(struct hd_gguf_writer *w)
{
    if (!w)
        return;
    hd_buf_dispose(&w->kv);
    hd_buf_dispose(&w->tensors);
    free(w->bytes);
    free(w);
}

void hd_gguf_put_u32(struct hd_gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, HD_GGUF_U32);
    put(&w->kv, value, 4);
}

void hd_gguf_put_f32(struct hd_gguf_writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(w, key, HD_GGUF_F32);
    put(&w->kv, bits, 4);
}

void hd_gguf_put_bool(struct hd_gguf_writer *w, const char *key, bool value)
{
    put_key(w, key, HD_GGUF_BOOL);
    put(&w->kv, value, 1);
}

void hd_gguf_put_str(struct hd_gguf_writer *w, const char *key, const char *text)
{
    put_key(w, key, HD_GGUF_STR);
    put_text(&w->kv, text, strlen(text));
}

void hd_gguf_put_array(struct hd_gguf_writer *w, const char *key, enum hd_gguf_type type,
                       uint64_t n)
{
    put_key(w, key, HD_GGUF_ARRAY);
    put(&w->kv, type, 4);
    put(&w->kv, n, 8);
}

void hd_gguf_item(struct hd_gguf_writer *w, const void *bytes, size_t len)
{
    hd_buf_append(&w->kv, bytes, len);
}

void hd_gguf_item_str(struct hd_gguf_writer *w, const char *text, size_t len)
{
    put_text(&w->kv, text, len);
}

static bool tensor_bytes(size_t *out, enum hd_dtype dtype, int n_dim, const int64_t *ne)
{
    size_t bytes = n_dim > 0 && n_dim <= 4 && ne[0] > 0 ? hd_dtype_row_bytes(dtype, ne[0]) : 0;
    for (int i = 1; i < n_dim && bytes; i++)
        if (ne[i] <= 0 || !hd_mul(&bytes, bytes, (size_t)ne[i]))
            return false;
    *out = bytes;
    return bytes > 0;
}

void hd_gguf_put_tensor(struct hd_gguf_writer *w, const char *name, enum hd_dtype dtype, int n_dim,
                        const int64_t *ne)
{
    size_t bytes;
    if (!tensor_bytes(&bytes, dtype, n_dim, ne)) {
        w->err = w->err ? w->err : HD_ERR_INVALID;
        return;
    }
    if (w->n_tensor == w->cap) {
        size_t cap = w->cap * 2 + 64;
        size_t *grown = realloc(w->bytes, cap * sizeof *grown);
        if (!grown) {
            w->err = HD_ERR_NOMEM;
            return;
        }
        w->bytes = grown;
        w->cap = cap;
    }
    put_text(&w->tensors, name, strlen(name));
    put(&w->tensors, (uint64_t)n_dim, 4);
    for (int i = 0; i < n_dim; i++)
        put(&w->tensors, (uint64_t)ne[i], 8);
    put(&w->tensors, dtype, 4);
    put(&w->tensors, w->offset, 8);
    w->bytes[w->n_tensor++] = bytes;
    w->offset += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* --- bytes out -------------------------------------------------------------------------------- */

static enum hd_err send(const struct hd_gguf_writer *w, const char *bytes, size_t len,
                        struct hd_errmsg *msg)
{
    while (len) {
        ssize_t n = write(w->fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hd_fail(msg, errno == ENOSPC ? HD_ERR_LIMIT : HD_ERR_IO, "writing GGUF: %s",
                           strerror(errno));
        bytes += n;
        len -= (size_t)n;
    }
    return HD_OK;
}

static enum hd_err pad(const struct hd_gguf_writer *w, size_t len, struct hd_errmsg *msg)
{
    static const char zeros[ALIGNMENT];
    return send(w, zeros, (ALIGNMENT - len % ALIGNMENT) % ALIGNMENT, msg);
}

enum hd_err hd_gguf_begin(struct hd_gguf_writer *w, struct hd_errmsg *msg)
{
    struct hd_buf head;
    hd_buf_init(&head, 64);
    hd_buf_append(&head, "GGUF", 4);
    put(&head, VERSION, 4);
    put(&head, w->n_tensor, 8);
    put(&head, w->n_kv, 8);
    enum hd_err err = w->err      ? w->err
                      : head.err  ? head.err
                      : w->kv.err ? w->kv.err
                                  : w->tensors.err;
    if (err)
        hd_fail(msg, err, "GGUF header: %s", hd_err_text(err));
    if (!err)
        err = send(w, head.data, head.len, msg);
    if (!err)
        err = send(w, hd_buf_str(&w->kv), w->kv.len, msg);
    if (!err)
        err = send(w, hd_buf_str(&w->tensors), w->tensors.len, msg);
    if (!err)
        err = pad(w, head.len + w->kv.len + w->tensors.len, msg);
    w->left = w->n_tensor ? w->bytes[0] : 0;
    hd_buf_dispose(&head);
    return err;
}

enum hd_err hd_gguf_write(struct hd_gguf_writer *w, const void *bytes, size_t len,
                          struct hd_errmsg *msg)
{
    const char *p = bytes;
    enum hd_err err = HD_OK;
    while (len && !err) {
        size_t n = len < w->left ? len : w->left;
        if (!n)
            return hd_fail(msg, HD_ERR_INVALID, "writing GGUF: more bytes than its tensors have");
        err = send(w, p, n, msg);
        p += n;
        len -= n;
        w->left -= n;
        if (err || w->left)
            continue;
        err = pad(w, w->bytes[w->at], msg);
        w->at++;
        w->left = w->at < w->n_tensor ? w->bytes[w->at] : 0;
    }
    return err;
}

enum hd_err hd_gguf_finish(struct hd_gguf_writer *w, struct hd_errmsg *msg)
{
    return w->at == w->n_tensor
               ? HD_OK
               : hd_fail(msg, HD_ERR_INVALID, "writing GGUF: %zu of %llu tensors are whole", w->at,
                         (unsigned long long)w->n_tensor);
}
