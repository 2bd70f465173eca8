/* GBNF text to a program.
 *
 *   grammar  := (name "::=" choice)*          choice := sequence ("|" sequence)*
 *   sequence := (item ("*" | "+" | "?" | "{m}" | "{m,}" | "{m,n}")?)*
 *   item     := "literal" | [class] | . | name | ( choice ) | <token> | <[id]>
 *
 * A repetition becomes rules of its own: x* is S ::= x S | ε, and x{0,3} a chain of three. They
 * call themselves last, so that they need no room on the stack (states.c). */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "token/grammar/grammar_impl.h"

struct parser {
    struct hd_grammar__program *p;
    const struct hd_tokenizer *tok;
    const char *begin, *at, *end;
    json_t *names; /* name: rule */
    struct hd_errmsg *msg;
    int depth;
};

struct sequence {
    struct hd_grammar__elem *elem;
    size_t n, cap;
};

static enum hd_err refuse(struct parser *ps, enum hd_err err, const char *why)
{
    int line = 1;
    for (const char *c = ps->begin; c < ps->at; c++)
        line += *c == '\n';
    return hd_fail(ps->msg, err, "grammar: line %d: %s", line, why);
}

static enum hd_err wrong(struct parser *ps, const char *why)
{
    return refuse(ps, HD_ERR_INVALID, why);
}

static enum hd_err full(struct parser *ps, enum hd_err err)
{
    return refuse(ps, err, err == HD_ERR_LIMIT ? "the grammar is too large" : hd_err_text(err));
}

/* --- the program's parts ------------------------------------------------------------------------
 */

static enum hd_err push(struct parser *ps, struct sequence *seq, uint32_t kind, uint32_t value)
{
    enum hd_err err =
        hd_grammar__grow(&seq->elem, &seq->cap, seq->n, sizeof *seq->elem, HD_GRAMMAR_MAX_ELEMS);
    if (err)
        return full(ps, err);
    seq->elem[seq->n++] = (struct hd_grammar__elem){kind, value};
    return HD_OK;
}

static enum hd_err new_rule(struct parser *ps, uint32_t *out)
{
    struct hd_grammar__program *p = ps->p;
    enum hd_err err =
        hd_grammar__grow(&p->rule, &p->cap_rule, p->n_rule, sizeof *p->rule, HD_GRAMMAR_MAX_RULES);
    if (err)
        return full(ps, err);
    *out = (uint32_t)p->n_rule;
    p->rule[p->n_rule++] = (struct hd_grammar__rule){0};
    return HD_OK;
}

/* Stores a sequence; where it begins. */
static enum hd_err store(struct parser *ps, const struct hd_grammar__elem *elem, size_t n,
                         uint32_t *out)
{
    struct hd_grammar__program *p = ps->p;
    *out = (uint32_t)p->n_elem;
    for (size_t i = 0; i <= n; i++) {
        enum hd_err err = hd_grammar__grow(&p->elem, &p->cap_elem, p->n_elem, sizeof *p->elem,
                                           HD_GRAMMAR_MAX_ELEMS);
        if (err)
            return full(ps, err);
        p->elem[p->n_elem++] = i < n ? elem[i] : (struct hd_grammar__elem){ELEM_END, 0};
    }
    return HD_OK;
}

static enum hd_err define(struct parser *ps, uint32_t rule, const uint32_t *alt, size_t n)
{
    struct hd_grammar__program *p = ps->p;
    uint32_t first = (uint32_t)p->n_alt;
    for (size_t i = 0; i < n; i++) {
        enum hd_err err =
            hd_grammar__grow(&p->alt, &p->cap_alt, p->n_alt, sizeof *p->alt, HD_GRAMMAR_MAX_ELEMS);
        if (err)
            return full(ps, err);
        p->alt[p->n_alt++] = alt[i];
    }
    p->rule[rule] = (struct hd_grammar__rule){first, (uint32_t)n, true};
    return HD_OK;
}

/* --- signs --------------------------------------------------------------------------------------
 */

