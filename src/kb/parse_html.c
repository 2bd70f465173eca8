/* HTML, through gumbo: headings, paragraphs, lists, tables; what is not content is left out. */
#include <stdlib.h>
#include <string.h>

#include <gumbo.h>

#include "kb/doc.h"
#include "kb/parse.h"
#include "kb/text.h"

enum { DEPTH_MAX = 400 }; /* deeper nesting is not walked */

struct state {
    struct hd_buf *records;
    struct hd_buf text; /* of the block being read */
    struct hd_kb__table *table;
    int list_depth, heading;
    bool pre, with_title;
    enum hd_err err;
};

static void flush(struct state *st)
{
    enum hd_kb__block_kind kind = st->heading      ? HD_KB__HEADING
                                  : st->pre        ? HD_KB__CODE
                                  : st->list_depth ? HD_KB__ITEM
                                                   : HD_KB__PARA;
    if (st->text.err && !st->err)
        st->err = st->text.err;
    if (!st->err && st->text.len)
        st->err = hd_kb__put(st->records, kind, st->heading, st->text.data, st->text.len);
    hd_buf_clear(&st->text);
}

static bool is_skipped(GumboTag tag)
{
    switch (tag) {
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_NOSCRIPT:
    case GUMBO_TAG_TEMPLATE:
    case GUMBO_TAG_NAV:
    case GUMBO_TAG_SVG:
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_OBJECT:
    case GUMBO_TAG_BUTTON:
    case GUMBO_TAG_SELECT:
    case GUMBO_TAG_TEXTAREA:
    case GUMBO_TAG_RT: /* reading aids over ideographs */
    case GUMBO_TAG_RP:
        return true;
    default:
        return false;
    }
}

static bool is_inline(GumboTag tag)
{
    switch (tag) {
    case GUMBO_TAG_A:
    case GUMBO_TAG_ABBR:
    case GUMBO_TAG_B:
    case GUMBO_TAG_BDI:
    case GUMBO_TAG_BDO:
    case GUMBO_TAG_BIG:
    case GUMBO_TAG_CITE:
    case GUMBO_TAG_CODE:
    case GUMBO_TAG_DEL:
    case GUMBO_TAG_DFN:
    case GUMBO_TAG_EM:
    case GUMBO_TAG_FONT:
    case GUMBO_TAG_I:
    case GUMBO_TAG_INS:
    case GUMBO_TAG_KBD:
    case GUMBO_TAG_LABEL:
    case GUMBO_TAG_MARK:
    case GUMBO_TAG_Q:
    case GUMBO_TAG_RB:
    case GUMBO_TAG_RUBY:
    case GUMBO_TAG_S:
    case GUMBO_TAG_SAMP:
    case GUMBO_TAG_SMALL:
    case GUMBO_TAG_SPAN:
    case GUMBO_TAG_STRIKE:
    case GUMBO_TAG_STRONG:
    case GUMBO_TAG_SUB:
    case GUMBO_TAG_SUP:
    case GUMBO_TAG_TIME:
    case GUMBO_TAG_TT:
    case GUMBO_TAG_U:
    case GUMBO_TAG_VAR:
    case GUMBO_TAG_WBR:
    case GUMBO_TAG_UNKNOWN:
        return true;
    default:
        return false;
    }
}

static void walk(struct state *st, const GumboNode *node, int depth);

static void walk_children(struct state *st, const GumboNode *node, int depth)
{
    const GumboVector *children = &node->v.element.children;
    for (unsigned i = 0; i < children->length && !st->err; i++)
        walk(st, children->data[i], depth + 1);
}

/* A row's cells; what a cell holds is flattened into one line. */
static void walk_row(struct state *st, const GumboNode *row, int depth)
{
    const GumboVector *children = &row->v.element.children;
    for (unsigned i = 0; i < children->length && !st->err; i++) {
        const GumboNode *cell = children->data[i];
        if (cell->type != GUMBO_NODE_ELEMENT)
            continue;
        struct state inner = {.records = st->records};
        hd_buf_init(&inner.text, HD_KB__TEXT_MAX);
        inner.list_depth = -1; /* marks a cell: blocks are not flushed, only parted by spaces */
        walk_children(&inner, cell, depth + 1);
        st->err = inner.err ? inner.err
                            : hd_kb__table_cell(st->table, hd_buf_str(&inner.text), inner.text.len);
        hd_buf_dispose(&inner.text);
    }
    if (!st->err)
        st->err = hd_kb__table_row(st->table, st->records);
}

static void walk_table(struct state *st, const GumboNode *node, int depth)
{
    struct hd_kb__table table = {0}, *outer = st->table;
    flush(st);
    st->table = &table;
    walk_children(st, node, depth);
    flush(st);
    st->table = outer;
    hd_kb__table_dispose(&table);
}

