/* Template text to tokens, with Jinja's rules for white space around tags.
 *
 *   -   on a tag's inner side strips all white space beyond it;
 *   trim_blocks: the line feed directly behind a block or comment goes;
 *   lstrip_blocks: white space between a line's start and a block or comment goes;
 *   +   on a tag's inner side switches the latter two off. */
#include <stdarg.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

struct lexer {
    struct hd_jinja *jinja;
    const char *s; /* line feeds only, one at the end removed */
    size_t len, at;
    size_t cap;
    int line;
    size_t counted; /* line is that of this position */
    bool line_start;
    char open[HD_JINJA_MAX_DEPTH]; /* brackets not closed yet */
    size_t n_open;
};

void hd_jinja__refuse(struct hd_jinja *jinja, enum hd_err err, int line, const char *fmt, ...)
{
    char why[384];
    va_list ap;
    if (jinja->err)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    jinja->err = hd_fail(&jinja->msg, err, "line %d: %s", line, why);
}

static int line_at(struct lexer *lx, size_t at)
{
    for (; lx->counted < at; lx->counted++)
        lx->line += lx->s[lx->counted] == '\n';
    return lx->line;
}

static struct hd_jinja__token *push(struct lexer *lx, enum hd_jinja__lexeme type, const char *text,
                                    size_t len, size_t at)
{
    struct hd_jinja *jinja = lx->jinja;
    if (jinja->n_token == lx->cap) {
        size_t cap = lx->cap * 2 + 256;
        struct hd_jinja__token *grown =
            cap > HD_JINJA_MAX_TOKENS ? NULL : realloc(jinja->token, cap * sizeof *grown);
        if (!grown) {
            hd_jinja__refuse(jinja, HD_ERR_LIMIT, line_at(lx, at), "the template is too long");
            return &jinja->no_token;
        }
        jinja->token = grown;
        lx->cap = cap;
    }
    struct hd_jinja__token *token = &jinja->token[jinja->n_token++];
    *token =
        (struct hd_jinja__token){.type = type, .line = line_at(lx, at), .text = text, .len = len};
    return token;
}

static bool starts(const struct lexer *lx, size_t at, const char *text)
{
    size_t n = strlen(text);
    return lx->len - at >= n && !memcmp(lx->s + at, text, n);
}

static size_t skip_space(const struct lexer *lx, size_t at)
{
    unsigned c;
    size_t step;
    while (at < lx->len && (step = hd_utf8_decode(&c, lx->s + at, lx->len - at, NULL)) &&
           hd_jinja__is_space(c))
        at += step;
    return at;
}

static size_t skip_space_back(const struct lexer *lx, size_t from, size_t end)
{
    while (end > from) {
        size_t before = end - 1;
        unsigned c;
        while (before > from && ((unsigned char)lx->s[before] & 0xc0) == 0x80)
            before--;
        if (!hd_utf8_decode(&c, lx->s + before, end - before, NULL) || !hd_jinja__is_space(c))
            break;
        end = before;
    }
    return end;
}

/* The end of the text before a tag: [from, end) less what the tag's sign and settings strip. */
static size_t text_end(const struct lexer *lx, size_t from, size_t end, char sign, bool variable)
{
    if (sign == '-')
        return skip_space_back(lx, from, end);
    if (sign == '+' || variable)
        return end;
    size_t line = end;
    while (line > from && lx->s[line - 1] != '\n')
        line--;
    if (line == from && !lx->line_start)
        return end;
    return skip_space(lx, line) >= end ? line : end;
}

static void put_text(struct lexer *lx, size_t from, size_t end)
{
    if (end > from)
        push(lx, LX_DATA, lx->s + from, end - from, from);
}

/* Behind the end of a tag that is `at`: what goes with it. */
static void close_tag(struct lexer *lx, size_t at, char sign, bool trims)
{
    if (sign == '-')
        at = skip_space(lx, at);
    else if (sign != '+' && trims && at < lx->len && lx->s[at] == '\n')
        at++;
    lx->at = at;
    lx->line_start = lx->s[at - 1] == '\n';
}

/* --- tokens inside tags ----------------------------------------------------------------------- */

static bool is_name_char(unsigned char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80 ||
           (!first && c >= '0' && c <= '9');
}

static bool is_digit(const struct lexer *lx, size_t at)
{
    return at < lx->len && lx->s[at] >= '0' && lx->s[at] <= '9';
}

static size_t skip_digits(const struct lexer *lx, size_t at)
{
    while (is_digit(lx, at) || (at < lx->len && lx->s[at] == '_' && is_digit(lx, at + 1)))
        at++;
    return at;
}