static void skip_space(struct parser *ps, bool breaks)
{
    while (ps->at < ps->end) {
        if (*ps->at == '#')
            while (ps->at < ps->end && *ps->at != '\n' && *ps->at != '\r')
                ps->at++;
        else if (*ps->at == ' ' || *ps->at == '\t' ||
                 (breaks && (*ps->at == '\n' || *ps->at == '\r')))
            ps->at++;
        else
            return;
    }
}

static bool peek(const struct parser *ps, char c)
{
    return ps->at < ps->end && *ps->at == c;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static size_t name_len(const struct parser *ps)
{
    size_t n = 0;
    while (ps->at + n < ps->end && is_name_char(ps->at[n]))
        n++;
    return n;
}

static enum hd_err named_rule(struct parser *ps, size_t len, uint32_t *out)
{
    json_t *known = json_object_getn(ps->names, ps->at, len);
    if (known) {
        *out = (uint32_t)json_integer_value(known);
        return HD_OK;
    }
    enum hd_err err = new_rule(ps, out);
    if (!err && json_object_setn_new(ps->names, ps->at, len, json_integer(*out)))
        err = full(ps, HD_ERR_NOMEM);
    return err;
}

static enum hd_err hex(struct parser *ps, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, ps->at++) {
        char c = ps->at < ps->end ? *ps->at : 0;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0)
            return wrong(ps, "\\x takes 2 hexadecimal digits, \\u 4, \\U 8");
        *out = *out << 4 | (uint32_t)v;
    }
    return HD_OK;
}

/* One character of a literal or class. */
static enum hd_err character(struct parser *ps, uint32_t *out)
{
    static const char from[] = "trn\\\"[]", to[] = "\t\r\n\\\"[]";
    unsigned c;
    size_t step = hd_utf8_decode(&c, ps->at, (size_t)(ps->end - ps->at), NULL);
    if (!step)
        return wrong(ps, "not UTF-8");
    ps->at += step;
    *out = c;
    if (c != '\\')
        return HD_OK;
    char e = ps->at < ps->end ? *ps->at++ : 0;
    enum hd_err err = HD_OK;
    if (e == 'x' || e == 'u' || e == 'U')
        err = hex(ps, e == 'x' ? 2 : e == 'u' ? 4 : 8, out);
    else if (e && strchr(from, e))
        *out = (unsigned char)to[strchr(from, e) - from];
    else
        return wrong(ps, "unknown escape (\\n \\r \\t \\\\ \\\" \\[ \\] \\x \\u \\U are known)");
    if (!err && (*out > 0x10ffff || (*out >= 0xd800 && *out <= 0xdfff)))
        return wrong(ps, "an escape names no character");
    return err;
}

/* --- items --------------------------------------------------------------------------------------
 */

static enum hd_err literal(struct parser *ps, struct sequence *seq)
{
    enum hd_err err = HD_OK;
    ps->at++;
    while (!err && !peek(ps, '"')) {
        uint32_t c = 0;
        char bytes[4];
        if (ps->at >= ps->end || *ps->at == '\n')
            return wrong(ps, "a literal does not end");
        err = character(ps, &c);
        size_t n = err ? 0 : hd_utf8_encode(bytes, c);
        for (size_t i = 0; !err && i < n; i++)
            err = push(ps, seq, ELEM_BYTE, (uint8_t)bytes[i]);
    }
    ps->at += !err;
    return err;
}

static enum hd_err push_class(struct parser *ps, struct sequence *seq,
                              struct hd_grammar__range *range, size_t n, bool invert)
{
    struct hd_grammar__range *other = NULL;
    uint32_t node = 0;
    n = hd_grammar__ranges_normal(range, n);
    if (invert) {
        other = malloc((n + 2) * sizeof *other);
        if (!other)
            return full(ps, HD_ERR_NOMEM);
        n = hd_grammar__ranges_invert(other, range, n);
        range = other;
    }
    enum hd_err err = n ? hd_grammar__class(&ps->p->classes, &node, range, n) : HD_ERR_INVALID;
    free(other);
    if (err == HD_ERR_INVALID)
        return wrong(ps, "a class without characters");
    return err ? full(ps, err) : push(ps, seq, ELEM_CLASS, node);
}

