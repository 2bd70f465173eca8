/* Block records, written by parsers and read back. See doc.h.
 *
 * Record: u8 kind, u8 level, u32 little-endian length, text. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/doc.h"
#include "kb/text.h"

static enum hd_err put_record(struct hd_buf *records, enum hd_kb__block_kind kind, int level,
                              const char *text, size_t len)
{
    unsigned char head[6] = {(unsigned char)kind,        (unsigned char)level,
                             (unsigned char)len,         (unsigned char)(len >> 8),
                             (unsigned char)(len >> 16), (unsigned char)(len >> 24)};
    hd_buf_append(records, head, sizeof head);
    return hd_buf_append(records, text, len);
}

enum hd_err hd_kb__put(struct hd_buf *records, enum hd_kb__block_kind kind, int level,
                       const char *text, size_t len)
{
    if (kind == HD_KB__PAGE)
        return put_record(records, kind, 0, "", 0);
    struct hd_buf clean;
    hd_buf_init(&clean, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__clean(&clean, text, len, kind == HD_KB__CODE);
    if (!err && clean.len)
        err = put_record(records, kind,
                         level < 1   ? 1
                         : level > 6 ? 6
                                     : level,
                         clean.data, clean.len);
    hd_buf_dispose(&clean);
    return err ? err : records->err;
}

/* --- tables ------------------------------------------------------------------------------- */

static enum hd_err push(char ***list, size_t *n, size_t *cap, char *item)
{
    if (*n == *cap) {
        size_t grown = *cap ? *cap * 2 : 8;
        char **items = realloc(*list, grown * sizeof *items);
        if (!items)
            return HD_ERR_NOMEM;
        *list = items;
        *cap = grown;
    }
    (*list)[(*n)++] = item;
    return HD_OK;
}

