/* Plain text has no marks for what its lines are: paragraphs, headings, items and titles are found
 * by how the lines look. */
#ifndef HD_KB_LINES_H
#define HD_KB_LINES_H

#include <stdbool.h>

#include "kb/doc.h"

enum hd_kb__lines {
    HD_KB__LINES_BEGIN = 1, /* the document begins here: the first line may be its title */
    HD_KB__LINES_PAGE = 2,  /* a page ends here: its last line may be a page number */
};

/* Lines to paragraphs: a blank line ends one; lines that were only wrapped are joined (no space
 * between ideographs, end-of-line hyphens undone); list items and table-like lines stay apart. A
 * numbered short line after a blank one is a heading, unless another numbered line follows. */
enum hd_err hd_kb__put_lines(struct hd_buf *records, const char *text, size_t len,
                             enum hd_kb__lines where);

/* Whether a text ends as sentences (and introductions, "…:") do. */
bool hd_kb__ends_sentence(const char *s, size_t len);

#endif