static enum hd_err class(struct parser *ps, struct sequence *seq) {
    struct hd_grammar__range *range = NULL; size_t n = 0, cap = 0; enum hd_err err = HD_OK;
    ps->at++; bool invert = peek(ps, '^'); ps->at += invert; while (!err && !peek(ps, ']')){
        struct hd_grammar__range r = {0, 0};
        if (ps->at >= ps->end || *ps->at == '\n'){err = wrong(ps, "a class does not end"); break;}
err = character(ps, &r.lo);
r.hi = r.lo;
if (!err && peek(ps, '-') && ps->at + 1 < ps->end && ps->at[1] != ']') {
    ps->at++;
    err = character(ps, &r.hi);
    if (!err && r.hi < r.lo)
        err = wrong(ps, "a range of a class runs backwards");
}
/* one to spare: normalising may split a range */
if (!err && (err = hd_grammar__grow(&range, &cap, n + 1, sizeof *range, 1 << 16)))
    err = full(ps, err);
if (!err)
    range[n++] = r;
}
ps->at += !err;
if (!err && !range)
    err = wrong(ps, "a class without characters");
if (!err)
    err = push_class(ps, seq, range, n, invert);
free(range);
return err;
}

/* <name>, with its brackets, or <[id]>. */
static enum hd_err token(struct parser *ps, struct sequence *seq)
{
    const char *close = memchr(ps->at, '>', (size_t)(ps->end - ps->at));
    char text[256];
    size_t len = close ? (size_t)(close + 1 - ps->at) : 0;
    if (!len || len >= sizeof text)
        return wrong(ps, "a token does not end with '>'");
    memcpy(text, ps->at, len);
    text[len] = 0;
    if (!ps->tok)
        return wrong(ps, "tokens by name need a model with a tokenizer");
    int32_t id = hd_tokenizer_special(ps->tok, text);
    if (len > 4 && text[1] == '[') {
        char *rest;
        long value = strtol(text + 2, &rest, 10);
        bool fine = text[2] >= '0' && text[2] <= '9' && !strcmp(rest, "]>") && value >= 0 &&
                    (size_t)value < hd_tokenizer_n_vocab(ps->tok);
        id = fine ? (int32_t)value : -1;
    }
    if (id < 0)
        return wrong(ps, "the model has no such token");
    ps->at += len;
    return push(ps, seq, ELEM_TOKEN, (uint32_t)id);
}

static enum hd_err choice(struct parser *ps, uint32_t rule, bool nested);

static enum hd_err group(struct parser *ps, struct sequence *seq)
{
    uint32_t rule = 0;
    ps->at++;
    if (ps->depth == HD_GRAMMAR_MAX_DEPTH)
        return refuse(ps, HD_ERR_LIMIT, "groups are nested too deeply");
    ps->depth++;
    skip_space(ps, true);
    enum hd_err err = new_rule(ps, &rule);
    if (!err)
        err = choice(ps, rule, true);
    if (!err && !peek(ps, ')'))
        err = wrong(ps, "a group does not end");
    ps->at += !err;
    ps->depth--;
    return err ? err : push(ps, seq, ELEM_RULE, rule);
}

static enum hd_err item(struct parser *ps, struct sequence *seq)
{
    char c = *ps->at;
    uint32_t rule = 0;
    size_t len = name_len(ps);
    if (c == '"')
        return literal(ps, seq);
    if (c == '[')
        return class(ps, seq);
    if (c == '(')
        return group(ps, seq);
    if (c == '<')
        return token(ps, seq);
    if (c == '.') {
        struct hd_grammar__range any[2] = {{0, 0x10ffff}};
        ps->at++;
        return push_class(ps, seq, any, 1, false);
    }
    if (!len)
        return wrong(ps, c == '!' ? "tokens that must not come (\"!\") are not supported"
                                  : "a literal, class, group, name, or \"|\" is expected");
    enum hd_err err = named_rule(ps, len, &rule);
    ps->at += len;
    return err ? err : push(ps, seq, ELEM_RULE, rule);
}

/* --- repetitions --------------------------------------------------------------------------------
 */