enum hd_err hd_kb__table_cell(struct hd_kb__table *table, const char *text, size_t len)
{
    enum { COLUMNS_MAX = 256 };
    if (table->n_cell >= COLUMNS_MAX)
        return HD_OK;
    struct hd_buf clean;
    hd_buf_init(&clean, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__clean(&clean, text, len, false);
    if (!err && !hd_buf_reserve(&clean, 1))
        err = clean.err;
    char *cell = err ? NULL : hd_buf_take(&clean);
    if (cell)
        err = push(&table->cells, &table->n_cell, &table->cap_cell, cell);
    else if (!err)
        err = HD_ERR_NOMEM;
    if (err)
        free(cell);
    hd_buf_dispose(&clean);
    return err;
}

static void free_cells(char **cells, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(cells[i]);
}

bool hd_kb__ends_in_cjk(const char *s)
{
    size_t len = strlen(s), back = len;
    while (back > 0 && ((unsigned char)s[back - 1] & 0xC0) == 0x80)
        back--;
    unsigned c = 0;
    return back > 0 && hd_utf8_decode(&c, s + back - 1, len - back + 1, NULL) && hd_kb__is_cjk(c);
}

static enum hd_err put_row(struct hd_kb__table *table, struct hd_buf *records)
{
    struct hd_buf row;
    hd_buf_init(&row, HD_KB__TEXT_MAX);
    bool named = table->n_row > 0 && table->n_header > 1, cjk = false;
    for (size_t i = 0; i < table->n_header; i++)
        cjk |= hd_kb__ends_in_cjk(table->header[i]);
    for (size_t i = 0; i < table->n_cell; i++) {
        if (!table->cells[i][0])
            continue;
        if (row.len)
            hd_buf_puts(&row, !named ? " | " : cjk ? "；" : "; ");
        if (named && i < table->n_header && table->header[i][0]) {
            hd_buf_puts(&row, table->header[i]);
            hd_buf_puts(&row, cjk ? "：" : ": ");
        }
        hd_buf_puts(&row, table->cells[i]);
    }
    enum hd_err err = row.err;
    if (!err && row.len)
        err = hd_kb__put(records, HD_KB__ROW, 1, row.data, row.len);
    hd_buf_dispose(&row);
    return err;
}

enum hd_err hd_kb__table_row(struct hd_kb__table *table, struct hd_buf *records)
{
    enum hd_err err = put_row(table, records);
    if (table->n_row == 0 && table->n_cell > 1) {
        table->header = table->cells;
        table->n_header = table->n_cell;
        table->cells = NULL;
        table->cap_cell = 0;
    } else {
        free_cells(table->cells, table->n_cell);
    }
    table->n_cell = 0;
    table->n_row++;
    return err;
}

void hd_kb__table_dispose(struct hd_kb__table *table)
{
    free_cells(table->cells, table->n_cell);
    free_cells(table->header, table->n_header);
    free(table->cells);
    free(table->header);
    memset(table, 0, sizeof *table);
}

/* --- reading back ------------------------------------------------------------------------- */

void hd_kb__doc_init(struct hd_kb__doc *doc)
{
    memset(doc, 0, sizeof *doc);
    hd_buf_init(&doc->text, HD_KB__TEXT_MAX);
}

void hd_kb__doc_dispose(struct hd_kb__doc *doc)
{
    free(doc->title);
    free(doc->blocks);
    hd_buf_dispose(&doc->text);
    doc->title = NULL;
    doc->blocks = NULL;
    doc->n_block = doc->cap_block = 0;
}

static enum hd_err add_block(struct hd_kb__doc *doc, enum hd_kb__block_kind kind, int level,
                             const char *text, size_t len)
{
    if (doc->n_block == doc->cap_block) {
        size_t cap = doc->cap_block ? doc->cap_block * 2 : 64;
        struct hd_kb__block *blocks = realloc(doc->blocks, cap * sizeof *blocks);
        if (!blocks)
            return HD_ERR_NOMEM;
        doc->blocks = blocks;
        doc->cap_block = cap;
    }
    if (doc->text.len) {
        enum hd_kb__block_kind before = doc->blocks[doc->n_block - 1].kind;
        bool tight = (kind == HD_KB__ROW || kind == HD_KB__ITEM) && before == kind;
        hd_buf_puts(&doc->text, tight ? "\n" : "\n\n");
    }
    size_t begin = doc->text.len;
    hd_buf_append(&doc->text, text, len);
    doc->blocks[doc->n_block++] = (struct hd_kb__block){
        .kind = kind, .level = level, .begin = begin, .end = doc->text.len, .page = doc->n_page};
    return doc->text.err;
}

enum hd_err hd_kb__doc_read(struct hd_kb__doc *doc, const char *records, size_t len,
                            struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    for (size_t at = 0; at < len && !err;) {
        const unsigned char *head = (const unsigned char *)records + at;
        if (len - at < 6)
            return hd_fail(msg, HD_ERR_FORMAT, "the parser's output ends in the middle");
        size_t n = head[2] | (size_t)head[3] << 8 | (size_t)head[4] << 16 | (size_t)head[5] << 24;
        const char *text = records + at + 6;
        if (!hd_within(at + 6, n, len) || !hd_utf8_valid(text, n) || memchr(text, '\0', n))
            return hd_fail(msg, HD_ERR_FORMAT, "the parser's output is malformed");
        at += 6 + n;
        switch ((enum hd_kb__block_kind)head[0]) {
        case HD_KB__PAGE:
            doc->n_page++;
            break;
        case HD_KB__TITLE:
            free(doc->title);
            doc->title = strndup(text, n < 300 ? n : hd_utf8_complete(text, 300));
            err = doc->title ? HD_OK : HD_ERR_NOMEM;
            break;
        case HD_KB__HEADING:
        case HD_KB__PARA:
        case HD_KB__ITEM:
        case HD_KB__ROW:
        case HD_KB__CODE:
            err = add_block(doc, head[0], head[1] >= 1 && head[1] <= 6 ? head[1] : 1, text, n);
            break;
        default:
            return hd_fail(msg, HD_ERR_FORMAT, "the parser's output is malformed");
        }
    }
    if (!err && !doc->title && !(doc->title = strdup("")))
        err = HD_ERR_NOMEM;
    if (!err && !doc->n_block)
        err = hd_fail(msg, HD_ERR_INVALID,
                      "there is no text in it (a scan? text recognition is not built in)");
    return err;
}
