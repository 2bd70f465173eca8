/* Making text what the vocabulary was trained on: valid UTF-8, then Unicode normal forms. */
#include <stdlib.h>
#include <string.h>
#include <unicode/ustring.h>

#include "base/utf8.h"
#include "token/token_impl.h"

size_t hd_token__broken_len(const char *s, size_t len)
{
    unsigned codepoint;
    for (size_t k = len < 3 ? len : 3; k > 1; k--) {
        size_t need;
        if (!hd_utf8_decode(&codepoint, s, k, &need) && need)
            return k;
    }
    return 1;
}

enum hd_err hd_token__repair(char **owned, const char **text, size_t *len)
{
    struct hd_buf buf;
    if (hd_utf8_valid(*text, *len))
        return HD_OK;
    hd_buf_init(&buf, 3 * *len);
    for (size_t i = 0; i < *len;) {
        unsigned codepoint;
        size_t step = hd_utf8_decode(&codepoint, *text + i, *len - i, NULL);
        if (step)
            hd_buf_append(&buf, *text + i, step);
        else
            hd_buf_put_utf8(&buf, HD_UTF8_REPLACEMENT);
        i += step ? step : hd_token__broken_len(*text + i, *len - i);
    }
    size_t n = buf.len;
    enum hd_err err = buf.err;
    char *repaired = err ? NULL : hd_buf_take(&buf);
    hd_buf_dispose(&buf);
    if (!repaired)
        return err ? err : HD_ERR_NOMEM;
    free(*owned);
    *text = *owned = repaired;
    *len = n;
    return HD_OK;
}

enum hd_err hd_token__normalizer_add(struct hd_tokenizer *tok, const char *type)
{
    UErrorCode code = U_ZERO_ERROR;
    const UNormalizer2 *normalizer = NULL;
    if (tok->n_normalizer == HD_TOKEN_MAX_NORMALIZERS)
        return HD_ERR_LIMIT;
    if (!strcmp(type, "NFC"))
        normalizer = unorm2_getNFCInstance(&code);
    else if (!strcmp(type, "NFD"))
        normalizer = unorm2_getNFDInstance(&code);
    else if (!strcmp(type, "NFKC"))
        normalizer = unorm2_getNFKCInstance(&code);
    else if (!strcmp(type, "NFKD"))
        normalizer = unorm2_getNFKDInstance(&code);
    if (!normalizer || U_FAILURE(code))
        return HD_ERR_UNSUPPORTED;
    tok->normalizer[tok->n_normalizer++] = normalizer;
    return HD_OK;
}

/* ASCII is normal in every form. */
static bool is_ascii(const char *text, size_t len)
{
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof word <= len; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        if (word & 0x8080808080808080u)
            return false;
    }
    for (; i < len; i++)
        if (text[i] & 0x80)
            return false;
    return true;
}

static enum hd_err to_utf8(char **owned, const char **text, size_t *len, const UChar *wide,
                           int32_t n)
{
    UErrorCode code = U_ZERO_ERROR;
    int32_t bytes = 0;
    char *out = malloc(3 * (size_t)n + 1);
    if (!out)
        return HD_ERR_NOMEM;
    u_strToUTF8(out, 3 * n + 1, &bytes, wide, n, &code);
    if (U_FAILURE(code)) {
        free(out);
        return HD_ERR_INTERNAL;
    }
    free(*owned);
    *text = *owned = out;
    *len = (size_t)bytes;
    return HD_OK;
}

/* One form; text that has it already stays as it is. */
static enum hd_err apply(const UNormalizer2 *normalizer, char **owned, const char **text,
                         size_t *len)
{
    UErrorCode code = U_ZERO_ERROR;
    enum hd_err err = HD_OK;
    int32_t n = 0, n_normal = 0;
    UChar *wide = malloc((*len + 1) * sizeof *wide), *normal = NULL;
    if (!wide)
        return HD_ERR_NOMEM;
    u_strFromUTF8(wide, (int32_t)*len + 1, &n, *text, (int32_t)*len, &code);
    if (U_SUCCESS(code) && unorm2_spanQuickCheckYes(normalizer, wide, n, &code) == n)
        goto out;
    code = U_ZERO_ERROR;
    n_normal = unorm2_normalize(normalizer, wide, n, NULL, 0, &code);
    if (code != U_BUFFER_OVERFLOW_ERROR && U_FAILURE(code)) {
        err = HD_ERR_INTERNAL;
        goto out;
    }
    if (n_normal > HD_TOKEN_MAX_TEXT / 2) {
        err = HD_ERR_LIMIT;
        goto out;
    }
    normal = malloc(((size_t)n_normal + 1) * sizeof *normal);
    if (!normal) {
        err = HD_ERR_NOMEM;
        goto out;
    }
    code = U_ZERO_ERROR;
    n_normal = unorm2_normalize(normalizer, wide, n, normal, n_normal + 1, &code);
    err = U_FAILURE(code) ? HD_ERR_INTERNAL : to_utf8(owned, text, len, normal, n_normal);
out:
    free(wide);
    free(normal);
    return err;
}

enum hd_err hd_token__normalize(const struct hd_tokenizer *tok, char **owned, const char **text,
                                size_t *len)
{
    enum hd_err err = HD_OK;
    if (is_ascii(*text, *len))
        return HD_OK;
    for (size_t i = 0; i < tok->n_normalizer && !err; i++)
        err = apply(tok->normalizer[i], owned, text, len);
    return err;
}
