/* Plain text and pages of plain text. */
#include <string.h>

#include "kb/doc.h"
#include "kb/lines.h"
#include "kb/parse.h"
#include "kb/text.h"

enum hd_err hd_kb__parse_text(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg)
{
    struct hd_buf text;
    hd_buf_init(&text, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__decode(&text, data, len, NULL, msg);
    for (char *p = text.data; !err && p && p < text.data + text.len; p++)
        if (*p == '\r' && p + 1 < text.data + text.len && p[1] != '\n')
            *p = '\n'; /* old line ends */
    if (!err && text.len)
        err = hd_kb__put_lines(records, text.data, text.len, HD_KB__LINES_BEGIN);
    hd_buf_dispose(&text);
    return err;
}

enum hd_err hd_kb__parse_pages(struct hd_buf *records, const char *data, size_t len,
                               struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    for (size_t at = 0; at < len && !err;) {
        const char *end = memchr(data + at, '\f', len - at);
        size_t n = end ? (size_t)(end - data) - at : len - at;
        err = hd_kb__put(records, HD_KB__PAGE, 0, "", 0);
        if (!err && n)
            err = hd_kb__put_lines(records, data + at, n,
                                   HD_KB__LINES_PAGE | (at ? 0 : HD_KB__LINES_BEGIN));
        at += n + 1;
    }
    return err;
}
