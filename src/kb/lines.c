/* Lines of plain text to blocks. See lines.h. */
#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/doc.h"
#include "kb/lines.h"

struct line {
    const char *s;
    size_t len, width; /* width in columns: an ideograph counts two */
};

static size_t column_width(const char *s, size_t len)
{
    size_t width = 0;
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, s + i, len - i, NULL);
        i += k ? k : 1;
        width += k && c >= 0x2E80 ? 2 : 1;
    }
    return width;
}

static struct line trim_line(const char *s, size_t len)
{
    while (len && strchr(" \t\r\f\v", s[0]))
        s++, len--;
    while (len && strchr(" \t\r\f\v", s[len - 1]))
        len--;
    return (struct line){s, len, column_width(s, len)};
}

/* "- x", "* x", "• x", "1. x", "2) x", "（一）x", "一、x" */
static bool starts_item(const struct line *line)
{
    unsigned c[4] = {0};
    size_t at = 0, n = 0;
    while (n < 4 && at < line->len) {
        size_t k = hd_utf8_decode(&c[n], line->s + at, line->len - at, NULL);
        if (!k)
            break;
        at += k;
        n++;
    }
    if (n < 2)
        return false;
    if (c[0] == '-' || c[0] == '*' || c[0] == '+')
        return c[1] == ' ';
    if (c[0] == 0x2022 || c[0] == 0x25CF || c[0] == 0x25AA || c[0] == 0xB7)
        return true;
    if (c[0] >= '0' && c[0] <= '9') {
        size_t i = 1;
        while (i < n && c[i] >= '0' && c[i] <= '9')
            i++;
        return i + 1 < n && (c[i] == ')' || c[i] == 0x3001 || c[i] == 0xFF0E || c[i] == 0xFF09 ||
                             (c[i] == '.' && c[i + 1] == ' '));
    }
    static const unsigned numerals[] = {0x4E00, 0x4E8C, 0x4E09, 0x56DB, 0x4E94,
                                        0x516D, 0x4E03, 0x516B, 0x4E5D, 0x5341};
    unsigned first = c[0] == 0xFF08 || c[0] == '(' ? c[1] : c[0];
    for (size_t i = 0; i < sizeof numerals / sizeof *numerals; i++)
        if (first == numerals[i])
            return first != c[0] || c[1] == 0x3001;
    return false;
}

bool hd_kb__ends_sentence(const char *s, size_t len)
{
    static const char *const ends[] = {".", "!", "?", ":", "。", "！", "？", "：", "；", "”", "）"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (len >= n && !memcmp(s + len - n, ends[i], n))
            return true;
    }
    return false;
}

/* Appends a wrapped line to the paragraph so far. */
static void join(struct hd_buf *para, const struct line *line)
{
    if (para->len) {
        unsigned first = 0;
        hd_utf8_decode(&first, line->s, line->len, NULL);
        bool lower = first >= 'a' && first <= 'z';
        char last = para->data[para->len - 1];
        bool after_letter = para->len > 1 && ((para->data[para->len - 2] | 32) >= 'a') &&
                            ((para->data[para->len - 2] | 32) <= 'z');
        if (last == '-' && lower && after_letter)
            para->data[--para->len] = '\0';
        else if (!(hd_kb__is_cjk(first) || first >= 0x3000) || !hd_kb__ends_in_cjk(para->data))
            if (!((unsigned char)last >= 0x80 && first >= 0x2E80))
                hd_buf_putc(para, ' ');
    }
    hd_buf_append(para, line->s, line->len);
}

/* "一、收货" 2, "（三）储存" 3, else 0. */
static int numeral_level(const char *s, size_t len)
{
    static const char numerals[] = "一二三四五六七八九十百";
    bool bracket = len > 3 && !memcmp(s, "（", 3);
    size_t i = bracket ? 3 : 0, begin = i;
    for (bool known = true; known && i + 3 <= len; i += known ? 3 : 0) {
        known = false;
        for (const char *n = numerals; *n && !known; n += 3)
            known = !memcmp(s + i, n, 3);
    }
    if (i == begin || i + 6 > len || memcmp(s + i, bracket ? "）" : "、", 3))
        return 0;
    return bracket ? 3 : 2;
}

/* The level of a line that stands apart and reads like a heading ("3.2 Test procedure", "第二章 …",
 * "一、收货", "Chapter 4"), or 0. */
