/* Python's strings: what str() and repr() give, and what can be done with them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

bool hd_jinja__is_space(unsigned c)
{
    return u_isUWhiteSpace((UChar32)c) || (c >= 0x1c && c <= 0x1f);
}

/* --- str() and repr() ------------------------------------------------------------------------- */

/* The shortest decimal that reads back the same, written as Python writes it. */
void hd_jinja__format_real(char out[40], double f)
{
    char digits[40];
    int n = 0;
    if (isnan(f) || isinf(f)) {
        snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        n = snprintf(digits, sizeof digits, "%.*e", precision, f);
        if (strtod(digits, NULL) == f)
            break;
    }
    char *e = memchr(digits, 'e', (size_t)n);
    int exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) { /* Python: 1e-05, 1.5e+16 */
        *e = 0;
        snprintf(out, 40, "%.24se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent) % 1000);
        return;
    }
    int mantissa = (int)(e - digits) - (f < 0 || (f == 0 && signbit(f)));
    int decimals = (mantissa > 1 ? mantissa - 2 : 0) - exponent;
    snprintf(out, 40, "%.*f", decimals > 1 ? decimals : 1, f);
}

static void put_plain(struct hd_jinja_run *run, struct hd_jinja__text *out, const char *text)
{
    hd_jinja__text_put(run, out, text, strlen(text), false);
}

static bool printable(unsigned c)
{
    return c == ' ' || !(U_GET_GC_MASK((UChar32)c) &
                         (U_GC_C_MASK | U_GC_ZL_MASK | U_GC_ZP_MASK | U_GC_ZS_MASK));
}

static void put_repr_char(struct hd_jinja_run *run, struct hd_jinja__text *out, unsigned c,
                          const char *bytes, size_t len, char quote, bool request)
{
    char escaped[16];
    if (c == '\n' || c == '\r' || c == '\t')
        snprintf(escaped, sizeof escaped, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (c == '\\' || c == (unsigned char)quote)
        snprintf(escaped, sizeof escaped, "\\%c", (int)c);
    else if (!printable(c))
        snprintf(escaped, sizeof escaped,
                 c < 0x100     ? "\\x%02x"
                 : c < 0x10000 ? "\\u%04x"
                               : "\\U%08x",
                 c);
    else {
        hd_jinja__text_put(run, out, bytes, len, request);
        return;
    }
    hd_jinja__text_put(run, out, escaped, strlen(escaped), request);
}

static void put_repr_str(struct hd_jinja_run *run, struct hd_jinja__text *out,
                         const struct hd_jinja__str *s)
{
    bool single = memchr(s->data, '\'', s->len) != NULL, twice = memchr(s->data, '"', s->len);
    char quote[2] = {single && !twice ? '"' : '\'', 0};
    put_plain(run, out, quote);
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        unsigned c = 0;
        size_t step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL);
        step = step ? step : 1;
        put_repr_char(run, out, c, s->data + at, step, *quote, s->mask ? s->mask[at] : s->request);
        at += step;
    }
    put_plain(run, out, quote);
}

static void put(struct hd_jinja_run *run, struct hd_jinja__text *out, jv value, bool repr);

static void put_list(struct hd_jinja_run *run, struct hd_jinja__text *out,
                     const struct hd_jinja__list *list)
{
    put_plain(run, out, list->tuple ? "(" : "[");
    for (size_t i = 0; i < list->n && !run->err; i++) {
        if (i)
            put_plain(run, out, ", ");
        put(run, out, list->item[i], true);
    }
    put_plain(run, out, list->tuple ? (list->n == 1 ? ",)" : ")") : "]");
}

static void put_dict(struct hd_jinja_run *run, struct hd_jinja__text *out,
                     const struct hd_jinja__dict *dict)
{
    put_plain(run, out, "{");
    for (size_t i = 0; i < dict->n && !run->err; i++) {
        if (i)
            put_plain(run, out, ", ");
        put(run, out, dict->entry[i].key, true);
        put_plain(run, out, ": ");
        put(run, out, dict->entry[i].value, true);
    }
    put_plain(run, out, "}");
}

static void put_inner(struct hd_jinja_run *run, struct hd_jinja__text *out, jv value, bool repr)
{
    char number[40];
    switch (value.kind) {
    case JV_UNDEFINED:
        if (repr)
            put_plain(run, out, "Undefined");
        return;
    case JV_NONE:
        put_plain(run, out, "None");
        return;
    case JV_BOOL:
        put_plain(run, out, value.u.b ? "True" : "False");
        return;
    case JV_INT:
        snprintf(number, sizeof number, "%lld", (long long)value.u.i);
        put_plain(run, out, number);
        return;
    case JV_REAL:
        hd_jinja__format_real(number, value.u.f);
        put_plain(run, out, number);
        return;
    case JV_STR:
        if (repr)
            put_repr_str(run, out, value.u.str);
        else
            hd_jinja__text_add(run, out, value.u.str);
        return;
    case JV_LIST:
        put_list(run, out, value.u.list);
        return;
    case JV_DICT:
        if (value.u.dict->text)
            hd_jinja__text_add(run, out, value.u.dict->text);
        else
            put_dict(run, out, value.u.dict);
        return;
    default:
        hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be printed", hd_jinja__type_name(value));
    }
}

