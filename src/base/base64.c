/* See base64.h. */
#include <limits.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/base64.h"

enum hd_err hd_base64_encode(struct hd_buf *out, const void *data, size_t len)
{
    if (len > INT_MAX)
        return HD_ERR_LIMIT;
    char *to = hd_buf_reserve(out, (len + 2) / 3 * 4); /* and the NUL that the library writes */
    if (!to)
        return out->err;
    out->len += (size_t)EVP_EncodeBlock((unsigned char *)to, data, (int)len);
    return HD_OK;
}

enum hd_err hd_base64_decode(struct hd_buf *out, const char *text, size_t len)
{
    if (len > INT_MAX)
        return HD_ERR_LIMIT;
    char *to = hd_buf_reserve(out, len / 4 * 3);
    if (!to)
        return out->err;
    const char *padding = memchr(text, '=', len);
    if (len % 4 || (padding && padding < text + len - 2)) /* the library takes any padding */
        return HD_ERR_FORMAT;
    int n = EVP_DecodeBlock((unsigned char *)to, (const unsigned char *)text, (int)len);
    if (n < 0 || (size_t)n != len / 4 * 3) /* it skips white space around */
        return HD_ERR_FORMAT;
    for (size_t i = len; n && i > len - 2 && text[i - 1] == '='; i--)
        n--; /* padding, which the library decodes to zeros */
    out->len += (size_t)n;
    out->data[out->len] = '\0';
    return HD_OK;
}