static void put_number(struct lexer *lx)
{
    char digits[64];
    size_t from = lx->at, n = 0, at = skip_digits(lx, from), end;
    bool real = false, behind_dot = lx->jinja->n_token &&
                                    lx->jinja->token[lx->jinja->n_token - 1].type == LX_OP &&
                                    *lx->jinja->token[lx->jinja->n_token - 1].text == '.';
    if (!behind_dot && at < lx->len && lx->s[at] == '.' && is_digit(lx, at + 1)) {
        real = true;
        at = skip_digits(lx, at + 1);
    }
    end = at;
    if (!behind_dot && at < lx->len && (lx->s[at] == 'e' || lx->s[at] == 'E')) {
        end += 1 + (at + 1 < lx->len && (lx->s[at + 1] == '+' || lx->s[at + 1] == '-'));
        if (is_digit(lx, end)) {
            real = true;
            at = skip_digits(lx, end);
        }
    }
    for (size_t i = from; i < at && n + 1 < sizeof digits; i++)
        if (lx->s[i] != '_')
            digits[n++] = lx->s[i];
    digits[n] = 0;
    struct hd_jinja__token *token =
        push(lx, real ? LX_REAL : LX_INT, lx->s + from, at - from, from);
    if (n > 300 || (!real && n > 18))
        hd_jinja__refuse(lx->jinja, HD_ERR_UNSUPPORTED, token->line, "the number is too large");
    if (!lx->jinja->err && real)
        token->f = strtod(digits, NULL);
    else if (!lx->jinja->err)
        token->i = strtoll(digits, NULL, 10);
    lx->at = at;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One escape of Python's at s[*i], behind its backslash; what is none keeps the backslash. */
static void put_escape(struct lexer *lx, struct hd_buf *out, size_t *i, size_t end)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = lx->s[(*i)++];
    const char *known = strchr(from, c);
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    unsigned code = 0;
    if (c == '\n')
        return;
    if (known) {
        hd_buf_putc(out, to[known - from]);
        return;
    }
    if (c >= '0' && c <= '7') {
        code = (unsigned)(c - '0');
        for (int n = 0; n < 2 && *i < end && lx->s[*i] >= '0' && lx->s[*i] <= '7'; n++)
            code = code * 8 + (unsigned)(lx->s[(*i)++] - '0');
        hd_buf_put_utf8(out, code);
        return;
    }
    for (size_t n = 0; n < digits; n++) {
        int digit = *i < end ? hex_digit(lx->s[*i]) : -1;
        if (digit < 0) {
            hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, *i), "a broken \\%c in a string",
                             c);
            return;
        }
        code = code << 4 | (unsigned)digit;
        ++*i;
    }
    if (c == 'N')
        hd_jinja__refuse(lx->jinja, HD_ERR_UNSUPPORTED, line_at(lx, *i),
                         "\\N in a string is not supported");
    if (digits) {
        hd_buf_put_utf8(out, code);
    } else {
        hd_buf_putc(out, '\\');
        hd_buf_putc(out, c);
    }
}

static void put_string(struct lexer *lx)
{
    char quote = lx->s[lx->at];
    size_t from = lx->at + 1, end = from;
    struct hd_buf text;
    while (end < lx->len && lx->s[end] != quote)
        end += lx->s[end] == '\\' ? 2 : 1;
    if (end >= lx->len) {
        hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, lx->at), "a string does not end");
        return;
    }
    hd_buf_init(&text, lx->len);
    for (size_t i = from; i < end && !lx->jinja->err;) {
        if (lx->s[i] == '\\') {
            i++;
            put_escape(lx, &text, &i, end);
        } else {
            hd_buf_putc(&text, lx->s[i++]);
        }
    }
    const char *copy = hd_jinja__copy(lx->jinja, hd_buf_str(&text), text.len);
    push(lx, LX_STRING, copy, text.len, lx->at);
    hd_buf_dispose(&text);
    lx->at = end + 1;
}

static void put_operator(struct lexer *lx)
{
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    size_t i = 0, n = sizeof ops / sizeof *ops;
    while (i < n && !starts(lx, lx->at, ops[i]))
        i++;
    if (i == n) {
        hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, lx->at),
                         "unexpected character \"%.1s\"", lx->s + lx->at);
        return;
    }
    char c = *ops[i];
    if (strchr("[({", c)) {
        if (lx->n_open == sizeof lx->open) {
            hd_jinja__refuse(lx->jinja, HD_ERR_LIMIT, line_at(lx, lx->at),
                             "brackets are nested too deeply");
            return;
        }
        lx->open[lx->n_open++] = c;
    } else if (strchr("])}", c)) {
        char due = c == ']' ? '[' : c == ')' ? '(' : '{';
        if (!lx->n_open || lx->open[--lx->n_open] != due) {
            hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, lx->at), "unexpected \"%c\"", c);
            return;
        }
    }
    push(lx, LX_OP, ops[i], strlen(ops[i]), lx->at);
    lx->at += strlen(ops[i]);
}

