/* See cite.h. */
#include <stdbool.h>
#include <string.h>

#include "kb/cite.h"

enum { MARK_MAX = 80 }; /* bytes of the longest mark */

static const struct bracket {
    const char *open, *close;
    bool bare; /* a number alone inside is a mark */
} brackets[] = {{"[", "]", true},    {"【", "】", true}, {"［", "］", true}, {"(", ")", false},
                {"（", "）", false}, {"〔", "〕", true}, {"<", ">", false}};

static bool starts(const char *s, size_t len, const char *prefix)
{
    size_t n = strlen(prefix);
    return len >= n && !strncasecmp(s, prefix, n);
}

/* The words that may stand before the numbers; returns their length. */
static size_t skip_word(const char *s, size_t len)
{
    static const char *const words[] = {
        "citations", "citation", "cite",     "webpages", "webpage", "passages", "passage",
        "documents", "document", "source",   "sources",  "doc",     "ref",      "references",
        "reference", "资料",     "资料来源", "引用",     "网页",    "来源",     "文档",
        "段落",      "参考",     "begin",    "end",      "资料编号"};
    size_t best = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (starts(s, len, words[i]) && strlen(words[i]) > best)
            best = strlen(words[i]);
    return best;
}

static size_t skip_separator(const char *s, size_t len)
{
    static const char *const separators[] = {" ", ":", "：", ",", "，", "、",
                                             ";", "#", "^",  "-", "_"};
    for (size_t i = 0; i < sizeof separators / sizeof *separators; i++)
        if (starts(s, len, separators[i]))
            return strlen(separators[i]);
    return 0;
}

/* What stands between brackets: true where it is a mark; its numbers are noted. */
static bool read_inside(const char *s, size_t len, bool bare, int numbers[HD_KB__MARKS_MAX],
                        size_t *n)
{
    bool word = false;
    size_t found = 0;
    for (size_t i = 0; i < len;) {
        size_t k;
        if (s[i] >= '0' && s[i] <= '9') {
            int value = 0;
            while (i < len && s[i] >= '0' && s[i] <= '9') {
                value = value < 100000 ? value * 10 + (s[i] - '0') : value;
                i++;
            }
            if (found < HD_KB__MARKS_MAX)
                numbers[found++] = value;
        } else if ((k = skip_word(s + i, len - i)) > 0) {
            word = true;
            i += k;
        } else if ((k = skip_separator(s + i, len - i)) > 0) {
            i += k;
        } else {
            return false;
        }
    }
    *n = found;
    return (word || (bare && found)) && len > 0;
}

/* A mark at s: its length in bytes, 0 where there is none. */
static size_t read_mark(const char *s, size_t len, int n_passage, int numbers[HD_KB__MARKS_MAX],
                        size_t *n)
{
    for (size_t b = 0; b < sizeof brackets / sizeof *brackets; b++) {
        size_t open = strlen(brackets[b].open);
        if (!starts(s, len, brackets[b].open))
            continue;
        size_t limit = len < MARK_MAX ? len : MARK_MAX;
        const char *close =
            memmem(s + open, limit - open, brackets[b].close, strlen(brackets[b].close));
        if (!close)
            return 0;
        bool mark = read_inside(s + open, (size_t)(close - s) - open, brackets[b].bare, numbers, n);
        /* "[2016]": a bare number far beyond the passages is content. */
        if (mark && *n && !skip_word(s + open, len - open) && numbers[0] > n_passage + 20)
            mark = false;
        return mark ? (size_t)(close - s) + strlen(brackets[b].close) : 0;
    }
    return 0;
}

enum hd_err hd_kb__strip_marks(struct hd_buf *out, const char *text, size_t len, int n_passage,
                               int marks[HD_KB__MARKS_MAX], size_t *n_mark)
{
    *n_mark = 0;
    for (size_t i = 0; i < len;) {
        int numbers[HD_KB__MARKS_MAX];
        size_t n = 0;
        bool after_word = i > 0 && ((text[i - 1] | 32) >= 'a') && ((text[i - 1] | 32) <= 'z') &&
                          text[i] == '[' && i + 1 < len && text[i + 1] >= '0' &&
                          text[i + 1] <= '9' && n_passage == 0;
        size_t k = after_word ? 0 : read_mark(text + i, len - i, n_passage, numbers, &n);
        if (!k) {
            hd_buf_putc(out, text[i++]);
            continue;
        }
        /* The space that stood before the mark goes with it. */
        while (out->len && out->data[out->len - 1] == ' ')
            out->data[--out->len] = '\0';
        i += k;
        for (size_t j = 0; j < n; j++) {
            bool known = numbers[j] < 1 || numbers[j] > n_passage;
            for (size_t m = 0; m < *n_mark; m++)
                known |= marks[m] == numbers[j];
            if (!known && *n_mark < HD_KB__MARKS_MAX)
                marks[(*n_mark)++] = numbers[j];
        }
    }
    return out->err;
}

size_t hd_kb__open_mark(const char *text, size_t len)
{
    size_t from = len > MARK_MAX ? len - MARK_MAX : 0;
    for (size_t i = len; i-- > from;) {
        for (size_t b = 0; b < sizeof brackets / sizeof *brackets; b++) {
            if (!starts(text + i, len - i, brackets[b].open))
                continue;
            bool closed = memmem(text + i, len - i, brackets[b].close, strlen(brackets[b].close));
            return closed ? 0 : len - i;
        }
    }
    return 0;
}
