/* Sentences and passages.
 *
 * A passage (chunk) is a run of whole sentences of about 200 tokens, from one page and, where the
 * sections are not tiny, one section; it carries the path of headings above it. */
#ifndef HD_KB_CHUNK_H
#define HD_KB_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kb/doc.h"

/* The end of the sentence that begins at s: past its final mark and closing quotes, or len. Breaks
 * after 。！？!? and line ends, and after a full stop that ends a sentence (not one in an
 * abbreviation, an initial, a decimal or a list number). Never 0 for len > 0. */
size_t hd_kb__sentence_end(const char *s, size_t len);

struct hd_kb__sentence {
    size_t begin, end; /* bytes; without white space around it */
};
/* Appends the sentences of s to *list (owned, grown). */
enum hd_err hd_kb__sentences(struct hd_kb__sentence **list, size_t *n, const char *s, size_t len);

/* Tokens that text will take, estimated: 0.7 per ideograph, 0.27 per other byte. */
size_t hd_kb__estimate_tokens(const char *s, size_t len);

struct hd_kb__chunk {
    size_t begin, end;       /* bytes of the document's text */
    size_t cp_begin, cp_end; /* code points */
    int64_t page;
    char *heading; /* owned: "Title > Chapter > Section" */
};
struct hd_kb__chunks {
    struct hd_kb__chunk *items; /* owned */
    size_t n, cap;
};
enum {
    HD_KB__CHUNK_TARGET = 220, /* tokens */
    HD_KB__CHUNK_WHOLE = 300,  /* a document up to this is one chunk */
};
enum hd_err hd_kb__chunk(struct hd_kb__chunks *out, const struct hd_kb__doc *doc);
void hd_kb__chunks_dispose(struct hd_kb__chunks *chunks);

#endif