/* `name` ::= unit `name` | ε, or, with a next, unit `next` | ε. */
static enum hd_err optional_rule(struct parser *ps, struct hd_grammar__elem unit, bool endless,
                                 const uint32_t *next, uint32_t *out)
{
    uint32_t alt[2];
    enum hd_err err = new_rule(ps, out);
    struct hd_grammar__elem elem[2] = {unit, {ELEM_RULE, endless ? *out : next ? *next : 0}};
    if (!err)
        err = store(ps, elem, endless || next ? 2 : 1, &alt[0]);
    if (!err)
        err = store(ps, NULL, 0, &alt[1]);
    return err ? err : define(ps, *out, alt, 2);
}

/* What follows first in seq becomes min to max of it (max < 0: any number). */
static enum hd_err repeat(struct parser *ps, struct sequence *seq, size_t first, long min, long max)
{
    struct hd_grammar__elem unit;
    uint32_t rule = 0, alt = 0;
    enum hd_err err = HD_OK;
    if (seq->n == first)
        return HD_OK; /* of nothing */
    unit = seq->elem[first];
    if (seq->n - first > 1) {
        err = new_rule(ps, &rule);
        if (!err)
            err = store(ps, seq->elem + first, seq->n - first, &alt);
        if (!err)
            err = define(ps, rule, &alt, 1);
        unit = (struct hd_grammar__elem){ELEM_RULE, rule};
    }
    seq->n = first;
    for (long i = 0; !err && i < min; i++)
        err = push(ps, seq, unit.kind, unit.value);
    if (err || max == min)
        return err;
    err = optional_rule(ps, unit, max < 0, NULL, &rule);
    for (long i = min + 1; !err && i < max; i++) {
        uint32_t next = rule;
        err = optional_rule(ps, unit, false, &next, &rule);
    }
    return err ? err : push(ps, seq, ELEM_RULE, rule);
}

static enum hd_err number(struct parser *ps, long *out)
{
    *out = 0;
    skip_space(ps, false);
    if (ps->at >= ps->end || *ps->at < '0' || *ps->at > '9')
        return wrong(ps, "a number is expected in {…}");
    for (; ps->at < ps->end && *ps->at >= '0' && *ps->at <= '9'; ps->at++) {
        *out = *out * 10 + (*ps->at - '0');
        if (*out > HD_GRAMMAR_MAX_REPEAT)
            return refuse(ps, HD_ERR_LIMIT, "a repetition of more than 32768");
    }
    skip_space(ps, false);
    return HD_OK;
}

static enum hd_err braces(struct parser *ps, long *min, long *max)
{
    ps->at++;
    skip_space(ps, false);
    enum hd_err err = peek(ps, ',') ? HD_OK : number(ps, min);
    if (err)
        return err;
    *max = *min;
    if (peek(ps, ',')) {
        ps->at++;
        skip_space(ps, false);
        *max = -1;
        if (!peek(ps, '}') && (err = number(ps, max)))
            return err;
    }
    if (!peek(ps, '}'))
        return wrong(ps, "{…} does not end");
    ps->at++;
    return *max >= 0 && *max < *min ? wrong(ps, "{m,n} with n below m") : HD_OK;
}

static enum hd_err quantifier(struct parser *ps, struct sequence *seq, size_t first)
{
    enum hd_err err = HD_OK;
    long min = 0, max = -1;
    char c = ps->at < ps->end ? *ps->at : 0;
    if (!c || !strchr("*+?{", c))
        return HD_OK;
    if (c == '{') {
        err = braces(ps, &min, &max);
    } else {
        min = c == '+';
        max = c == '?' ? 1 : -1;
        ps->at++;
    }
    if (!err && ps->at < ps->end && strchr("*+?{", *ps->at))
        err = wrong(ps, "a repetition of a repetition (use a group)");
    return err ? err : repeat(ps, seq, first, min, max);
}

static enum hd_err sequence(struct parser *ps, bool nested, uint32_t *out)
{
    struct sequence seq = {0};
    enum hd_err err = HD_OK;
    while (!err && ps->at < ps->end && !strchr("|)\r\n", *ps->at)) {
        size_t first = seq.n;
        err = item(ps, &seq);
        if (!err) {
            skip_space(ps, false);
            err = quantifier(ps, &seq, first);
        }
        if (!err)
            skip_space(ps, nested);
    }
    if (!err)
        err = store(ps, seq.elem, seq.n, out);
    free(seq.elem);
    return err;
}