static int heading_level(const char *s, size_t len)
{
    if (len > 120 || column_width(s, len) > 70 || hd_kb__ends_sentence(s, len))
        return 0;
    int numeral = numeral_level(s, len);
    if (numeral)
        return numeral;
    if (len > 3 && !memcmp(s, "第", 3)) {
        static const struct {
            const char *mark;
            int level;
        } marks[] = {{"章", 1}, {"节", 2}, {"節", 2}, {"部分", 1}};
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            const char *at = memmem(s, len < 24 ? len : 24, marks[i].mark, strlen(marks[i].mark));
            if (at)
                return marks[i].level;
        }
        return 0;
    }
    if (!strncasecmp(s, "chapter ", 8) || !strncasecmp(s, "part ", 5))
        return len > 8 && len < 70 ? 1 : 0;
    size_t i = 0;
    int level = 0;
    while (i < len && s[i] >= '0' && s[i] <= '9') {
        size_t digits = i;
        while (i < len && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i - digits > 2)
            return 0;
        level++;
        if (i < len && s[i] == '.')
            i++;
    }
    bool spaced = i < len && s[i] == ' ';
    while (i < len && s[i] == ' ')
        i++;
    bool capital = i < len && ((s[i] >= 'A' && s[i] <= 'Z') || (unsigned char)s[i] >= 0xE3);
    return level && spaced && capital ? level : 0;
}

static void flush(struct hd_buf *records, struct hd_buf *para, bool item, bool alone)
{
    int level = alone && para->len ? heading_level(para->data, para->len) : 0;
    if (level)
        hd_kb__put(records, HD_KB__HEADING, level, para->data, para->len);
    else if (para->len)
        hd_kb__put(records, item ? HD_KB__ITEM : HD_KB__PARA, 1, para->data, para->len);
    hd_buf_clear(para);
}

/* The first line with anything in it, if it reads like a title: well short of the widest one, no
 * sentence, no numbered heading, with more below it. */
static void put_title(struct hd_buf *records, const char *text, size_t len, size_t widest)
{
    size_t i = 0;
    struct line line = {0};
    while (i < len && !line.len) {
        const char *nl = memchr(text + i, '\n', len - i);
        size_t end = nl ? (size_t)(nl - text) : len;
        line = trim_line(text + i, end - i);
        i = end + 1;
    }
    if (line.len && i < len && line.width <= 60 && line.width * 10 < widest * 7 &&
        !hd_kb__ends_sentence(line.s, line.len) && !heading_level(line.s, line.len))
        hd_kb__put(records, HD_KB__TITLE, 1, line.s, line.len);
}

/* "3", "- 3 -", "3/12", "第 3 页": a page's number and nothing else. */
static bool is_page_number(const struct line *line)
{
    bool digit = false;
    for (size_t i = 0; i < line->len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, line->s + i, line->len - i, NULL);
        i += k ? k : 1;
        if (c >= '0' && c <= '9')
            digit = true;
        else if (!k || !(c == ' ' || c == '-' || c == '/' || c == 0x2013 || c == 0x2014 ||
                         c == 0x7B2C || c == 0x9875 || c == 0x5171))
            return false;
    }
    return digit && line->width <= 16;
}

/* What is left of a page without the number at its foot. */
static size_t without_foot(const char *text, size_t len)
{
    while (len && strchr(" \t\r\n\f\v", text[len - 1]))
        len--;
    const char *nl = memrchr(text, '\n', len);
    size_t begin = nl ? (size_t)(nl - text) + 1 : 0;
    struct line last = trim_line(text + begin, len - begin);
    return nl && is_page_number(&last) ? begin : len;
}

static size_t widest_line(const char *text, size_t len)
{
    size_t widest = 0;
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(text + i, '\n', len - i);
        size_t end = nl ? (size_t)(nl - text) : len;
        size_t width = trim_line(text + i, end - i).width;
        widest = width > widest ? width : widest;
        i = end + 1;
    }
    return widest;
}

enum hd_err hd_kb__put_lines(struct hd_buf *records, const char *text, size_t len,
                             enum hd_kb__lines where)
{
    struct hd_buf para;
    hd_buf_init(&para, HD_KB__TEXT_MAX);
    size_t widest = widest_line(text, len);
    if (where & HD_KB__LINES_BEGIN)
        put_title(records, text, len, widest);
    if (where & HD_KB__LINES_PAGE)
        len = without_foot(text, len);
    bool item = false, blank_before = true;
    size_t width = 0;  /* of the line before */
    size_t n_line = 0; /* in the paragraph */
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(text + i, '\n', len - i);
        size_t end = nl ? (size_t)(nl - text) : len;
        struct line line = trim_line(text + i, end - i);
        i = end + 1;
        bool begins_item = line.len && starts_item(&line);
        /* A line well short of the widest one was ended on purpose. */
        bool wrapped = para.len && width * 10 >= widest * 7 && widest >= 30 &&
                       !(hd_kb__ends_sentence(para.data, para.len) && width * 20 < widest * 17);
        if (!line.len || begins_item || !wrapped)
            flush(records, &para, item, n_line == 1 && blank_before && !begins_item);
        if (!para.len) {
            item = line.len && begins_item;
            blank_before = !line.len || (n_line == 0 && blank_before);
            n_line = 0;
        }
        join(&para, &line);
        n_line += line.len > 0;
        width = line.width;
    }
    flush(records, &para, item, false);
    enum hd_err err = para.err ? para.err : records->err;
    hd_buf_dispose(&para);
    return err;
}
