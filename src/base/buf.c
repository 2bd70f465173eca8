#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

void hd_buf_init(struct hd_buf *buf, size_t max)
{
    *buf = (struct hd_buf){.max = max};
}

void hd_buf_dispose(struct hd_buf *buf)
{
    free(buf->data);
    *buf = (struct hd_buf){.max = buf->max};
}

void hd_buf_clear(struct hd_buf *buf)
{
    buf->len = 0;
    buf->err = HD_OK;
    if (buf->data)
        buf->data[0] = 0;
}

char *hd_buf_reserve(struct hd_buf *buf, size_t len)
{
    if (buf->err)
        return NULL;
    if (len > buf->max || buf->len > buf->max - len) {
        buf->err = HD_ERR_LIMIT;
        return NULL;
    }
    size_t need = buf->len + len + 1;
    if (need > buf->cap) {
        size_t cap = buf->cap ? buf->cap : 64;
        while (cap < need)
            cap += cap / 2 + 64;
        if (cap > buf->max + 1)
            cap = buf->max + 1;
        char *data = realloc(buf->data, cap);
        if (!data) {
            buf->err = HD_ERR_NOMEM;
            return NULL;
        }
        buf->data = data;
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

enum hd_err hd_buf_append(struct hd_buf *buf, const void *data, size_t len)
{
    char *to = hd_buf_reserve(buf, len);
    if (!to)
        return buf->err;
    if (len)
        memcpy(to, data, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return HD_OK;
}

enum hd_err hd_buf_puts(struct hd_buf *buf, const char *s)
{
    return hd_buf_append(buf, s, strlen(s));
}

enum hd_err hd_buf_putc(struct hd_buf *buf, char c)
{
    return hd_buf_append(buf, &c, 1);
}

enum hd_err hd_buf_put_utf8(struct hd_buf *buf, unsigned codepoint)
{
    char bytes[4];
    return hd_buf_append(buf, bytes, hd_utf8_encode(bytes, codepoint));
}

enum hd_err hd_buf_printf(struct hd_buf *buf, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n < 0 ? NULL : hd_buf_reserve(buf, (size_t)n);
    if (to) {
        vsnprintf(to, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    } else if (n < 0 && !buf->err) {
        buf->err = HD_ERR_INTERNAL;
    }
    va_end(again);
    return buf->err;
}

char *hd_buf_take(struct hd_buf *buf)
{
    if (buf->err || !hd_buf_reserve(buf, 0))
        return NULL;
    char *data = buf->data;
    data[buf->len] = 0;
    *buf = (struct hd_buf){.max = buf->max};
    return data;
}

const char *hd_buf_str(const struct hd_buf *buf)
{
    return buf->data ? buf->data : "";
}