static void put(struct hd_jinja_run *run, struct hd_jinja__text *out, jv value, bool repr)
{
    if (++run->depth > 4 * HD_JINJA_MAX_DEPTH)
        hd_jinja__fail(run, HD_ERR_INVALID, "a value is nested too deeply");
    if (hd_jinja__step(run, 1))
        put_inner(run, out, value, repr);
    run->depth--;
}

void hd_jinja__put_value(struct hd_jinja_run *run, struct hd_jinja__text *out, jv value)
{
    put(run, out, value, false);
}

const struct hd_jinja__str *hd_jinja__to_str(struct hd_jinja_run *run, jv value)
{
    static const struct hd_jinja__str empty = {.data = ""};
    struct hd_jinja__text text;
    if (value.kind == JV_STR)
        return value.u.str;
    if (value.kind == JV_UNDEFINED || run->err)
        return &empty;
    hd_jinja__text_init(run, &text);
    put(run, &text, value, false);
    jv made = hd_jinja__text_take(run, &text);
    return made.kind == JV_STR ? made.u.str : &empty;
}

/* --- searching -------------------------------------------------------------------------------- */

size_t hd_jinja__at(const struct hd_jinja__str *s, size_t i)
{
    size_t at = 0;
    for (; i && at < s->len; i--)
        for (at++; at < s->len && ((unsigned char)s->data[at] & 0xc0) == 0x80;)
            at++;
    return at;
}

size_t hd_jinja__find(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                      const struct hd_jinja__str *needle, size_t from)
{
    if (from > s->len || !hd_jinja__step(run, (s->len - from) / 64 + needle->len / 64))
        return SIZE_MAX;
    if (!needle->len)
        return from;
    const char *at =
        s->len - from ? memmem(s->data + from, s->len - from, needle->data, needle->len) : NULL;
    return at ? (size_t)(at - s->data) : SIZE_MAX;
}

size_t hd_jinja__find_last(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                           const struct hd_jinja__str *needle)
{
    size_t found = SIZE_MAX;
    if (!needle->len)
        return s->len;
    for (size_t at = 0; (at = hd_jinja__find(run, s, needle, at)) != SIZE_MAX; at++)
        found = at;
    return found;
}

/* --- making new ones -------------------------------------------------------------------------- */

static bool in_set(jv chars, unsigned c, const char *bytes, size_t len)
{
    if (chars.kind != JV_STR)
        return hd_jinja__is_space(c);
    return memmem(chars.u.str->data, chars.u.str->len, bytes, len) != NULL;
}

jv hd_jinja__strip(struct hd_jinja_run *run, const struct hd_jinja__str *s, jv chars,
                   enum hd_jinja__strip sides)
{
    size_t begin = 0, end = s->len, step;
    unsigned c;
    while (sides & STRIP_LEFT && begin < end &&
           (step = hd_utf8_decode(&c, s->data + begin, end - begin, NULL)) &&
           in_set(chars, c, s->data + begin, step) && hd_jinja__step(run, 1))
        begin += step;
    while (sides & STRIP_RIGHT && end > begin && hd_jinja__step(run, 1)) {
        size_t before = end - 1;
        while (before > begin && ((unsigned char)s->data[before] & 0xc0) == 0x80)
            before--;
        if (!hd_utf8_decode(&c, s->data + before, end - before, NULL) ||
            !in_set(chars, c, s->data + before, end - before))
            break;
        end = before;
    }
    return hd_jinja__cut(run, s, begin, end);
}

static void put_cased(struct hd_jinja_run *run, struct hd_jinja__text *out, unsigned c, bool upper,
                      bool request)
{
    UChar from[2], to[8];
    char bytes[32];
    int32_t n = 0, n_to, n_bytes = 0;
    UErrorCode status = U_ZERO_ERROR;
    U16_APPEND_UNSAFE(from, n, c);
    n_to = upper ? u_strToUpper(to, 8, from, n, "", &status)
                 : u_strToLower(to, 8, from, n, "", &status);
    if (U_SUCCESS(status))
        u_strToUTF8(bytes, sizeof bytes, &n_bytes, to, n_to, &status);
    if (U_SUCCESS(status))
        hd_jinja__text_put(run, out, bytes, (size_t)n_bytes, request);
}

/* Whether a word begins behind this character: str.title() after anything without case, the filter
 * title after white space, hyphens and brackets. */
