/* Markdown, through md4c: headings, paragraphs, lists, tables, code. */
#include <stdlib.h>
#include <string.h>

#include <md4c.h>

#include "kb/doc.h"
#include "kb/parse.h"
#include "kb/text.h"

struct state {
    struct hd_buf *records;
    struct hd_buf text; /* of the block being read */
    struct hd_kb__table table;
    int list_depth;
    int html_depth; /* inside a raw HTML block */
    enum hd_err err;
};

static enum hd_kb__block_kind kind_now(const struct state *st)
{
    return st->list_depth ? HD_KB__ITEM : HD_KB__PARA;
}

static void flush(struct state *st, enum hd_kb__block_kind kind, int level)
{
    if (!st->err && st->text.len)
        st->err = hd_kb__put(st->records, kind, level, st->text.data, st->text.len);
    hd_buf_clear(&st->text);
}

static int enter_block(MD_BLOCKTYPE type, void *detail, void *ud)
{
    struct state *st = ud;
    if (type == MD_BLOCK_UL || type == MD_BLOCK_OL || type == MD_BLOCK_LI)
        flush(st, kind_now(st), 1);
    if (type == MD_BLOCK_UL || type == MD_BLOCK_OL)
        st->list_depth++;
    if (type == MD_BLOCK_HTML)
        st->html_depth++;
    return st->err != HD_OK;
}

static int leave_block(MD_BLOCKTYPE type, void *detail, void *ud)
{
    struct state *st = ud;
    switch (type) {
    case MD_BLOCK_H:
        flush(st, HD_KB__HEADING, (int)((MD_BLOCK_H_DETAIL *)detail)->level);
        break;
    case MD_BLOCK_P:
    case MD_BLOCK_LI:
    case MD_BLOCK_QUOTE:
        flush(st, kind_now(st), 1);
        break;
    case MD_BLOCK_CODE:
        flush(st, HD_KB__CODE, 1);
        break;
    case MD_BLOCK_UL:
    case MD_BLOCK_OL:
        st->list_depth--;
        break;
    case MD_BLOCK_HTML: /* a fragment of HTML: its text counts, its tags do not */
        st->html_depth--;
        if (!st->err && st->text.len)
            st->err = hd_kb__html_blocks(st->records, st->text.data, st->text.len, false);
        hd_buf_clear(&st->text);
        break;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD:
        if (!st->err)
            st->err = hd_kb__table_cell(&st->table, hd_buf_str(&st->text), st->text.len);
        hd_buf_clear(&st->text);
        break;
    case MD_BLOCK_TR:
        if (!st->err)
            st->err = hd_kb__table_row(&st->table, st->records);
        break;
    case MD_BLOCK_TABLE:
        hd_kb__table_dispose(&st->table);
        break;
    default:
        break;
    }
    return st->err != HD_OK;
}

static int span(MD_SPANTYPE type, void *detail, void *ud)
{
    return 0;
}

static void put_entity(struct hd_buf *out, const char *s, size_t len)
{
    static const struct {
        const char *name;
        unsigned c;
    } known[] = {{"&amp;", '&'},       {"&lt;", '<'},     {"&gt;", '>'},       {"&quot;", '"'},
                 {"&apos;", '\''},     {"&nbsp;", ' '},   {"&ndash;", 0x2013}, {"&mdash;", 0x2014},
                 {"&hellip;", 0x2026}, {"&copy;", 0xA9},  {"&deg;", 0xB0},     {"&times;", 0xD7},
                 {"&euro;", 0x20AC},   {"&middot;", 0xB7}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == len && !memcmp(known[i].name, s, len)) {
            hd_buf_put_utf8(out, known[i].c);
            return;
        }
    if (len > 3 && s[1] == '#') {
        bool hex = s[2] == 'x' || s[2] == 'X';
        unsigned long c = strtoul(s + 2 + hex, NULL, hex ? 16 : 10);
        hd_buf_put_utf8(out, c && c < 0x110000 ? (unsigned)c : 0xFFFD);
    } else {
        hd_buf_append(out, s, len);
    }
}

static int text(MD_TEXTTYPE type, const MD_CHAR *s, MD_SIZE len, void *ud)
{
    struct state *st = ud;
    switch (type) {
    case MD_TEXT_BR:
        hd_buf_putc(&st->text, '\n');
        break;
    case MD_TEXT_SOFTBR:
        hd_buf_putc(&st->text, st->html_depth ? '\n' : ' ');
        break;
    case MD_TEXT_ENTITY:
        put_entity(&st->text, s, len);
        break;
    case MD_TEXT_HTML: /* inline tags are dropped, blocks are parsed as HTML */
        if (st->html_depth)
            hd_buf_append(&st->text, s, len);
        break;
    case MD_TEXT_NULLCHAR:
        break;
    default:
        hd_buf_append(&st->text, s, len);
    }
    if (st->text.err)
        st->err = st->text.err;
    return st->err != HD_OK;
}

/* The length of a "---" front matter block, and its title. */
static size_t front_matter(struct hd_buf *records, const char *s, size_t len)
{
    if (len < 8 || memcmp(s, "---\n", 4))
        return 0;
    const char *end = memmem(s + 3, len - 3, "\n---", 4);
    if (!end || end - s > 4096)
        return 0;
    const char *title = memmem(s, (size_t)(end - s) + 1, "\ntitle:", 7);
    if (title) {
        title += 7;
        const char *stop = memchr(title, '\n', (size_t)(end + 1 - title));
        if (stop)
            hd_kb__put(records, HD_KB__TITLE, 1, title, (size_t)(stop - title));
    }
    return (size_t)(end - s) + 4;
}

enum hd_err hd_kb__parse_markdown(struct hd_buf *records, const char *data, size_t len,
                                  struct hd_errmsg *msg)
{
    struct state st = {.records = records};
    struct hd_buf decoded;
    hd_buf_init(&decoded, HD_KB__TEXT_MAX);
    hd_buf_init(&st.text, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__decode(&decoded, data, len, NULL, msg);
    if (!err && decoded.len) {
        size_t skip = front_matter(records, decoded.data, decoded.len);
        MD_PARSER parser = {.flags = MD_FLAG_TABLES | MD_FLAG_STRIKETHROUGH | MD_FLAG_TASKLISTS |
                                     MD_FLAG_PERMISSIVEAUTOLINKS,
                            .enter_block = enter_block,
                            .leave_block = leave_block,
                            .enter_span = span,
                            .leave_span = span,
                            .text = text};
        int rc = md_parse(decoded.data + skip, (MD_SIZE)(decoded.len - skip), &parser, &st);
        err = st.err ? st.err : rc < 0 ? HD_ERR_NOMEM : records->err;
    }
    hd_kb__table_dispose(&st.table);
    hd_buf_dispose(&st.text);
    hd_buf_dispose(&decoded);
    return err;
}
