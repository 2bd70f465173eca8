/* Formats: from a file's bytes to block records (doc.h). The functions here are the parsers proper;
 * only the sandbox (and the fuzz targets) call them. */
#ifndef HD_KB_PARSE_H
#define HD_KB_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

typedef enum hd_err (*hd_kb__parse_fn)(struct hd_buf *records, const char *data, size_t len,
                                       struct hd_errmsg *msg);

enum hd_err hd_kb__parse_text(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg);
enum hd_err hd_kb__parse_markdown(struct hd_buf *records, const char *data, size_t len,
                                  struct hd_errmsg *msg);
enum hd_err hd_kb__parse_html(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg);
enum hd_err hd_kb__parse_docx(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg);
enum hd_err hd_kb__parse_epub(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg);
/* What pdftotext prints: UTF-8, pages ended by form feeds. */
enum hd_err hd_kb__parse_pages(struct hd_buf *records, const char *data, size_t len,
                               struct hd_errmsg *msg);

/* An HTML text that is UTF-8 already (an EPUB's chapter); with_title: <title> is the document's. */
enum hd_err hd_kb__html_blocks(struct hd_buf *records, const char *text, size_t len,
                               bool with_title);

struct hd_kb__format {
    const char *name;       /* "markdown" */
    const char *extensions; /* " md markdown " */
    hd_kb__parse_fn parse;  /* NULL: through pdftotext */
};
/* By the file name's extension; NULL for what we do not read. */
const struct hd_kb__format *hd_kb__format_of(const char *name);

/* Parses in a child process without network, files or new programs, limited in memory and time.
 * Whatever the file holds, this returns: FORMAT, LIMIT, TIMEOUT or INVALID say why it gave
 * nothing. Safe to call from any thread. */
enum hd_err hd_kb__parse(struct hd_buf *records, const struct hd_kb__format *format,
                         const char *data, size_t len, struct hd_errmsg *msg);

#endif
