/* See numbers.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "kb/numbers.h"

void hd_kb__numbers_dispose(struct hd_kb__numbers *numbers)
{
    free(numbers->items);
    memset(numbers, 0, sizeof *numbers);
}

bool hd_kb__numbers_has(const struct hd_kb__numbers *numbers, double value)
{
    for (size_t i = 0; i < numbers->n; i++)
        if (fabs(numbers->items[i] - value) <= 1e-9 * fabs(value))
            return true;
    return false;
}

static enum hd_err add(struct hd_kb__numbers *out, double value)
{
    if (hd_kb__numbers_has(out, value))
        return HD_OK;
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 8;
        double *items = realloc(out->items, cap * sizeof *items);
        if (!items)
            return HD_ERR_NOMEM;
        out->items = items;
        out->cap = cap;
    }
    out->items[out->n++] = value;
    return HD_OK;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The magnitude that follows a number, or 1. */
static double magnitude(const char *s, size_t len)
{
    static const struct {
        const char *word;
        double value;
    } words[] = {{"万亿", 1e12},    {"亿", 1e8},        {"万", 1e4},
                 {"千", 1e3},       {"百万", 1e6},      {" million", 1e6},
                 {" billion", 1e9}, {" thousand", 1e3}, {" trillion", 1e12}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i].word);
        if (n <= len && !memcmp(s, words[i].word, n))
            return words[i].value;
    }
    return 1;
}

/* Digits at s: returns the bytes used. */
static size_t read_digits(struct hd_kb__numbers *out, const char *s, size_t len, enum hd_err *err)
{
    char text[48];
    size_t n = 0, i = 0;
    while (i < len && n < sizeof text - 1) {
        bool group = s[i] == ',' && i + 3 < len && is_digit(s[i + 1]) && is_digit(s[i + 2]) &&
                     is_digit(s[i + 3]) && !(i + 4 < len && is_digit(s[i + 4]));
        bool point = s[i] == '.' && i + 1 < len && is_digit(s[i + 1]) && !memchr(text, '.', n);
        if (is_digit(s[i]) || point)
            text[n++] = s[i];
        else if (!group)
            break;
        i++;
    }
    while (i < len && is_digit(s[i]))
        i++;
    text[n] = '\0';
    double value = strtod(text, NULL), scale = magnitude(s + i, len - i);
    *err = add(out, value);
    if (!*err && scale != 1)
        *err = add(out, value * scale);
    return i;
}

/* --- Chinese numerals --------------------------------------------------------------------- */

static int numeral(unsigned c)
{
    switch (c) {
    case 0x96F6: /* 零 */
    case 0x3007: /* 〇 */
        return 0;
    case 0x4E00:
        return 1;
    case 0x4E8C:
    case 0x4E24: /* 两 */
        return 2;
    case 0x4E09:
        return 3;
    case 0x56DB:
        return 4;
    case 0x4E94:
        return 5;
    case 0x516D:
        return 6;
    case 0x4E03:
        return 7;
    case 0x516B:
        return 8;
    case 0x4E5D:
        return 9;
    default:
        return -1;
    }
}

static double unit(unsigned c)
{
    switch (c) {
    case 0x5341: /* 十 */
        return 10;
    case 0x767E: /* 百 */
        return 100;
    case 0x5343: /* 千 */
        return 1000;
    case 0x4E07: /* 万 */
        return 1e4;
    case 0x4EBF: /* 亿 */
        return 1e8;
    default:
        return 0;
    }
}

/* A run of numerals: "二〇一六" digit by digit, "三千五百" with units. */
static double value_of(const unsigned *c, size_t n)
{
    bool units = false;
    for (size_t i = 0; i < n; i++)
        units |= unit(c[i]) > 0;
    double total = 0, section = 0, digit = 0;
    for (size_t i = 0; i < n; i++) {
        double u = unit(c[i]);
        if (!units) {
            total = total * 10 + numeral(c[i]);
        } else if (u >= 1e4) {
            total = (total + section + digit) * u;
            section = digit = 0;
        } else if (u > 0) {
            section += (digit || (i > 0 && numeral(c[i - 1]) > 0) ? digit : 1) * u;
            digit = 0;
        } else {
            digit = numeral(c[i]);
        }
    }
    return units ? total + section + digit : total;
}