static enum hd_err choice(struct parser *ps, uint32_t rule, bool nested)
{
    uint32_t *alt = NULL;
    size_t n = 0, cap = 0;
    enum hd_err err = HD_OK;
    for (bool more = true; !err && more;) {
        err = hd_grammar__grow(&alt, &cap, n, sizeof *alt, HD_GRAMMAR_MAX_ELEMS);
        err = err ? full(ps, err) : sequence(ps, nested, &alt[n]);
        n += !err;
        more = peek(ps, '|');
        if (!err && more) {
            ps->at++;
            skip_space(ps, true);
        }
    }
    if (!err)
        err = define(ps, rule, alt, n);
    free(alt);
    return err;
}

/* --- rules --------------------------------------------------------------------------------------
 */

static enum hd_err rule(struct parser *ps)
{
    uint32_t id = 0;
    size_t len = name_len(ps);
    if (!len)
        return wrong(ps, "a rule begins with its name");
    enum hd_err err = named_rule(ps, len, &id);
    if (!err && ps->p->rule[id].defined)
        return hd_fail(ps->msg, HD_ERR_INVALID, "grammar: rule \"%.*s\" is defined twice",
                       (int)(len < 64 ? len : 64), ps->at);
    if (err)
        return err;
    ps->at += len;
    skip_space(ps, false);
    if (ps->end - ps->at < 3 || memcmp(ps->at, "::=", 3) != 0)
        return wrong(ps, "\"::=\" is expected");
    ps->at += 3;
    skip_space(ps, true);
    err = choice(ps, id, false);
    if (!err && ps->at < ps->end && *ps->at != '\n' && *ps->at != '\r')
        return wrong(ps, "a group ends that did not begin");
    skip_space(ps, true);
    return err;
}

static enum hd_err all_defined(struct parser *ps)
{
    const char *name;
    json_t *id;
    json_object_foreach(ps->names, name, id)
    {
        if (!ps->p->rule[json_integer_value(id)].defined)
            return hd_fail(ps->msg, HD_ERR_INVALID, "grammar: rule \"%.64s\" is used, not defined",
                           name);
    }
    const json_t *root = json_object_get(ps->names, "root");
    if (!root)
        return hd_fail(ps->msg, HD_ERR_INVALID, "grammar: there is no rule \"root\"");
    ps->p->root = (uint32_t)json_integer_value(root);
    return HD_OK;
}

enum hd_err hd_grammar__parse(struct hd_grammar__program *out, const char *text, size_t len,
                              const struct hd_tokenizer *tok, struct hd_errmsg *msg)
{
    *out = (struct hd_grammar__program){0};
    if (len > HD_GRAMMAR_MAX_TEXT)
        return hd_fail(msg, HD_ERR_LIMIT, "grammar: %zu bytes are too many", len);
    if (memchr(text, 0, len) || !hd_utf8_valid(text, len))
        return hd_fail(msg, HD_ERR_INVALID, "grammar: not UTF-8 text");
    struct parser ps = {.p = out,
                        .tok = tok,
                        .begin = text,
                        .at = text,
                        .end = text + len,
                        .names = json_object(),
                        .msg = msg};
    enum hd_err err = ps.names ? HD_OK : full(&ps, HD_ERR_NOMEM);
    if (!err)
        skip_space(&ps, true);
    while (!err && ps.at < ps.end)
        err = rule(&ps);
    if (!err)
        err = all_defined(&ps);
    if (!err)
        err = hd_grammar__check(out, ps.names, msg);
    json_decref(ps.names);
    if (err)
        hd_grammar__program_dispose(out);
    return err;
}

void hd_grammar__program_dispose(struct hd_grammar__program *p)
{
    free(p->elem);
    free(p->alt);
    free(p->rule);
    hd_grammar__classes_dispose(&p->classes);
    *p = (struct hd_grammar__program){0};
}
