#include "base/utf8.h"

size_t hd_utf8_decode(unsigned *codepoint, const char *s, size_t len, size_t *need)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n;
    unsigned lo = 0x80, hi = 0xBF, value;
    if (need)
        *need = 0;
    if (p[0] < 0x80) {
        *codepoint = p[0];
        return 1;
    } else if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        n = 2;
        value = p[0] & 0x1Fu;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        n = 3;
        value = p[0] & 0x0Fu;
        if (p[0] == 0xE0)
            lo = 0xA0;
        if (p[0] == 0xED)
            hi = 0x9F;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        n = 4;
        value = p[0] & 0x07u;
        if (p[0] == 0xF0)
            lo = 0x90;
        if (p[0] == 0xF4)
            hi = 0x8F;
    } else {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if (i >= len) {
            if (need)
                *need = n - len;
            return 0;
        }
        if (p[i] < lo || p[i] > hi)
            return 0;
        lo = 0x80;
        hi = 0xBF;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    *codepoint = value;
    return n;
}

size_t hd_utf8_encode(char out[4], unsigned c)
{
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        c = HD_UTF8_REPLACEMENT;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

bool hd_utf8_valid(const char *s, size_t len)
{
    unsigned c;
    for (size_t i = 0; i < len;) {
        size_t n = hd_utf8_decode(&c, s + i, len - i, NULL);
        if (!n)
            return false;
        i += n;
    }
    return true;
}

size_t hd_utf8_count(const char *s, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

size_t hd_utf8_complete(const char *s, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned c;
        size_t need;
        if (((unsigned char)s[len - back] & 0xC0) == 0x80)
            continue;
        return hd_utf8_decode(&c, s + len - back, back, &need) || !need ? len : len - back;
    }
    return len;
}
