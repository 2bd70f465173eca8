/* Word documents: paragraphs, headings by style, lists, tables row by row. */
#include <stdlib.h>
#include <string.h>

#include <libxml/tree.h>

#include "kb/archive.h"
#include "kb/doc.h"
#include "kb/parse.h"

enum { STYLES_MAX = 4096 };

struct style {
    xmlChar *id;
    int level; /* of the heading; 7 = the document's title */
};

struct state {
    struct hd_buf *records;
    struct style *styles;
    size_t n_style;
    enum hd_err err;
};

static bool is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name);
}

static const xmlNode *child(const xmlNode *node, const char *name)
{
    for (const xmlNode *c = node ? node->children : NULL; c; c = c->next)
        if (is(c, name))
            return c;
    return NULL;
}

/* The w:val attribute, owned (xmlFree), or NULL. */
static xmlChar *value(const xmlNode *node)
{
    return node ? xmlGetProp((xmlNode *)node, (const xmlChar *)"val") : NULL;
}

/* "heading 2" → 2, "Title" → 7, else 0; also the names that Chinese Word gives. */
/* A small number as Word writes it; 0 where it is none. Outline levels count from 0. */
static long small_number(const char *digits)
{
    long n = strtol(digits, NULL, 10);
    return n >= 0 && n < 100 ? n : 99;
}

static int level_of_name(const char *name)
{
    const char *digits = NULL;
    if (!strncasecmp(name, "heading", 7))
        digits = name + 7;
    else if (!strncmp(name, "标题", 6) || !strncmp(name, "標題", 6))
        digits = name + 6;
    if (digits) {
        int level = (int)small_number(digits);
        return level >= 1 && level <= 6 ? level : digits[0] ? 0 : 7;
    }
    return strcasecmp(name, "title") ? 0 : 7;
}

static void read_styles(struct state *st, struct hd_kb__archive *archive)
{
    struct hd_buf xml;
    xmlDocPtr doc = NULL;
    hd_buf_init(&xml, HD_KB__TEXT_MAX);
    if (hd_kb__archive_read(archive, &xml, "word/styles.xml", NULL) ||
        hd_kb__xml_parse(&doc, hd_buf_str(&xml), xml.len, "word/styles.xml", NULL))
        goto out;
    st->styles = calloc(STYLES_MAX, sizeof *st->styles);
    const xmlNode *root = xmlDocGetRootElement(doc);
    for (const xmlNode *s = root ? root->children : NULL;
         s && st->styles && st->n_style < STYLES_MAX; s = s->next) {
        if (!is(s, "style"))
            continue;
        xmlChar *name = value(child(s, "name"));
        xmlChar *outline = value(child(child(s, "pPr"), "outlineLvl"));
        int level = name ? level_of_name((const char *)name) : 0;
        if (!level && outline)
            level = (int)small_number((const char *)outline) + 1;
        xmlChar *id =
            level >= 1 && level <= 7 ? xmlGetProp((xmlNode *)s, (const xmlChar *)"styleId") : NULL;
        if (id)
            st->styles[st->n_style++] = (struct style){id, level};
        xmlFree(name);
        xmlFree(outline);
    }
out:
    if (doc)
        xmlFreeDoc(doc);
    hd_buf_dispose(&xml);
}

static void append_text(const xmlNode *node, struct hd_buf *out)
{
    for (const xmlNode *c = node->children; c; c = c->next)
        if (c->type == XML_TEXT_NODE || c->type == XML_CDATA_SECTION_NODE)
            hd_buf_puts(out, (const char *)c->content);
}

/* Runs' text in order; deleted text, field codes and fallback copies of drawings are left out.
 * libxml2 bounds the depth of what it parsed. */
