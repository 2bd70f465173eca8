/* tojson, as transformers defines it: json.dumps without escaping of what is not ASCII. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

struct writer {
    struct hd_jinja_run *run;
    struct hd_jinja__text out;
    bool ascii, sorts, pretty;
    struct hd_jinja__str indent, between, colon;
};

static void put(struct writer *w, const char *text)
{
    hd_jinja__text_put(w->run, &w->out, text, strlen(text), false);
}

static void put_unicode(struct writer *w, unsigned c, bool request)
{
    char text[16];
    if (c >= 0x10000)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                 0xdc00 + ((c - 0x10000) & 0x3ff));
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    hd_jinja__text_put(w->run, &w->out, text, strlen(text), request);
}

/* The escape of a character, or NULL where it stands for itself. */
static const char *escape(unsigned c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    default:
        return NULL;
    }
}

static void put_string(struct writer *w, const struct hd_jinja__str *s)
{
    put(w, "\"");
    size_t plain = 0; /* where the text that needs no escape begins */
    for (size_t at = 0; at <= s->len && !w->run->err;) {
        unsigned c = 0;
        size_t step = at < s->len ? hd_utf8_decode(&c, s->data + at, s->len - at, NULL) : 1;
        step = step ? step : 1;
        const char *escaped = escape(c);
        bool special = at == s->len || escaped || c < 0x20 || (w->ascii && c >= 0x7f);
        if (c == 0x7f)
            special = false;
        if (special && at > plain) {
            jv cut = hd_jinja__cut(w->run, s, plain, at);
            if (!w->run->err)
                hd_jinja__text_add(w->run, &w->out, cut.u.str);
        }
        if (special && at < s->len) {
            bool request = s->mask ? s->mask[at] : s->request;
            if (escaped)
                hd_jinja__text_put(w->run, &w->out, escaped, 2, request);
            else
                put_unicode(w, c, request);
        }
        at += step;
        if (special)
            plain = at;
    }
    put(w, "\"");
}

static void put_break(struct writer *w, int level)
{
    if (!w->pretty)
        return;
    put(w, "\n");
    for (int i = 0; i < level; i++)
        hd_jinja__text_add(w->run, &w->out, &w->indent);
}

static void put_value(struct writer *w, jv value, int level);

static void put_key(struct writer *w, jv key)
{
    if (key.kind == JV_STR) {
        put_string(w, key.u.str);
        return;
    }
    put(w, "\"");
    put_value(w, key, 0);
    put(w, "\"");
}

static const struct hd_jinja__entry *next_key(struct writer *w, const struct hd_jinja__dict *dict,
                                              const struct hd_jinja__entry *after)
{
    const struct hd_jinja__entry *best = NULL;
    for (size_t i = 0; i < dict->n && hd_jinja__step(w->run, 1); i++) {
        const struct hd_jinja__entry *entry = &dict->entry[i];
        if ((!after || hd_jinja__order(w->run, after->key, entry->key) < 0) &&
            (!best || hd_jinja__order(w->run, entry->key, best->key) < 0))
            best = entry;
    }
    return best;
}

static void put_dict(struct writer *w, const struct hd_jinja__dict *dict, int level)
{
    const struct hd_jinja__entry *entry = NULL;
    put(w, "{");
    for (size_t i = 0; i < dict->n && !w->run->err; i++) {
        entry = w->sorts ? next_key(w, dict, entry) : &dict->entry[i];
        if (!entry || w->run->err)
            break;
        if (i)
            hd_jinja__text_add(w->run, &w->out, &w->between);
        put_break(w, level + 1);
        put_key(w, entry->key);
        hd_jinja__text_add(w->run, &w->out, &w->colon);
        put_value(w, entry->value, level + 1);
    }
    if (dict->n)
        put_break(w, level);
    put(w, "}");
}

