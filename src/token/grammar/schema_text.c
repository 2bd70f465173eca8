/* The leaves of schemas as GBNF: values as they stand, integers in a range, formats, other names.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "token/grammar/grammar_impl.h"

void hd_grammar__put_literal(struct hd_buf *out, const char *bytes, size_t len)
{
    hd_buf_putc(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\')
            hd_buf_putc(out, '\\');
        if (c < 0x20 || c == 0x7f)
            hd_buf_printf(out, "\\x%02X", c);
        else
            hd_buf_putc(out, (char)c);
    }
    hd_buf_putc(out, '"');
}

enum hd_err hd_grammar__put_value(struct hd_buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text)
        return HD_ERR_NOMEM;
    hd_grammar__put_literal(out, text, strlen(text));
    free(text);
    return out->err;
}

/* --- integers -----------------------------------------------------------------------------------
 */

enum { MOST_DIGITS = 16 };
static const uint64_t most = 9999999999999999; /* MOST_DIGITS of them */

static bool all(const char *digits, char c)
{
    for (; *digits; digits++)
        if (*digits != c)
            return false;
    return true;
}

static void put_any_digits(struct hd_buf *out, size_t n)
{
    if (n)
        hd_buf_printf(out, " [0-9]{%zu}", n);
}

/* Digit strings lo … hi of the same length. */
static void put_digits(struct hd_buf *out, const char *lo, const char *hi)
{
    static const char nines[] = "9999999999999999", zeros[] = "0000000000000000";
    size_t rest = strlen(lo) - 1;
    while (*lo && *lo == *hi) {
        hd_buf_printf(out, " \"%c\"", *lo++);
        hi++;
        rest--;
    }
    if (!*lo)
        return;
    bool from_first = all(lo + 1, '0'), to_last = all(hi + 1, '9');
    char first = (char)(*lo + !from_first), last = (char)(*hi - !to_last);
    bool more = false;
    hd_buf_puts(out, " (");
    if (!from_first) {
        hd_buf_printf(out, "\"%c\"", *lo);
        put_digits(out, lo + 1, nines + MOST_DIGITS - rest);
        more = true;
    }
    if (first <= last) {
        hd_buf_printf(out, "%s[%c-%c]", more ? " | " : "", first, last);
        put_any_digits(out, rest);
        more = true;
    }
    if (!to_last) {
        hd_buf_printf(out, "%s\"%c\"", more ? " | " : "", *hi);
        put_digits(out, zeros + MOST_DIGITS - rest, hi + 1);
    }
    hd_buf_puts(out, ")");
}

/* lo … hi without sign, as alternatives by length. */
static void put_natural(struct hd_buf *out, uint64_t lo, uint64_t hi, const char *sign, bool *more)
{
    uint64_t begin = 0, end = 9;
    for (int n = 1; n <= MOST_DIGITS; n++) {
        char a[24], b[24];
        uint64_t from = lo > begin ? lo : begin, to = hi < end ? hi : end;
        if (from <= to) {
            snprintf(a, sizeof a, "%" PRIu64, from);
            snprintf(b, sizeof b, "%" PRIu64, to);
            hd_buf_puts(out, *more ? " | " : "");
            hd_buf_puts(out, sign);
            put_digits(out, a, b);
            *more = true;
        }
        begin = end + 1;
        end = end * 10 + 9;
    }
}

void hd_grammar__put_integer(struct hd_buf *out, const int64_t *lo, const int64_t *hi)
{
    bool more = false;
    uint64_t below = !lo ? most : *lo < 0 ? (uint64_t) - (*lo + 1) + 1 : 0;
    hd_buf_puts(out, "(");
    if (!hi || *hi >= 0)
        put_natural(out, lo && *lo > 0 ? (uint64_t)*lo : 0, hi ? (uint64_t)*hi : most, "", &more);
    if (below)
        put_natural(out, hi && *hi < 0 ? (uint64_t) - (*hi + 1) + 1 : 1, below, "\"-\"", &more);
    hd_buf_puts(out, ")");
}

/* --- formats -------------------------------------------------------------------------------------
 */

#define DAYS31                                                                                     \
    "(\"01\" | \"03\" | \"05\" | \"07\" | \"08\" | \"10\" | \"12\") \"-\" (\"0\" [1-9] | [12] "    \
    "[0-9] | \"3\" [01])"
#define DAYS30 "(\"04\" | \"06\" | \"09\" | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\")"
#define DAYS28 "\"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8])"
#define DATE "[12] [0-9]{3} \"-\" (" DAYS31 " | " DAYS30 " | " DAYS28 ")"
#define HOUR "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9]"
#define TIME HOUR " \":\" [0-5] [0-9] (\".\" [0-9]{1,6})? (\"Z\" | [+-] " HOUR ")"
#define BYTE "(\"25\" [0-5] | \"2\" [0-4] [0-9] | \"1\" [0-9]{2} | [1-9] [0-9] | [0-9])"
#define HEX "[0-9a-f]"
#define LABEL "[a-z0-9] ([a-z0-9-]{0,20} [a-z0-9])?"

