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

static bool ends_in_cjk(const char *s)
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
        cjk |= ends_in_cjk(table->header[i]);
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

/* --- lines -------------------------------------------------------------------------------- */

struct line {
    const char *s;
    size_t len, width; /* width in columns: an ideograph counts two */
};

static size_t column_width(const char *s, size_t len)
{
    size_t width = 0;
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, s + i, len - i, NULL);
        i += k ? k : 1;
        width += k && c >= 0x2E80 ? 2 : 1;
    }
    return width;
}

static struct line trim_line(const char *s, size_t len)
{
    while (len && strchr(" \t\r\f\v", s[0]))
        s++, len--;
    while (len && strchr(" \t\r\f\v", s[len - 1]))
        len--;
    return (struct line){s, len, column_width(s, len)};
}

/* "- x", "* x", "• x", "1. x", "2) x", "（一）x", "一、x" */
static bool starts_item(const struct line *line)
{
    unsigned c[4] = {0};
    size_t at = 0, n = 0;
    while (n < 4 && at < line->len) {
        size_t k = hd_utf8_decode(&c[n], line->s + at, line->len - at, NULL);
        if (!k)
            break;
        at += k;
        n++;
    }
    if (n < 2)
        return false;
    if (c[0] == '-' || c[0] == '*' || c[0] == '+')
        return c[1] == ' ';
    if (c[0] == 0x2022 || c[0] == 0x25CF || c[0] == 0x25AA || c[0] == 0xB7)
        return true;
    if (c[0] >= '0' && c[0] <= '9') {
        size_t i = 1;
        while (i < n && c[i] >= '0' && c[i] <= '9')
            i++;
        return i + 1 < n && (c[i] == ')' || c[i] == 0x3001 || c[i] == 0xFF0E || c[i] == 0xFF09 ||
                             (c[i] == '.' && c[i + 1] == ' '));
    }
    static const unsigned numerals[] = {0x4E00, 0x4E8C, 0x4E09, 0x56DB, 0x4E94,
                                        0x516D, 0x4E03, 0x516B, 0x4E5D, 0x5341};
    unsigned first = c[0] == 0xFF08 || c[0] == '(' ? c[1] : c[0];
    for (size_t i = 0; i < sizeof numerals / sizeof *numerals; i++)
        if (first == numerals[i])
            return first != c[0] || c[1] == 0x3001;
    return false;
}

static bool ends_sentence(const char *s, size_t len)
{
    static const char *const ends[] = {".", "!", "?", ":", "。", "！", "？", "：", "；", "”", "）"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (len >= n && !memcmp(s + len - n, ends[i], n))
            return true;
    }
    return false;
}

/* Appends a wrapped line to the paragraph so far. */
static void join(struct hd_buf *para, const struct line *line)
{
    if (para->len) {
        unsigned first = 0;
        hd_utf8_decode(&first, line->s, line->len, NULL);
        bool lower = first >= 'a' && first <= 'z';
        char last = para->data[para->len - 1];
        bool after_letter = para->len > 1 && ((para->data[para->len - 2] | 32) >= 'a') &&
                            ((para->data[para->len - 2] | 32) <= 'z');
        if (last == '-' && lower && after_letter)
            para->data[--para->len] = '\0';
        else if (!(hd_kb__is_cjk(first) || first >= 0x3000) || !ends_in_cjk(para->data))
            if (!((unsigned char)last >= 0x80 && first >= 0x2E80))
                hd_buf_putc(para, ' ');
    }
    hd_buf_append(para, line->s, line->len);
}

/* The level of a line that stands alone and reads like a heading ("3.2 Test procedure", "第二章 …",
 * "Chapter 4"), or 0. */
static int heading_level(const char *s, size_t len)
{
    if (len > 120 || column_width(s, len) > 70 || ends_sentence(s, len))
        return 0;
    if (len > 3 && !memcmp(s, "第", 3)) {
        static const struct {
            const char *mark;
            int level;
        } marks[] = {{"章", 1}, {"节", 2}, {"節", 2}, {"部分", 1}};
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            const char *at = memmem(s, len < 24 ? len : 24, marks[i].mark, strlen(marks[i].mark));
            if (at)
                return marks[i].level;
        }
        return 0;
    }
    if (!strncasecmp(s, "chapter ", 8) || !strncasecmp(s, "part ", 5))
        return len > 8 && len < 70 ? 1 : 0;
    size_t i = 0;
    int level = 0;
    while (i < len && s[i] >= '0' && s[i] <= '9') {
        size_t digits = i;
        while (i < len && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i - digits > 2)
            return 0;
        level++;
        if (i < len && s[i] == '.')
            i++;
    }
    bool spaced = i < len && s[i] == ' ';
    while (i < len && s[i] == ' ')
        i++;
    bool capital = i < len && ((s[i] >= 'A' && s[i] <= 'Z') || (unsigned char)s[i] >= 0xE3);
    return level && spaced && capital ? level : 0;
}

static void flush(struct hd_buf *records, struct hd_buf *para, bool item, bool alone)
{
    int level = alone && para->len ? heading_level(para->data, para->len) : 0;
    if (level)
        hd_kb__put(records, HD_KB__HEADING, level, para->data, para->len);
    else if (para->len)
        hd_kb__put(records, item ? HD_KB__ITEM : HD_KB__PARA, 1, para->data, para->len);
    hd_buf_clear(para);
}

enum hd_err hd_kb__put_lines(struct hd_buf *records, const char *text, size_t len)
{
    struct hd_buf para;
    hd_buf_init(&para, HD_KB__TEXT_MAX);
    size_t widest = 0;
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(text + i, '\n', len - i);
        size_t end = nl ? (size_t)(nl - text) : len;
        struct line line = trim_line(text + i, end - i);
        if (line.width > widest)
            widest = line.width;
        i = end + 1;
    }
    bool item = false, blank_before = true;
    size_t width = 0;  /* of the line before */
    size_t n_line = 0; /* in the paragraph */
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(text + i, '\n', len - i);
        size_t end = nl ? (size_t)(nl - text) : len;
        struct line line = trim_line(text + i, end - i);
        i = end + 1;
        bool begins_item = line.len && starts_item(&line);
        /* A line well short of the widest one was ended on purpose. */
        bool wrapped = para.len && width * 10 >= widest * 7 && widest >= 30 &&
                       !(ends_sentence(para.data, para.len) && width * 20 < widest * 17);
        if (!line.len || begins_item || !wrapped)
            flush(records, &para, item, n_line == 1 && blank_before && !line.len);
        if (!para.len) {
            item = line.len && begins_item;
            blank_before = !line.len || (n_line == 0 && blank_before);
            n_line = 0;
        }
        join(&para, &line);
        n_line += line.len > 0;
        width = line.width;
    }
    flush(records, &para, item, false);
    enum hd_err err = para.err ? para.err : records->err;
    hd_buf_dispose(&para);
    return err;
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
