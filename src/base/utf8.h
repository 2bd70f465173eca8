/* UTF-8, strictly as in RFC 3629: no overlong forms, no surrogates, at most U+10FFFF. */
#ifndef HD_BASE_UTF8_H
#define HD_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#define HD_UTF8_REPLACEMENT 0xFFFDu

/* Decodes one code point at s (len > 0 bytes there). Returns its length in bytes, 1..4, or 0 where
 * the bytes are not UTF-8; *need is then the bytes still missing if s is a true prefix, else 0.
 * need may be NULL. */
size_t hd_utf8_decode(unsigned *codepoint, const char *s, size_t len, size_t *need);
/* Writes 1..4 bytes; what is not a scalar value becomes U+FFFD. */
size_t hd_utf8_encode(char out[4], unsigned codepoint);
bool hd_utf8_valid(const char *s, size_t len);
/* Code points in valid UTF-8. */
size_t hd_utf8_count(const char *s, size_t len);
/* Length of the longest prefix that ends at a code point's end (never half a character). */
size_t hd_utf8_complete(const char *s, size_t len);

#endif
