/* Base64 (RFC 4648, section 4, with padding), by libcrypto. */
#ifndef HD_BASE_BASE64_H
#define HD_BASE_BASE64_H

#include "base/buf.h"
#include "base/error.h"

/* Both append to out. */
enum hd_err hd_base64_encode(struct hd_buf *out, const void *data, size_t len);
/* FORMAT where text is not base64. */
enum hd_err hd_base64_decode(struct hd_buf *out, const char *text, size_t len);

#endif
