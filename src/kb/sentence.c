/* Where sentences end. See chunk.h. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/chunk.h"

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Whether the word before the full stop at s[dot] is one that keeps its dot. */
static bool is_abbreviation(const char *s, size_t dot)
{
    static const char *const known[] = {
        "mr",  "mrs", "ms",   "dr",  "prof", "st",  "jr",   "sr",   "vs",   "etc", "fig",    "figs",
        "no",  "nos", "vol",  "pp",  "inc",  "ltd", "corp", "co",   "dept", "est", "approx", "eq",
        "sec", "gen", "capt", "col", "lt",   "sgt", "rev",  "hon",  "al",   "cf",  "ca",     "jan",
        "feb", "mar", "apr",  "jun", "jul",  "aug", "sep",  "sept", "oct",  "nov", "dec",    "e.g",
        "i.e", "a.m", "p.m",  "ext", "tel",  "ref", "min",  "max",  "incl"};
    size_t from = dot;
    while (from > 0 && (is_alpha(s[from - 1]) || s[from - 1] == '.') && dot - from < 8)
        from--;
    size_t n = dot - from;
    if (n == 0)
        return false;
    if (n == 1 || (n >= 3 && n % 2 && s[from + 1] == '.'))
        return is_alpha(s[dot - 1]); /* an initial, "U.S." */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && !strncasecmp(known[i], s + from, n))
            return true;
    return false;
}

/* Whether the full stop at s[dot] ends a sentence. */
static bool dot_ends(const char *s, size_t len, size_t dot)
{
    size_t next = dot + 1;
    if (next >= len)
        return true;
    if (dot > 0 && s[dot - 1] == '.')
        return s[next] == ' ' && next + 1 < len && !(s[next + 1] >= 'a' && s[next + 1] <= 'z');
    if ((unsigned char)s[next] >= 0x80)
        return true; /* mixed text: an ideograph or a closing quote follows */
    if (strchr("\"')]", s[next]))
        return next + 1 >= len || s[next + 1] == ' ' || s[next + 1] == '\n';
    if (s[next] != ' ' && s[next] != '\n' && s[next] != '[')
        return false;
    size_t from = dot; /* "1. Wash your hands": a number alone before it is a list's */
    while (from > 0 && is_digit(s[from - 1]))
        from--;
    if (from < dot && dot - from <= 3 && strspn(s, " \n") >= from)
        return false;
    size_t word = next;
    while (word < len && strchr(" \"'([", s[word]))
        word++;
    if (word < len && s[word] >= 'a' && s[word] <= 'z')
        return false;
    return !is_abbreviation(s, dot);
}

static bool is_closing(unsigned c)
{
    return c == 0x201D || c == 0x2019 || c == 0x300D || c == 0x300F || c == 0xFF09 || c == 0x300B ||
           c == 0x3011 || c == ')' || c == ']' || c == '"' || c == '\'';
}

size_t hd_kb__sentence_end(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, s + i, len - i, NULL);
        if (!k) {
            i++;
            continue;
        }
        if (c == '\n')
            return i + 1;
        bool ends = c == 0x3002 || c == 0xFF01 || c == 0xFF1F || c == 0xFF61;
        if (c == '!' || c == '?')
            ends = i + 1 >= len || !hd_kb__is_word((unsigned char)s[i + 1]);
        if (c == '.')
            ends = dot_ends(s, len, i);
        i += k;
        if (!ends)
            continue;
        while (i < len) { /* more marks, closing quotes */
            k = hd_utf8_decode(&c, s + i, len - i, NULL);
            if (!k || !(is_closing(c) || c == '!' || c == '?' || c == 0xFF01 || c == 0xFF1F ||
                        c == 0x3002))
                break;
            i += k;
        }
        return i;
    }
    return len;
}

enum hd_err hd_kb__sentences(struct hd_kb__sentence **list, size_t *n, const char *s, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t begin = at;
        at += hd_kb__sentence_end(s + at, len - at);
        size_t end = at;
        while (begin < end && (s[begin] == ' ' || s[begin] == '\n'))
            begin++;
        while (end > begin && (s[end - 1] == ' ' || s[end - 1] == '\n'))
            end--;
        if (begin == end)
            continue;
        if ((*n & (*n - 1)) == 0) { /* grow at powers of two */
            struct hd_kb__sentence *grown = realloc(*list, (*n ? *n * 2 : 1) * sizeof **list);
            if (!grown)
                return HD_ERR_NOMEM;
            *list = grown;
        }
        (*list)[(*n)++] = (struct hd_kb__sentence){begin, end};
    }
    return HD_OK;
}

size_t hd_kb__estimate_tokens(const char *s, size_t len)
{
    size_t wide = 0, narrow = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x80)
            narrow++;
        else if (c >= 0xE0)
            wide++;
        else if (c >= 0xC0)
            narrow += 2;
    }
    return (wide * 70 + narrow * 27) / 100 + 1;
}