static bool ends_word(enum hd_jinja__case to, unsigned c)
{
    if (to == CASE_WORDS)
        return hd_jinja__is_space(c) || (c < 0x80 && strchr("-({[<", (int)c));
    return to == CASE_TITLE && !u_isUAlphabetic((UChar32)c);
}

jv hd_jinja__case(struct hd_jinja_run *run, const struct hd_jinja__str *s, enum hd_jinja__case to)
{
    struct hd_jinja__text out;
    bool begins = to != CASE_LOWER;
    hd_jinja__text_init(run, &out);
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        unsigned c = 0;
        size_t step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL);
        if (step)
            put_cased(run, &out, c, begins, s->mask ? s->mask[at] : s->request);
        begins = to == CASE_UPPER || ends_word(to, c);
        at += step ? step : 1;
    }
    return hd_jinja__text_take(run, &out);
}

jv hd_jinja__replace(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                     const struct hd_jinja__str *old, const struct hd_jinja__str *by, int64_t count)
{
    struct hd_jinja__text out;
    size_t done = 0;
    if (!old->len) {
        hd_jinja__fail(run, HD_ERR_UNSUPPORTED, "replace of an empty text is not supported");
        return hd_jinja__undefined(NULL);
    }
    hd_jinja__text_init(run, &out);
    for (int64_t i = 0; i != count && !run->err; i++) {
        size_t at = hd_jinja__find(run, s, old, done);
        if (at == SIZE_MAX)
            break;
        jv before = hd_jinja__cut(run, s, done, at);
        if (run->err)
            break;
        hd_jinja__text_add(run, &out, before.u.str);
        hd_jinja__text_add(run, &out, by);
        done = at + old->len;
    }
    jv rest = hd_jinja__cut(run, s, done, s->len);
    if (!run->err)
        hd_jinja__text_add(run, &out, rest.u.str);
    return hd_jinja__text_take(run, &out);
}

/* --- slices ----------------------------------------------------------------------------------- */

static bool bound(struct hd_jinja_run *run, jv value, int64_t *out)
{
    if (value.kind == JV_UNDEFINED || value.kind == JV_NONE)
        return false;
    if (value.kind != JV_INT && value.kind != JV_BOOL)
        hd_jinja__fail(run, HD_ERR_INVALID, "a slice's bound must be a whole number");
    *out = value.kind == JV_INT ? value.u.i : value.u.b;
    return !run->err;
}

static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high)
{
    i = i < 0 ? i + n : i;
    return i < low ? low : i > high ? high : i;
}

static jv slice_list(struct hd_jinja_run *run, const struct hd_jinja__list *list, int64_t start,
                     int64_t stop, int64_t step)
{
    struct hd_jinja__list *out = hd_jinja__new_list(run, 0);
    if (run->err)
        return hd_jinja__undefined(NULL);
    out->tuple = list->tuple;
    jv made = {.kind = JV_LIST, .u.list = out};
    for (int64_t i = start; (step > 0 ? i < stop : i > stop) && hd_jinja__step(run, 1); i += step)
        hd_jinja_push(run, made, list->item[i]);
    return made;
}

static jv slice_str(struct hd_jinja_run *run, const struct hd_jinja__str *s, int64_t start,
                    int64_t stop, int64_t step)
{
    if (step == 1) {
        size_t from = hd_jinja__at(s, (size_t)start);
        size_t to = start < stop ? hd_jinja__at(s, (size_t)stop) : from;
        return hd_jinja__cut(run, s, from, to);
    }
    struct hd_jinja__list *all = hd_jinja__iterate(run, (jv){.kind = JV_STR, .u.str = s});
    struct hd_jinja__text out;
    hd_jinja__text_init(run, &out);
    for (int64_t i = start; !run->err && (step > 0 ? i < stop : i > stop); i += step)
        hd_jinja__text_add(run, &out, all->item[i].u.str);
    return hd_jinja__text_take(run, &out);
}

jv hd_jinja__slice(struct hd_jinja_run *run, jv object, jv start, jv stop, jv step)
{
    int64_t from, to, by = 1, n;
    if (object.kind != JV_STR && object.kind != JV_LIST) {
        hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be sliced", hd_jinja__type_name(object));
        return object;
    }
    n = hd_jinja__length(run, object);
    if (bound(run, step, &by) && !by)
        hd_jinja__fail(run, HD_ERR_INVALID, "a slice's step must not be 0");
    if (by > n + 1 || by < -n - 1)
        by = by > 0 ? n + 1 : -n - 1; /* beyond the end either way */
    int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
    from = bound(run, start, &from) ? clamp(from, n, low, high) : by > 0 ? 0 : n - 1;
    to = bound(run, stop, &to) ? clamp(to, n, low, high) : by > 0 ? n : -1;
    if (run->err)
        return hd_jinja__undefined(NULL);
    return object.kind == JV_LIST ? slice_list(run, object.u.list, from, to, by)
                                  : slice_str(run, object.u.str, from, to, by);
}
