/* A document between parsing and storing: clean text cut into blocks.
 *
 * Parsers run in a child process (sandbox.h) and write records into a buffer; the parent reads the
 * records back, checks them as it would any input, and lays out the stored text. */
#ifndef HD_KB_DOC_H
#define HD_KB_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum hd_kb__block_kind {
    HD_KB__TITLE = 'T',   /* the document's own title; not part of the text */
    HD_KB__HEADING = 'H', /* level 1..6 */
    HD_KB__PARA = 'P',
    HD_KB__ITEM = 'L', /* of a list */
    HD_KB__ROW = 'R',  /* of a table, header repeated: "Item: Laptop; Limit: 5,000" */
    HD_KB__CODE = 'C', /* line breaks kept */
    HD_KB__PAGE = 'F', /* a new page begins */
};

/* --- the parser's side -------------------------------------------------------------------- */

enum { HD_KB__TEXT_MAX = 64 << 20 }; /* bytes of text that one document may give */

/* Appends one record; the text is cleaned (controls and invisible characters out, white space
 * collapsed, valid UTF-8). Empty text gives no record, except for PAGE. */
enum hd_err hd_kb__put(struct hd_buf *records, enum hd_kb__block_kind kind, int level,
                       const char *text, size_t len);

/* A table's cells, row by row; see ROW. */
struct hd_kb__table {
    char **header; /* owned cells of the header row */
    size_t n_header;
    char **cells; /* the row being read */
    size_t n_cell, cap_cell, cap_header;
    size_t n_row;
};
enum hd_err hd_kb__table_cell(struct hd_kb__table *table, const char *text, size_t len);
/* Ends a row; the first row of a table with at least two columns is its header. */
enum hd_err hd_kb__table_row(struct hd_kb__table *table, struct hd_buf *records);
void hd_kb__table_dispose(struct hd_kb__table *table);

/* Whether the last character is one of a script written without spaces. */
bool hd_kb__ends_in_cjk(const char *s);

/* --- the store's side --------------------------------------------------------------------- */

struct hd_kb__block {
    enum hd_kb__block_kind kind;
    int level;
    size_t begin, end; /* bytes of doc.text */
    int64_t page;      /* from 1; 0 = the format has none */
};
struct hd_kb__doc {
    char *title; /* owned; "" without */
    struct hd_buf text;
    struct hd_kb__block *blocks; /* owned */
    size_t n_block, cap_block;
    int64_t n_page;
};
void hd_kb__doc_init(struct hd_kb__doc *doc);
void hd_kb__doc_dispose(struct hd_kb__doc *doc);
/* FORMAT where the records are malformed, INVALID where they hold no text. */
enum hd_err hd_kb__doc_read(struct hd_kb__doc *doc, const char *records, size_t len,
                            struct hd_errmsg *msg);

#endif
