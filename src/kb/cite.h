/* Citation marks as models write them. R1 is asked for [citation:3]; seen instead are
 * [citation: 3], [citation: webpage 1], [webpage 1], [webpage 1 begin], (citation:1), 【1】, [1],
 * [1][2], [citation:1, 2], [^1], ［1］, "[资料1]", "（资料 1）". */
#ifndef HD_KB_CITE_H
#define HD_KB_CITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum { HD_KB__MARKS_MAX = 16 };

/* Appends text without its marks to out, and notes the numbers 1..n_passage that they name (at most
 * HD_KB__MARKS_MAX, in order, without repeats; marks out of range are dropped). What only looks
 * like a mark ("[sic]", "(2016)", "a[3]") stays. */
enum hd_err hd_kb__strip_marks(struct hd_buf *out, const char *text, size_t len, int n_passage,
                               int marks[HD_KB__MARKS_MAX], size_t *n_mark);

/* The bytes at the end of text that could be the beginning of a mark: a streaming reader keeps
 * them back. */
size_t hd_kb__open_mark(const char *text, size_t len);

#endif