static int heading_level(GumboTag tag)
{
    return tag >= GUMBO_TAG_H1 && tag <= GUMBO_TAG_H6 ? (int)(tag - GUMBO_TAG_H1) + 1 : 0;
}

static void walk_block(struct state *st, const GumboNode *node, int depth)
{
    GumboTag tag = node->v.element.tag;
    bool list = tag == GUMBO_TAG_UL || tag == GUMBO_TAG_OL || tag == GUMBO_TAG_DL;
    flush(st);
    int heading = st->heading;
    bool pre = st->pre;
    st->list_depth += list;
    st->heading = heading_level(tag) ? heading_level(tag) : heading;
    st->pre = pre || tag == GUMBO_TAG_PRE;
    walk_children(st, node, depth);
    flush(st);
    st->list_depth -= list;
    st->heading = heading;
    st->pre = pre;
}

static void walk_element(struct state *st, const GumboNode *node, int depth)
{
    GumboTag tag = node->v.element.tag;
    bool in_cell = st->list_depth < 0;
    if (is_skipped(tag) || depth > DEPTH_MAX)
        return;
    if (tag == GUMBO_TAG_BR || tag == GUMBO_TAG_HR) {
        hd_buf_putc(&st->text, st->pre ? '\n' : ' ');
    } else if (is_inline(tag)) {
        walk_children(st, node, depth);
    } else if (in_cell) {
        hd_buf_putc(&st->text, ' ');
        walk_children(st, node, depth);
        hd_buf_putc(&st->text, ' ');
    } else if (tag == GUMBO_TAG_TABLE) {
        walk_table(st, node, depth);
    } else if (tag == GUMBO_TAG_TR && st->table) {
        walk_row(st, node, depth);
    } else {
        walk_block(st, node, depth);
    }
}

static void put_title(struct state *st, const GumboNode *head)
{
    const GumboVector *children = &head->v.element.children;
    for (unsigned i = 0; i < children->length && !st->err; i++) {
        const GumboNode *node = children->data[i];
        if (node->type != GUMBO_NODE_ELEMENT || node->v.element.tag != GUMBO_TAG_TITLE ||
            !node->v.element.children.length)
            continue;
        const GumboNode *text = node->v.element.children.data[0];
        if (text->type == GUMBO_NODE_TEXT)
            st->err = hd_kb__put(st->records, HD_KB__TITLE, 1, text->v.text.text,
                                 strlen(text->v.text.text));
    }
}

static void walk(struct state *st, const GumboNode *node, int depth)
{
    switch (node->type) {
    case GUMBO_NODE_TEXT:
    case GUMBO_NODE_WHITESPACE:
    case GUMBO_NODE_CDATA:
        hd_buf_puts(&st->text, node->v.text.text);
        break;
    case GUMBO_NODE_ELEMENT:
        if (node->v.element.tag == GUMBO_TAG_HEAD) {
            if (st->with_title)
                put_title(st, node);
        } else {
            walk_element(st, node, depth);
        }
        break;
    default:
        break;
    }
}

enum hd_err hd_kb__html_blocks(struct hd_buf *records, const char *text, size_t len,
                               bool with_title)
{
    struct state st = {.records = records, .with_title = with_title};
    GumboOptions options = kGumboDefaultOptions;
    options.max_errors = 0;
    GumboOutput *output = gumbo_parse_with_options(&options, text, len);
    if (!output)
        return HD_ERR_NOMEM;
    hd_buf_init(&st.text, HD_KB__TEXT_MAX);
    walk(&st, output->root, 0);
    flush(&st);
    hd_buf_dispose(&st.text);
    gumbo_destroy_output(&options, output);
    return st.err ? st.err : records->err;
}

/* The charset that the first kilobyte names. */
static const char *find_charset(const char *data, size_t len, char name[40])
{
    const char *at = memmem(data, len < 1024 ? len : 1024, "charset=", 8);
    if (!at)
        return NULL;
    at += 8;
    size_t n = 0, left = (size_t)(data + len - at);
    if (left && (*at == '"' || *at == '\''))
        at++, left--;
    while (n < left && n < 39 &&
           strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                  "0123456789-_",
                  at[n]) &&
           at[n])
        n++;
    memcpy(name, at, n);
    name[n] = '\0';
    return n ? name : NULL;
}

enum hd_err hd_kb__parse_html(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg)
{
    char name[40];
    struct hd_buf text;
    hd_buf_init(&text, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__decode(&text, data, len, find_charset(data, len, name), msg);
    if (!err && text.len)
        err = hd_kb__html_blocks(records, text.data, text.len, true);
    hd_buf_dispose(&text);
    return err;
}