static void put_list(struct writer *w, const struct hd_jinja__list *list, int level)
{
    put(w, "[");
    for (size_t i = 0; i < list->n && !w->run->err; i++) {
        if (i)
            hd_jinja__text_add(w->run, &w->out, &w->between);
        put_break(w, level + 1);
        put_value(w, list->item[i], level + 1);
    }
    if (list->n)
        put_break(w, level);
    put(w, "]");
}

static void put_real(struct writer *w, double f)
{
    char number[40];
    hd_jinja__format_real(number, f);
    put(w, isnan(f) ? "NaN" : isinf(f) ? (f < 0 ? "-Infinity" : "Infinity") : number);
}

static void put_inner(struct writer *w, jv value, int level)
{
    char number[32];
    switch (value.kind) {
    case JV_NONE:
        put(w, "null");
        return;
    case JV_BOOL:
        put(w, value.u.b ? "true" : "false");
        return;
    case JV_INT:
        snprintf(number, sizeof number, "%lld", (long long)value.u.i);
        put(w, number);
        return;
    case JV_REAL:
        put_real(w, value.u.f);
        return;
    case JV_STR:
        put_string(w, value.u.str);
        return;
    case JV_LIST:
        put_list(w, value.u.list, level);
        return;
    case JV_DICT:
        put_dict(w, value.u.dict, level);
        return;
    default:
        hd_jinja__fail(w->run, HD_ERR_INVALID, "%s cannot be written as JSON",
                       value.kind == JV_UNDEFINED && value.u.name ? value.u.name
                                                                  : hd_jinja__type_name(value));
    }
}

static void put_value(struct writer *w, jv value, int level)
{
    if (++w->run->depth > 4 * HD_JINJA_MAX_DEPTH)
        hd_jinja__fail(w->run, HD_ERR_INVALID, "a value is nested too deeply");
    if (hd_jinja__step(w->run, 1))
        put_inner(w, value, level);
    w->run->depth--;
}

static void set_indent(struct writer *w, jv indent)
{
    static const char spaces[] = "                                ";
    if (indent.kind == JV_UNDEFINED || indent.kind == JV_NONE)
        return;
    w->pretty = true;
    w->between = (struct hd_jinja__str){.data = ",", .len = 1};
    if (indent.kind == JV_STR)
        w->indent = *indent.u.str;
    else if (indent.kind == JV_INT && indent.u.i <= (int64_t)sizeof spaces - 1)
        w->indent =
            (struct hd_jinja__str){.data = spaces, .len = indent.u.i > 0 ? (size_t)indent.u.i : 0};
    else
        hd_jinja__fail(w->run, HD_ERR_INVALID, "tojson: indent is a text or a number up to 32");
}

static void set_separators(struct writer *w, jv separators)
{
    if (separators.kind == JV_UNDEFINED || separators.kind == JV_NONE)
        return;
    if (separators.kind != JV_LIST || separators.u.list->n != 2 ||
        separators.u.list->item[0].kind != JV_STR || separators.u.list->item[1].kind != JV_STR) {
        hd_jinja__fail(w->run, HD_ERR_INVALID, "tojson: separators are two texts");
        return;
    }
    w->between = *separators.u.list->item[0].u.str;
    w->colon = *separators.u.list->item[1].u.str;
}

jv hd_jinja__tojson(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct writer w = {.run = run,
                       .ascii = hd_jinja__truth(hd_jinja__arg(args, 0, "ensure_ascii")),
                       .sorts = hd_jinja__truth(hd_jinja__arg(args, 3, "sort_keys")),
                       .between = {.data = ", ", .len = 2},
                       .colon = {.data = ": ", .len = 2}};
    set_indent(&w, hd_jinja__arg(args, 1, "indent"));
    set_separators(&w, hd_jinja__arg(args, 2, "separators"));
    hd_jinja__text_init(run, &w.out);
    if (!run->err)
        put_value(&w, input, 0);
    return hd_jinja__text_take(run, &w.out);
}
