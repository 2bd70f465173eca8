/* ECMA regular expressions as GBNF over JSON strings: a character that JSON escapes is escaped. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "token/grammar/grammar_impl.h"

enum { MAX_GROUPS = 24, MAX_SET = 512, LAST = 0x10ffff };

struct regex {
    const char *at, *end;
    struct hd_buf *out;
    struct hd_errmsg *msg;
    int depth;
};

struct set {
    struct hd_grammar__range range[MAX_SET];
    size_t n;
};

static enum hd_err refuse(struct regex *re, const char *why)
{
    return hd_fail(re->msg, HD_ERR_UNSUPPORTED, "\"pattern\": %s", why);
}

static bool peek(const struct regex *re, char c)
{
    return re->at < re->end && *re->at == c;
}

/* --- sets of characters --------------------------------------------------------------------------
 */

static enum hd_err add(struct regex *re, struct set *set, uint32_t lo, uint32_t hi)
{
    if (set->n + 2 >= MAX_SET)
        return refuse(re, "a class of too many parts");
    set->range[set->n++] = (struct hd_grammar__range){lo, hi};
    return HD_OK;
}

/* The classes \d \w \s; upper case: all others. */
static enum hd_err add_named(struct regex *re, struct set *set, char name)
{
    static const struct hd_grammar__range digit[] = {{'0', '9'}},
                                          word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                          space[] = {{9, 13},          {' ', ' '},
                                                     {0xa0, 0xa0},     {0x1680, 0x1680},
                                                     {0x2000, 0x200a}, {0x2028, 0x2029},
                                                     {0x202f, 0x202f}, {0x205f, 0x205f},
                                                     {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    const struct hd_grammar__range *list = name == 'd' || name == 'D'   ? digit
                                           : name == 'w' || name == 'W' ? word
                                                                        : space;
    size_t n = list == digit ? 1 : list == word ? 4 : 10;
    struct hd_grammar__range other[12];
    if (name < 'a') {
        n = hd_grammar__ranges_invert(other, list, n);
        list = other;
    }
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < n; i++)
        err = add(re, set, list[i].lo, list[i].hi);
    return err;
}

static void put_char(struct hd_buf *out, uint32_t c)
{
    hd_buf_printf(out, "\\U%08X", c);
}

/* The set as JSON writes its characters; control characters without a short form are left out. */
static enum hd_err put_set(struct regex *re, struct set *set, bool invert)
{
    static const struct {
        uint32_t c;
        const char *text;
    } escaped[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\r', "\\r"},
                   {'\t', "\\t"}, {'\b', "\\b"},  {'\f', "\\f"}};
    struct hd_grammar__range *range = malloc((MAX_SET + 4) * sizeof *range);
    bool more = false;
    if (!range)
        return HD_ERR_NOMEM;
    size_t n = hd_grammar__ranges_normal(set->range, set->n);
    if (invert)
        n = hd_grammar__ranges_invert(range, set->range, n);
    else
        memcpy(range, set->range, n * sizeof *range);
    hd_buf_puts(re->out, "(");
    for (size_t k = 0; k < sizeof escaped / sizeof *escaped; k++)
        for (size_t i = 0; i < n; i++)
            if (range[i].lo <= escaped[k].c && escaped[k].c <= range[i].hi) {
                hd_buf_puts(re->out, more ? " | " : "");
                hd_grammar__put_literal(re->out, escaped[k].text, 2);
                more = true;
            }
    bool open = false;
    static const struct hd_grammar__range plain[] = {{' ', '!'}, {'#', '['}, {']', LAST}};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++) {
            uint32_t lo = range[i].lo > plain[k].lo ? range[i].lo : plain[k].lo;
            uint32_t hi = range[i].hi < plain[k].hi ? range[i].hi : plain[k].hi;
            if (lo > hi)
                continue;
            hd_buf_puts(re->out, open ? "" : more ? " | [" : "[");
            open = more = true;
            put_char(re->out, lo);
            hd_buf_putc(re->out, '-');
            put_char(re->out, hi);
        }
    hd_buf_puts(re->out, open ? "])" : ")");
    free(range);
    return more ? HD_OK : refuse(re, "a class without characters that can be written");
}

/* --- escapes -------------------------------------------------------------------------------------
 */