/* The rest of a tag, up to and with its end. */
static void lex_tag(struct lexer *lx, bool variable)
{
    const char *end = variable ? "}}" : "%}";
    size_t begin = lx->at;
    lx->n_open = 0;
    while (!lx->jinja->err) {
        lx->at = skip_space(lx, lx->at);
        if (lx->at >= lx->len) {
            hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, begin), "the tag does not end");
            return;
        }
        char c = lx->s[lx->at];
        bool signs = (c == '-' || (c == '+' && !variable)) && starts(lx, lx->at + 1, end);
        if (!lx->n_open && (signs || starts(lx, lx->at, end))) {
            push(lx, variable ? LX_VAR_END : LX_BLOCK_END, end, 2, lx->at);
            close_tag(lx, lx->at + 2 + signs, signs ? c : 0, !variable);
            return;
        }
        if (c == '\'' || c == '"') {
            put_string(lx);
        } else if (is_digit(lx, lx->at)) {
            put_number(lx);
        } else if (is_name_char((unsigned char)c, true)) {
            size_t from = lx->at;
            while (lx->at < lx->len && is_name_char((unsigned char)lx->s[lx->at], false))
                lx->at++;
            push(lx, LX_NAME, lx->s + from, lx->at - from, from);
        } else {
            put_operator(lx);
        }
    }
}

/* --- text between tags ------------------------------------------------------------------------ */

static void lex_comment(struct lexer *lx)
{
    const char *end = memmem(lx->s + lx->at, lx->len - lx->at, "#}", 2);
    if (!end) {
        hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, lx->at), "the comment does not end");
        return;
    }
    size_t at = (size_t)(end - lx->s);
    char sign = at > lx->at ? lx->s[at - 1] : 0;
    close_tag(lx, at + 2, sign, true);
}

/* If a block tag that holds just `name` begins at `at`: its signs, and the position behind. */
static bool bare_tag(const struct lexer *lx, size_t at, const char *name, char signs[2],
                     size_t *behind)
{
    signs[0] = signs[1] = 0;
    if (!starts(lx, at, "{%"))
        return false;
    at += 2;
    if (at < lx->len && (lx->s[at] == '-' || lx->s[at] == '+'))
        signs[0] = lx->s[at++];
    at = skip_space(lx, at);
    if (!starts(lx, at, name))
        return false;
    at = skip_space(lx, at + strlen(name));
    if (at < lx->len && (lx->s[at] == '-' || lx->s[at] == '+'))
        signs[1] = lx->s[at++];
    *behind = at + 2;
    return starts(lx, at, "%}");
}

/* Behind {% raw %}: text up to {% endraw %}. */
static void lex_raw(struct lexer *lx, size_t behind, char sign)
{
    char signs[2];
    size_t from = sign == '-' ? skip_space(lx, behind) : behind, at = from, end;
    while (at < lx->len && !bare_tag(lx, at, "endraw", signs, &end))
        at++;
    if (at == lx->len) {
        hd_jinja__refuse(lx->jinja, HD_ERR_FORMAT, line_at(lx, behind), "raw does not end");
        return;
    }
    put_text(lx, from, text_end(lx, from, at, signs[0], false));
    close_tag(lx, end, signs[1], true);
}

static void lex_text(struct lexer *lx)
{
    size_t from = lx->at, at = from, behind;
    char signs[2];
    while (at < lx->len &&
           !(lx->s[at] == '{' && at + 1 < lx->len && lx->s[at + 1] && strchr("{%#", lx->s[at + 1])))
        at++;
    if (at >= lx->len) {
        put_text(lx, from, lx->len);
        lx->at = lx->len;
        return;
    }
    bool variable = lx->s[at + 1] == '{', comment = lx->s[at + 1] == '#';
    char sign = at + 2 < lx->len ? lx->s[at + 2] : 0;
    put_text(lx, from, text_end(lx, from, at, sign, variable));
    if (!variable && !comment && bare_tag(lx, at, "raw", signs, &behind)) {
        lex_raw(lx, behind, signs[1]);
        return;
    }
    lx->at = at + 2 + (sign == '-' || sign == '+');
    lx->line_start = false;
    if (comment) {
        lex_comment(lx);
        return;
    }
    push(lx, variable ? LX_VAR_BEGIN : LX_BLOCK_BEGIN, NULL, 0, at);
    lex_tag(lx, variable);
}

void hd_jinja__lex(struct hd_jinja *jinja, const char *text, size_t len)
{
    struct lexer lx = {.jinja = jinja, .line = 1, .line_start = true};
    char *copy = hd_jinja__copy(jinja, text, len);
    if (jinja->err)
        return;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n')
            continue;
        copy[lx.len++] = text[i];
        if (text[i] == '\r')
            copy[lx.len - 1] = '\n';
    }
    lx.len -= lx.len && copy[lx.len - 1] == '\n';
    copy[lx.len] = 0;
    lx.s = copy;
    while (lx.at < lx.len && !jinja->err)
        lex_text(&lx);
    push(&lx, LX_END, "", 0, lx.len);
}
