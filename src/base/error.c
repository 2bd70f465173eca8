#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

const char *hd_err_name(enum hd_err err)
{
    switch (err) {
#define X(name, value, text, http)                                                                 \
    case HD_ERR_##name:                                                                            \
        return #name;
        HD_ERR_LIST(X)
#undef X
    }
    return "UNKNOWN";
}

const char *hd_err_text(enum hd_err err)
{
    switch (err) {
#define X(name, value, text, http)                                                                 \
    case HD_ERR_##name:                                                                            \
        return text;
        HD_ERR_LIST(X)
#undef X
    }
    return "unknown error";
}

int hd_err_http_status(enum hd_err err)
{
    switch (err) {
#define X(name, value, text, http)                                                                 \
    case HD_ERR_##name:                                                                            \
        return http;
        HD_ERR_LIST(X)
#undef X
    }
    return 500;
}

enum hd_err hd_fail(struct hd_errmsg *msg, enum hd_err err, const char *fmt, ...)
{
    if (msg) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg->text, sizeof msg->text, fmt, ap);
        va_end(ap);
    }
    return err;
}
