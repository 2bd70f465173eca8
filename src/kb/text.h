/* Bytes of any encoding to clean UTF-8. */
#ifndef HD_KB_TEXT_H
#define HD_KB_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

/* Finds the encoding (byte-order mark, UTF-8, UTF-16, then GB18030, Big5 and what ICU recognises)
 * and appends UTF-8. `hint` is a charset that the document itself names, or NULL. INVALID for data
 * that is no text. */
enum hd_err hd_kb__decode(struct hd_buf *out, const char *data, size_t len, const char *hint,
                          struct hd_errmsg *msg);

/* Appends text without control and invisible characters, line ends as \n; white space is collapsed
 * to single spaces and trimmed unless keep_lines. What is not UTF-8 becomes U+FFFD. */
enum hd_err hd_kb__clean(struct hd_buf *out, const char *text, size_t len, bool keep_lines);

#endif