const char *hd_grammar__format(const char *name, size_t *least, size_t *longest)
{
    static const struct {
        const char *name, *expression;
        size_t least, longest;
    } formats[] = {
        {"date", DATE, 10, 10},
        {"time", TIME, 9, 21},
        {"date-time", DATE " \"T\" " TIME, 20, 32},
        {"uuid", HEX "{8} \"-\" " HEX "{4} \"-\" " HEX "{4} \"-\" " HEX "{4} \"-\" " HEX "{12}", 36,
         36},
        {"ipv4", BYTE " \".\" " BYTE " \".\" " BYTE " \".\" " BYTE, 7, 15},
        {"hostname", LABEL " (\".\" " LABEL "){0,4}", 1, 114},
        {"email",
         "[A-Za-z0-9] ([A-Za-z0-9._-]{0,30} [A-Za-z0-9])? \"@\" " LABEL " (\".\" " LABEL "){1,3}",
         5, 124},
        {"uri",
         "\"http\" \"s\"? \"://\" " LABEL " (\".\" " LABEL "){0,4} (\"/\" "
         "[A-Za-z0-9._~/?=&-]{0,200})?",
         8, 323},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name)) {
            *least = formats[i].least;
            *longest = formats[i].longest;
            return formats[i].expression;
        }
    return NULL;
}

/* --- names that are none of a list
 * ---------------------------------------------------------------- */

struct names {
    const char *const *name;
    size_t n;
};

static bool begins(const char *name, const char *with, size_t len)
{
    return !strncmp(name, with, len) && strlen(name) >= len;
}

/* The rule of what may follow `len` bytes of a name, then those of the names that go on. */
static void put_follow(struct hd_buf *out, const char *rule, int *number, int own,
                       const struct names *names, const char *prefix, size_t len)
{
    bool ends = false;
    struct hd_buf next;
    hd_buf_init(&next, HD_GRAMMAR_MAX_TEXT);
    for (size_t i = 0; i < names->n; i++) { /* each next character once */
        const char *name = names->name[i];
        if (!begins(name, prefix, len))
            continue;
        if (!name[len]) {
            ends = true;
            continue;
        }
        unsigned c;
        size_t step = hd_utf8_decode(&c, name + len, strlen(name + len), NULL);
        bool known = false;
        for (size_t k = 0; step && k < i && !known; k++)
            known = begins(names->name[k], name, len + step);
        if (step && !known)
            hd_buf_append(&next, name + len, step);
    }
    const char *chars = hd_buf_str(&next);
    hd_buf_printf(out, "%s%d ::= %s[^\"\\\\\\x00-\\x1F", rule, own, ends ? "" : "\"\\\"\" | ");
    for (const char *c = chars; *c; c++) {
        if (strchr("]^-[", *c))
            hd_buf_printf(out, "\\x%02X", *c);
        else if (*c != '"' && *c != '\\' && (unsigned char)*c >= 0x20)
            hd_buf_putc(out, *c);
    }
    hd_buf_puts(out, "] [^\"\\\\\\x00-\\x1F]* \"\\\"\"");
    int first = *number;
    for (const char *c = chars; *c; *number += 1) {
        unsigned point;
        size_t step = hd_utf8_decode(&point, c, strlen(c), NULL);
        if (*c != '"' && *c != '\\' && (unsigned char)*c >= 0x20) {
            hd_buf_puts(out, " | ");
            hd_grammar__put_literal(out, c, step);
            hd_buf_printf(out, " %s%d", rule, *number);
        }
        c += step;
    }
    hd_buf_putc(out, '\n');
    for (const char *c = chars; *c && !out->err; first++) {
        unsigned point;
        size_t step = hd_utf8_decode(&point, c, strlen(c), NULL);
        char *longer = malloc(len + step + 1);
        if (!longer) {
            out->err = HD_ERR_NOMEM;
            break;
        }
        memcpy(longer, prefix, len);
        memcpy(longer + len, c, step);
        longer[len + step] = 0;
        put_follow(out, rule, number, first, names, longer, len + step);
        free(longer);
        c += step;
    }
    if (next.err)
        out->err = next.err;
    hd_buf_dispose(&next);
}

enum hd_err hd_grammar__put_other_string(struct hd_buf *out, const char *rule, int *number,
                                         const char *const *names, size_t n)
{
    const struct names list = {names, n};
    int own = (*number)++;
    put_follow(out, rule, number, own, &list, "", 0);
    return out->err;
}