static void collect(const xmlNode *node, struct hd_buf *out)
{
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (c->type != XML_ELEMENT_NODE)
            continue;
        if (is(c, "t"))
            append_text(c, out);
        else if (is(c, "tab") || is(c, "br") || is(c, "cr"))
            hd_buf_putc(out, ' ');
        else if (is(c, "noBreakHyphen"))
            hd_buf_putc(out, '-');
        else if (is(c, "p")) {
            collect(c, out);
            hd_buf_putc(out, ' ');
        } else if (!is(c, "del") && !is(c, "instrText") && !is(c, "Fallback") && !is(c, "pPr") &&
                   !is(c, "rPr"))
            collect(c, out);
    }
}

static void paragraph(struct state *st, const xmlNode *p)
{
    const xmlNode *props = child(p, "pPr");
    xmlChar *style = value(child(props, "pStyle"));
    xmlChar *outline = value(child(props, "outlineLvl"));
    int level = style ? level_of_name((const char *)style) : 0;
    for (size_t i = 0; style && i < st->n_style; i++)
        if (!xmlStrcmp(style, st->styles[i].id))
            level = st->styles[i].level;
    if (!level && outline && small_number((const char *)outline) < 6)
        level = (int)small_number((const char *)outline) + 1;
    xmlFree(style);
    xmlFree(outline);
    struct hd_buf text;
    hd_buf_init(&text, HD_KB__TEXT_MAX);
    collect(p, &text);
    enum hd_kb__block_kind kind = level                   ? HD_KB__HEADING
                                  : child(props, "numPr") ? HD_KB__ITEM
                                                          : HD_KB__PARA;
    if (level == 7 && !text.err)
        st->err = hd_kb__put(st->records, HD_KB__TITLE, 1, hd_buf_str(&text), text.len);
    if (!st->err)
        st->err =
            hd_kb__put(st->records, kind, level == 7 ? 1 : level, hd_buf_str(&text), text.len);
    hd_buf_dispose(&text);
}

static void table(struct state *st, const xmlNode *tbl)
{
    struct hd_kb__table rows = {0};
    for (const xmlNode *row = tbl->children; row && !st->err; row = row->next) {
        if (!is(row, "tr"))
            continue;
        for (const xmlNode *cell = row->children; cell && !st->err; cell = cell->next) {
            if (!is(cell, "tc"))
                continue;
            struct hd_buf text;
            hd_buf_init(&text, HD_KB__TEXT_MAX);
            collect(cell, &text);
            st->err = hd_kb__table_cell(&rows, hd_buf_str(&text), text.len);
            hd_buf_dispose(&text);
        }
        if (!st->err)
            st->err = hd_kb__table_row(&rows, st->records);
    }
    hd_kb__table_dispose(&rows);
}

static void body(struct state *st, const xmlNode *node)
{
    for (const xmlNode *c = node->children; c && !st->err; c = c->next) {
        if (is(c, "p"))
            paragraph(st, c);
        else if (is(c, "tbl"))
            table(st, c);
        else if (is(c, "sdt") || is(c, "sdtContent") || is(c, "customXml") || is(c, "ins"))
            body(st, c);
    }
}

enum hd_err hd_kb__parse_docx(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg)
{
    struct state st = {.records = records};
    struct hd_kb__archive *archive = NULL;
    xmlDocPtr doc = NULL;
    struct hd_buf xml;
    hd_buf_init(&xml, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__archive_open(&archive, data, len, msg);
    if (!err)
        err = hd_kb__archive_read(archive, &xml, "word/document.xml", msg);
    if (err == HD_ERR_NOTFOUND)
        err = hd_fail(msg, HD_ERR_FORMAT, "not a Word document (no word/document.xml in it)");
    if (!err)
        err = hd_kb__xml_parse(&doc, hd_buf_str(&xml), xml.len, "word/document.xml", msg);
    if (err)
        goto out;
    read_styles(&st, archive);
    const xmlNode *root = xmlDocGetRootElement(doc);
    const xmlNode *content = root ? child(root, "body") : NULL;
    if (content)
        body(&st, content);
    err = st.err;
out:
    for (size_t i = 0; i < st.n_style; i++)
        xmlFree(st.styles[i].id);
    free(st.styles);
    if (doc)
        xmlFreeDoc(doc);
    hd_kb__archive_close(archive);
    hd_buf_dispose(&xml);
    return err;
}