static size_t read_numerals(struct hd_kb__numbers *out, const char *s, size_t len, bool strict,
                            enum hd_err *err)
{
    unsigned c[24];
    size_t n = 0, i = 0;
    while (i < len && n < 24) {
        size_t k = hd_utf8_decode(&c[n], s + i, len - i, NULL);
        if (!k || (numeral(c[n]) < 0 && unit(c[n]) == 0))
            break;
        i += k;
        n++;
    }
    bool number = n > 1 || (n == 1 && numeral(c[0]) >= 0) || (n == 1 && unit(c[0]) == 10);
    if (strict && n == 1)
        number = false; /* 一个, 十分: rarely a quantity that matters */
    if (number)
        *err = add(out, value_of(c, n));
    return i;
}

/* --- English words ------------------------------------------------------------------------ */

static double word_value(const char *s, size_t n, bool strict)
{
    static const char *const names[] = {
        "zero",     "one",     "two",     "three",     "four",     "five",     "six",
        "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",   "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"};
    static const char *const tens[] = {"thirty",  "forty",  "fifty", "sixty",
                                       "seventy", "eighty", "ninety"};
    static const char *const ordinals[] = {"first", "second",  "third",  "fourth", "fifth",
                                           "sixth", "seventh", "eighth", "ninth",  "tenth"};
    static const char *const months[] = {"january",   "february", "march",    "april",
                                         "may",       "june",     "july",     "august",
                                         "september", "october",  "november", "december"};
#define LOOK(list, from, result)                                                                   \
    for (size_t i = from; i < sizeof list / sizeof *list; i++)                                     \
        if (strlen(list[i]) == n && !memcmp(list[i], s, n))                                        \
            return result;
    LOOK(names, strict ? 2 : 0, (double)i)
    LOOK(tens, 0, (double)(i + 3) * 10)
    if (!strict) {
        LOOK(ordinals, 0, (double)i + 1)
        LOOK(months, 0, (double)i + 1)
    }
#undef LOOK
    if (n == 7 && !memcmp(s, "hundred", 7))
        return 100;
    return -1;
}

/* "twenty-five", "three hundred". */
static size_t read_word(struct hd_kb__numbers *out, const char *s, size_t len, bool strict,
                        enum hd_err *err)
{
    size_t n = 0;
    while (n < len && s[n] >= 'a' && s[n] <= 'z')
        n++;
    double value = word_value(s, n, strict);
    if (value < 0)
        return n;
    size_t m = n + 1;
    while (m < len && s[m] >= 'a' && s[m] <= 'z')
        m++;
    double next =
        n + 1 < len && (s[n] == '-' || s[n] == ' ') ? word_value(s + n + 1, m - n - 1, strict) : -1;
    if (value >= 20 && value < 100 && next > 0 && next < 10) {
        value += next;
        n = m;
    } else if (next == 100 && value < 100) {
        value *= 100;
        n = m;
    }
    *err = add(out, value);
    double scale = magnitude(s + n, len - n);
    if (!*err && scale != 1)
        *err = add(out, value * scale);
    return n;
}

enum hd_err hd_kb__numbers_find(struct hd_kb__numbers *out, const char *text, size_t len,
                                bool strict)
{
    out->n = 0;
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < len && !err;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (is_digit(text[i]))
            i += read_digits(out, text + i, len - i, &err);
        else if (text[i] >= 'a' && text[i] <= 'z')
            i += read_word(out, text + i, len - i, strict, &err);
        else if (k > 1 && (numeral(c) >= 0 || unit(c) > 0))
            i += read_numerals(out, text + i, len - i, strict, &err);
        else
            i += k ? k : 1;
    }
    return err;
}
