/* Encodings and cleaning. See text.h. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <unicode/ucnv.h>
#include <unicode/ucsdet.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/text.h"

/* --- decoding ----------------------------------------------------------------------------- */

/* Converts with ICU, appends; counts what had to be replaced. */
static enum hd_err convert(struct hd_buf *out, const char *charset, const char *data, size_t len,
                           size_t *n_bad)
{
    UErrorCode status = U_ZERO_ERROR;
    UConverter *from = ucnv_open(charset, &status);
    if (U_FAILURE(status))
        return HD_ERR_UNSUPPORTED;
    const char *s = data, *end = data + len;
    size_t bad = 0;
    do {
        UChar wide[4096];
        UChar *w = wide;
        status = U_ZERO_ERROR;
        ucnv_toUnicode(from, &w, wide + 4096, &s, end, NULL, true, &status);
        if (U_FAILURE(status) && status != U_BUFFER_OVERFLOW_ERROR)
            break;
        for (UChar *p = wide; p < w; p++) {
            unsigned c = *p;
            if (c >= 0xD800 && c < 0xDC00 && p + 1 < w && p[1] >= 0xDC00 && p[1] < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + (p[1] - 0xDC00u);
                p++;
            }
            bad += c == HD_UTF8_REPLACEMENT || (c >= 0xD800 && c < 0xF900) || c == 0x1A;
            hd_buf_put_utf8(out, c);
        }
    } while (status == U_BUFFER_OVERFLOW_ERROR && !out->err);
    ucnv_close(from);
    *n_bad = bad;
    return out->err;
}

/* How much a decoded sample looks like language: common ideographs count for it, replaced and
 * private characters against. */
static long plausibility(const char *text, size_t len, size_t n_bad)
{
    static const unsigned common[] =
        U"的一是不在有了人这中大为上个国我以要他时来用们生到作地于出就分对成会"
        U"可主发年动同工也能下过子说产种面而方后多定行学法所民得经這為個國時來們"
        U"於會動過說產種經對發學，。、";
    long score = -8 * (long)n_bad;
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        i += k ? k : 1;
        if (c < 0x80)
            continue;
        long value = hd_kb__is_han(c) || (c >= 0x3000 && c < 0x3100) ? 0 : -1;
        for (const unsigned *p = common; *p; p++)
            if (*p == c)
                value = 2;
        score += value;
    }
    return score;
}

static const char *detect(const char *data, size_t len, char name[32])
{
    UErrorCode status = U_ZERO_ERROR;
    UCharsetDetector *detector = ucsdet_open(&status);
    name[0] = '\0';
    if (U_SUCCESS(status)) {
        ucsdet_setText(detector, data, (int32_t)(len > 65536 ? 65536 : len), &status);
        const UCharsetMatch *match = ucsdet_detect(detector, &status);
        const char *found = U_SUCCESS(status) && match ? ucsdet_getName(match, &status) : NULL;
        if (found && U_SUCCESS(status)) {
            strncpy(name, found, 31);
            name[31] = '\0';
        }
    }
    ucsdet_close(detector);
    return name[0] ? name : NULL;
}

static bool looks_utf16(const char *data, size_t len, bool big)
{
    if (len < 4 || len % 2)
        return false;
    size_t zero = 0, n = len > 4096 ? 4096 : len;
    for (size_t i = big ? 0 : 1; i < n; i += 2)
        zero += data[i] == 0;
    return zero * 5 > n / 2; /* more than a fifth of the high bytes */
}

/* The best of the candidate encodings, judged on a sample. */
static const char *choose(const char *data, size_t len, char detected[32])
{
    const char *candidates[] = {"gb18030", "big5", detect(data, len, detected)};
    const char *best = NULL;
    long best_score = 0;
    size_t sample = len > 65536 ? 65536 : len;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        if (!candidates[i])
            continue;
        struct hd_buf text;
        hd_buf_init(&text, 1 << 20);
        size_t bad = 0;
        if (!convert(&text, candidates[i], data, sample, &bad)) {
            long score = plausibility(hd_buf_str(&text), text.len, bad);
            if (!best || score > best_score) {
                best = candidates[i];
                best_score = score;
            }
        }
        hd_buf_dispose(&text);
    }
    return best ? best : "windows-1252";
}

/* Binary data: NULs, or many control characters. */
static bool is_binary(const char *text, size_t len)
{
    size_t control = 0, n = len > 65536 ? 65536 : len;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0)
            control += 8;
        control += (c < 32 && c != '\n' && c != '\r' && c != '\t' && c != '\f') || c == 127;
    }
    return control * 20 > n;
}

enum hd_err hd_kb__decode(struct hd_buf *out, const char *data, size_t len, const char *hint,
                          struct hd_errmsg *msg)
{
    const char *charset = NULL;
    char detected[32];
    if (len >= 3 && !memcmp(data, "\xEF\xBB\xBF", 3)) {
        data += 3;
        len -= 3;
    } else if (len >= 2 && !memcmp(data, "\xFF\xFE", 2)) {
        charset = "UTF-16LE";
        data += 2;
        len -= 2;
    } else if (len >= 2 && !memcmp(data, "\xFE\xFF", 2)) {
        charset = "UTF-16BE";
        data += 2;
        len -= 2;
    }
    if (!charset && hd_utf8_valid(data, len) && !memchr(data, 0, len))
        charset = "UTF-8";
    if (!charset && looks_utf16(data, len, false))
        charset = "UTF-16LE";
    if (!charset && looks_utf16(data, len, true))
        charset = "UTF-16BE";
    size_t begin = out->len, bad = 0;
    if (charset && !strcmp(charset, "UTF-8"))
        hd_buf_append(out, data, len);
    else if (charset || !hint || convert(out, hint, data, len, &bad) || bad * 50 > len) {
        out->len = begin; /* the hint, if any, was wrong */
        if (!charset && is_binary(data, len))
            return hd_fail(msg, HD_ERR_INVALID, "this is binary data, not text");
        enum hd_err err =
            convert(out, charset ? charset : choose(data, len, detected), data, len, &bad);
        if (err)
            return err;
    }
    if (out->err)
        return out->err;
    if (is_binary(out->data ? out->data + begin : "", out->len - begin) || bad * 4 > len + 4)
        return hd_fail(msg, HD_ERR_INVALID, "this is binary data, not text");
    return HD_OK;
}

/* --- cleaning ----------------------------------------------------------------------------- */

static bool is_invisible(unsigned c)
{
    return c < 32 || (c >= 0x7F && c < 0xA0) || c == 0xAD || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
           (c >= 0xFFF0 && c <= 0xFFFB) || (c >= 0xE000 && c < 0xF900) || c >= 0xE0000;
}

static bool is_space(unsigned c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

enum hd_err hd_kb__clean(struct hd_buf *out, const char *text, size_t len, bool keep_lines)
{
    bool space = false, any = false;
    for (size_t i = 0; i < len && !out->err;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!k) {
            c = HD_UTF8_REPLACEMENT;
            k = 1;
        }
        i += k;
        if (keep_lines && c == '\n' && any) {
            hd_buf_putc(out, '\n');
            space = false;
        } else if (is_space(c)) {
            if (keep_lines && any && (c == ' ' || c == '\t'))
                hd_buf_putc(out, ' ');
            else
                space = true;
        } else if (!is_invisible(c)) {
            if (space && any)
                hd_buf_putc(out, ' ');
            hd_buf_put_utf8(out, c);
            space = false;
            any = true;
        }
    }
    while (out->len && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == ' '))
        out->data[--out->len] = '\0';
    return out->err;
}
