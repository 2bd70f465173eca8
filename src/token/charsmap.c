/* sentencepiece's precompiled_charsmap: a Darts-clone double array from byte sequences to
 * replacements (google/sentencepiece normalizer.cc and its darts.h describe the layout).
 *
 * A unit is 32 bits: bit 31 marks a value; bits 0–7 are the label; bit 8 says that a value is among
 * the children; bits 10–30, times 256 where bit 9 is set, are XORed to the unit's own position to
 * reach them. Every step is bounded, so a hostile map only finds other replacements. */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/utf8.h"
#include "token/token_impl.h"

static uint32_t offset_of(uint32_t unit)
{
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

enum hd_err hd_token__charsmap_init(struct hd_token__charsmap *map, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    *map = (struct hd_token__charsmap){0};
    if (len > HD_TOKEN_MAX_CHARSMAP)
        return HD_ERR_LIMIT;
    if (len < 4)
        return HD_ERR_FORMAT;
    size_t trie = read_u32(p);
    if (trie % 4 || !trie || trie > len - 4)
        return HD_ERR_FORMAT;
    map->n_unit = trie / 4;
    map->n_text = len - 4 - trie;
    map->unit = malloc(trie);
    map->text = malloc(map->n_text + 1);
    if (!map->unit || !map->text) {
        hd_token__charsmap_dispose(map);
        return HD_ERR_NOMEM;
    }
    for (size_t i = 0; i < map->n_unit; i++)
        map->unit[i] = read_u32(p + 4 + 4 * i);
    memcpy(map->text, p + 4 + trie, map->n_text);
    map->text[map->n_text] = 0;
    if (!hd_utf8_valid(map->text, map->n_text)) {
        hd_token__charsmap_dispose(map);
        return HD_ERR_FORMAT;
    }
    return HD_OK;
}

enum hd_err hd_token__charsmap_init_base64(struct hd_token__charsmap *map, const char *text)
{
    struct hd_buf bytes;
    *map = (struct hd_token__charsmap){0};
    hd_buf_init(&bytes, HD_TOKEN_MAX_CHARSMAP);
    enum hd_err err = hd_base64_decode(&bytes, text, strlen(text));
    if (!err)
        err = hd_token__charsmap_init(map, bytes.data, bytes.len);
    hd_buf_dispose(&bytes);
    return err;
}

void hd_token__charsmap_dispose(struct hd_token__charsmap *map)
{
    free(map->unit);
    free(map->text);
    *map = (struct hd_token__charsmap){0};
}

static bool starts_character(const char *text, size_t at, size_t len)
{
    return at >= len || ((uint8_t)text[at] & 0xc0) != 0x80;
}

size_t hd_token__charsmap_find(const struct hd_token__charsmap *map, const char *text, size_t len,
                               bool shortest, const char **to)
{
    size_t found = 0, at = 0;
    if (!map->n_unit)
        return 0;
    at ^= offset_of(map->unit[0]);
    for (size_t i = 0; i < len && text[i]; i++) {
        uint8_t c = (uint8_t)text[i];
        at ^= c;
        if (at >= map->n_unit || (map->unit[at] & (1u << 31 | 0xff)) != c)
            break;
        uint32_t unit = map->unit[at];
        at ^= offset_of(unit);
        if (!(unit & 1u << 8) || at >= map->n_unit || !starts_character(text, i + 1, len))
            continue;
        size_t value = map->unit[at] & 0x7fffffff;
        if (value >= map->n_text || !starts_character(map->text, value, map->n_text))
            continue;
        *to = map->text + value;
        found = i + 1;
        if (shortest)
            break;
    }
    return found;
}

/* Length of the character at text (valid UTF-8). */
static size_t char_len(const char *text, size_t len)
{
    uint8_t c = (uint8_t)*text;
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return n < len ? n : len;
}

enum hd_err hd_token__sentencepiece(const struct hd_token__charsmap *map,
                                    const struct hd_token__norm *norm, struct hd_buf *out,
                                    const char *text, size_t len)
{
    bool in_word = false, prefixed = false;
    for (size_t i = 0; i < len && !out->err;) {
        const char *to = text + i;
        size_t step = hd_token__charsmap_find(map, text + i, len - i, false, &to);
        size_t n = step ? strlen(to) : 0;
        if (!step)
            n = step = char_len(text + i, len - i);
        i += step;
        for (size_t k = 0; k < n; k++) {
            if (to[k] == ' ') {
                in_word = false;
                if (!norm->merge)
                    hd_buf_puts(out, "▁");
                continue;
            }
            if (!in_word && (norm->merge || (norm->prefix && !prefixed))) {
                hd_buf_puts(out, "▁");
                prefixed = true;
            }
            in_word = true;
            hd_buf_putc(out, to[k]);
        }
    }
    return out->err;
}

/* --- as the tokenizers library does it -------------------------------------------------------- */

/* A cluster that has any key as its beginning becomes that key's replacement as a whole if it is
 * shorter than 6 bytes; else each of its characters is looked up alone (spm_precompiled 0.1). */
static void put_cluster(const struct hd_token__charsmap *map, struct hd_buf *out, const char *text,
                        size_t len)
{
    const char *to;
    if (len < 6 && hd_token__charsmap_find(map, text, len, true, &to)) {
        hd_buf_puts(out, to);
        return;
    }
    for (size_t i = 0; i < len;) {
        size_t step = char_len(text + i, len - i);
        if (hd_token__charsmap_find(map, text + i, step, true, &to))
            hd_buf_puts(out, to);
        else
            hd_buf_append(out, text + i, step);
        i += step;
    }
}

enum hd_err hd_token__charsmap_apply(const struct hd_token__charsmap *map, struct hd_buf *out,
                                     const char *text, size_t len)
{
    pcre2_code *cluster = hd_token__regex("\\X", NULL);
    pcre2_match_context *context = hd_token__match_context();
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    enum hd_err err = cluster && context && match ? HD_OK : HD_ERR_NOMEM;
    for (size_t i = 0; i < len && !err && !out->err;) {
        size_t n = 1;
        /* Two characters of ASCII are two clusters, but for CR LF. */
        bool alone =
            !(text[i] & 0x80) && (i + 1 == len || !(text[i + 1] & 0x80)) && text[i] != '\r';
        if (!alone && pcre2_match(cluster, (PCRE2_SPTR)text, len, i,
                                  PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, match, context) > 0)
            n = pcre2_get_ovector_pointer(match)[1] - i;
        else if (!alone)
            err = HD_ERR_LIMIT;
        if (!err && n)
            put_cluster(map, out, text + i, n);
        i += n ? n : 1;
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_code_free(cluster);
    return err ? err : out->err;
}
