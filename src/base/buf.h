/* A growable byte buffer with a mandatory maximum.
 *
 * After the first failure (out of memory, or the maximum passed) the buffer
 * keeps its error and further appends do nothing: check once, at the end.
 * The content is always followed by a NUL that is not counted. Not thread-safe. */
#ifndef HD_BASE_BUF_H
#define HD_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "base/error.h"

struct hd_buf {
    char *data; /* owned; NULL while empty */
    size_t len; /* bytes used */
    size_t cap; /* bytes allocated */
    size_t max; /* most bytes ever allowed */
    enum hd_err err;
};

void hd_buf_init(struct hd_buf *buf, size_t max);
void hd_buf_dispose(struct hd_buf *buf); /* frees; the buffer is empty again */
void hd_buf_clear(struct hd_buf *buf);   /* keeps the memory, forgets the error */

enum hd_err hd_buf_append(struct hd_buf *buf, const void *data, size_t len);
enum hd_err hd_buf_puts(struct hd_buf *buf, const char *s);
enum hd_err hd_buf_putc(struct hd_buf *buf, char c);
enum hd_err hd_buf_printf(struct hd_buf *buf, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Makes room for len more bytes and returns where they go; add to len yourself. NULL on failure. */
char *hd_buf_reserve(struct hd_buf *buf, size_t len);
/* Appends a code point as UTF-8. */
enum hd_err hd_buf_put_utf8(struct hd_buf *buf, unsigned codepoint);
/* Hands the NUL-terminated content over (never NULL unless failed); the buffer is empty afterwards.
 */
char *hd_buf_take(struct hd_buf *buf);
/* The content as a C string, "" while empty. Borrowed until the next change. */
const char *hd_buf_str(const struct hd_buf *buf);

#endif