static enum hd_err hex(struct regex *re, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, re->at++) {
        static const char all[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = re->at < re->end && *re->at ? strchr(all, *re->at) : NULL;
        if (!digit)
            return refuse(re, "\\x takes 2 hexadecimal digits, \\u 4");
        *out = *out << 4 | (uint32_t)((digit - all) & 15);
    }
    return HD_OK;
}

/* Behind a backslash: a class's letter into *name, or a character. */
static enum hd_err escape(struct regex *re, char *name, uint32_t *c)
{
    static const char from[] = "nrtfv", to[] = "\n\r\t\f\v";
    char e = re->at < re->end ? *re->at : 0;
    *name = 0;
    if (!e || (unsigned char)e >= 0x80)
        return refuse(re, "an escape of nothing");
    re->at++;
    if (strchr("dwsDWS", e))
        *name = e;
    else if (strchr(from, e))
        *c = (unsigned char)to[strchr(from, e) - from];
    else if (e == 'x' || e == 'u')
        return hex(re, e == 'x' ? 2 : 4, c);
    else if ((e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z') || (e >= '0' && e <= '9'))
        return refuse(re, "of the escapes, \\d \\w \\s \\D \\W \\S \\n \\r \\t \\f \\v \\x \\u are "
                          "supported");
    else
        *c = (unsigned char)e;
    return HD_OK;
}

static enum hd_err one(struct regex *re, uint32_t *c)
{
    unsigned point;
    size_t step = hd_utf8_decode(&point, re->at, (size_t)(re->end - re->at), NULL);
    if (!step)
        return refuse(re, "not UTF-8");
    re->at += step;
    *c = point;
    return HD_OK;
}

/* A member of a class: a character, or a named class, which is added. */
static enum hd_err member(struct regex *re, struct set *set, char *name, uint32_t *c)
{
    *name = 0;
    if (!peek(re, '\\'))
        return one(re, c);
    re->at++;
    if (peek(re, 'b')) { /* in a class, a backspace */
        re->at++;
        *c = '\b';
        return HD_OK;
    }
    enum hd_err err = escape(re, name, c);
    return !err && *name ? add_named(re, set, *name) : err;
}

static enum hd_err class(struct regex *re) {
    struct set set = {.n = 0}; enum hd_err err = HD_OK; char name; re->at++;
    bool invert = peek(re, '^'); re->at += invert; while (!err && !peek(re, ']')){
        uint32_t lo, hi; if (re->at >= re->end) return refuse(re, "a class does not end");
        err = member(re, &set, &name, &lo); if (err || name) continue; hi = lo;
        if (peek(re, '-') && re->at + 1 < re->end && re->at[1] != ']'){
            re->at++; err = member(re, &set, &name, &hi);
            if (!err && (name || hi < lo)) return refuse(re, "a range of a class runs backwards");}
if (!err) err = add(re, &set, lo, hi);
}
re->at += !err;
return err ? err : put_set(re, &set, invert);
}

/* --- the expression
 * ------------------------------------------------------------------------------- */

static enum hd_err choice(struct regex *re);

static enum hd_err group(struct regex *re)
{
    re->at++;
    if (peek(re, '?')) {
        if (re->end - re->at < 2 || re->at[1] != ':')
            return refuse(re, "look-ahead, look-behind and named groups are not supported");
        re->at += 2;
    }
    if (re->depth == MAX_GROUPS)
        return refuse(re, "groups are nested too deeply");
    re->depth++;
    hd_buf_puts(re->out, "(");
    enum hd_err err = choice(re);
    hd_buf_puts(re->out, ")");
    re->depth--;
    if (!err && !peek(re, ')'))
        return refuse(re, "a group does not end");
    re->at += !err;
    return err;
}

static enum hd_err atom(struct regex *re)
{
    struct set set = {.n = 0};
    uint32_t c = 0;
    char name = 0;
    enum hd_err err;
    if (*re->at == '(')
        return group(re);
    if (*re->at == '[')
        return class(re);
    if (*re->at == '^' || *re->at == '$')
        return refuse(re, "\"^\" and \"$\" only at its two ends, and not beside \"|\"");
    if (strchr("*+?{", *re->at))
        return refuse(re, "a quantifier of nothing");
    if (*re->at == '.') {
        static const struct hd_grammar__range breaks[] = {
            {'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
        memcpy(set.range, breaks, sizeof breaks);
        set.n = 3;
        re->at++;
        return put_set(re, &set, true);
    }
    if (*re->at == '\\') {
        re->at++;
        err = escape(re, &name, &c);
    } else {
        err = one(re, &c);
    }
    if (!err)
        err = name ? add_named(re, &set, name) : add(re, &set, c, c);
    return err ? err : put_set(re, &set, false);
}

/* Digits, at most six; false where there are none or more. */
static bool count(struct regex *re, long *out)
{
    const char *from = re->at;
    for (*out = 0; re->at < re->end && *re->at >= '0' && *re->at <= '9'; re->at++)
        if (re->at - from < 6)
            *out = *out * 10 + (*re->at - '0');
    return re->at > from && re->at - from <= 6;
}

/* Copies a quantifier, whose form GBNF shares; a lazy one matches the same texts. */
static enum hd_err quantifier(struct regex *re)
{
    if (re->at >= re->end || !strchr("*+?{", *re->at))
        return HD_OK;
    if (*re->at == '{') {
        const char *from = re->at++;
        long least = 0, most = -1;
        bool fine = count(re, &least);
        if (fine && peek(re, ',')) {
            re->at++;
            fine = peek(re, '}') || count(re, &most);
        }
        if (!fine || !peek(re, '}'))
            return refuse(re, "{m}, {m,} and {m,n} are supported");
        if (most >= 0 && most < least)
            return refuse(re, "{m,n} with n below m");
        re->at++;
        hd_buf_append(re->out, from, (size_t)(re->at - from));
    } else {
        hd_buf_putc(re->out, *re->at++);
    }
    if (peek(re, '?'))
        re->at++;
    if (re->at < re->end && strchr("*+?{", *re->at))
        return refuse(re, "a quantifier of a quantifier");
    return HD_OK;
}

static enum hd_err choice(struct regex *re)
{
    enum hd_err err = HD_OK;
    bool any = false;
    while (!err && re->at < re->end && *re->at != ')') {
        if (*re->at == '|') {
            hd_buf_puts(re->out, any ? " | " : "\"\" | ");
            re->at++;
            any = false;
            continue;
        }
        hd_buf_puts(re->out, any ? " " : "");
        any = true;
        err = atom(re);
        if (!err)
            err = quantifier(re);
    }
    if (!any)
        hd_buf_puts(re->out, "\"\"");
    return err ? err : re->out->err;
}

/* Whether the regex has a "|" outside of groups and classes. */
static bool has_choice(const char *s, const char *end)
{
    int depth = 0;
    for (bool in_class = false; s < end; s++) {
        if (*s == '\\')
            s++;
        else if (in_class)
            in_class = *s != ']';
        else if (*s == '[')
            in_class = true;
        else if (*s == '(' || *s == ')')
            depth += *s == '(' ? 1 : -1;
        else if (*s == '|' && !depth)
            return true;
    }
    return false;
}

enum hd_err hd_grammar__regex(struct hd_buf *out, const char *regex, size_t len,
                              struct hd_errmsg *msg)
{
    struct regex re = {.at = regex, .end = regex + len, .out = out, .msg = msg};
    if (memchr(regex, 0, len))
        return refuse(&re, "a NUL in it");
    bool from_start = len && *regex == '^', to_end = false;
    re.at += from_start;
    size_t slashes = 0; /* before a last $ */
    while (len > 1 && slashes + 1 < len && regex[len - 2 - slashes] == '\\')
        slashes++;
    if (re.at < re.end && re.end[-1] == '$' && slashes % 2 == 0) {
        to_end = true;
        re.end--;
    }
    if ((from_start || to_end) && has_choice(re.at, re.end))
        return refuse(&re, "\"^\" and \"$\" only at its two ends, and not beside \"|\"");
    hd_buf_puts(out, from_start ? "\"\\\"\" (" : "\"\\\"\" char* (");
    enum hd_err err = choice(&re);
    if (!err && re.at < re.end)
        err = refuse(&re, "a group ends that did not begin");
    hd_buf_puts(out, to_end ? ") \"\\\"\"" : ") char* \"\\\"\"");
    return err ? err : out->err;
}
