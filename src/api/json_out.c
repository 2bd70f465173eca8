/* Answers and errors as JSON. */
#include "api/api_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int hd_api__fault(struct hd_api__fault *fault, int status, const char *code, const char *param,
                  const char *fmt, ...)
{
    va_list ap;
    fault->status = status;
    fault->code = code;
    snprintf(fault->param, sizeof fault->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(fault->msg.text, sizeof fault->msg.text, fmt, ap);
    va_end(ap);
    return status;
}

int hd_api__invalid(struct hd_api__fault *fault, const char *param, const char *what)
{
    return hd_api__fault(fault, 400, "invalid_type", param, "%s: %s", param, what);
}

int hd_api__unsupported(struct hd_api__fault *fault, const char *param, const char *what)
{
    return hd_api__fault(fault, 400, "unsupported_value", param, "%s: %s", param, what);
}

int hd_api__fault_err(struct hd_api__fault *fault, enum hd_err err, const struct hd_errmsg *msg)
{
    const char *code = err == HD_ERR_BUSY          ? "rate_limit_exceeded"
                       : err == HD_ERR_NOTFOUND    ? "not_found"
                       : err == HD_ERR_EXISTS      ? "already_exists"
                       : err == HD_ERR_TIMEOUT     ? "timeout"
                       : err == HD_ERR_UNSUPPORTED ? "unsupported"
                                                   : NULL;
    int status = err == HD_ERR_CANCELLED ? 503 : hd_err_http_status(err);
    return hd_api__fault(fault, status, code, NULL, "%s",
                         msg && msg->text[0] ? msg->text : hd_err_text(err));
}

void hd_api__put_json(struct hd_buf *out, const char *text, size_t len)
{
    size_t from = 0;
    hd_buf_putc(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        hd_buf_append(out, text + from, i - from);
        from = i + 1;
        if (c == '"' || c == '\\')
            hd_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            hd_buf_puts(out, "\\n");
        else
            hd_buf_printf(out, "\\u%04x", c);
    }
    hd_buf_append(out, text + from, len - from);
    hd_buf_putc(out, '"');
}

void hd_api__put_dump(struct hd_buf *out, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    hd_buf_puts(out, text ? text : "null");
    free(text);
    json_decref(value);
}

static const char *error_type(int status)
{
    if (status == 401)
        return "authentication_error";
    if (status == 403)
        return "permission_error";
    if (status == 429)
        return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *anthropic_type(int status)
{
    if (status == 404)
        return "not_found_error";
    if (status == 413)
        return "request_too_large";
    if (status == 503)
        return "overloaded_error";
    return status >= 500 ? "api_error" : error_type(status);
}

static bool below(const char *path, const char *prefix)
{
    return path && !strncmp(path, prefix, strlen(prefix));
}

/* The length of s cut to whole characters: messages may end in the middle of one. */
static size_t whole(const char *s)
{
    size_t n = strlen(s);
    size_t back = n;
    while (back && n - back < 4 && ((unsigned char)s[back - 1] & 0xc0) == 0x80)
        back--;
    if (!back)
        return n;
    unsigned char lead = (unsigned char)s[back - 1];
    size_t need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return n - back + 1 < need ? back - 1 : n;
}

void hd_api__put_error(struct hd_buf *out, const char *path, int status, const char *code,
                       const char *param, const char *message)
{
    if (below(path, "/api/")) {
        hd_buf_puts(out, "{\"error\":");
        hd_api__put_json(out, message, whole(message));
        hd_buf_putc(out, '}');
        return;
    }
    if (below(path, "/v1/messages")) {
        hd_buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
                      anthropic_type(status));
        hd_api__put_json(out, message, whole(message));
        hd_buf_puts(out, "}}");
        return;
    }
    hd_buf_puts(out, "{\"error\":{\"message\":");
    hd_api__put_json(out, message, whole(message));
    hd_buf_printf(out, ",\"type\":\"%s\",\"param\":", error_type(status));
    if (param && *param)
        hd_api__put_json(out, param, whole(param));
    else
        hd_buf_puts(out, "null");
    if (code)
        hd_buf_printf(out, ",\"code\":\"%s\"}}", code);
    else
        hd_buf_puts(out, ",\"code\":null}}");
}

void hd_api__reply_fault(struct hd_api *api, struct hd_http_request *request,
                         const struct hd_api__fault *fault)
{
    struct hd_buf body;
    char seconds[16];
    hd_buf_init(&body, 8192);
    hd_api__put_error(&body, hd_http_request_path(request), fault->status, fault->code,
                      fault->param, fault->msg.text);
    if (fault->status == 429 || fault->status == 503) {
        snprintf(seconds, sizeof seconds, "%d", hd_api__retry_after(api));
        hd_http_set_header(request, "Retry-After", seconds);
    }
    if (fault->status == 401)
        hd_http_set_header(request, "WWW-Authenticate", "Bearer");
    hd_http_reply(request, fault->status, "application/json", hd_buf_str(&body), body.len);
    hd_buf_dispose(&body);
}

void hd_api__reply_json(struct hd_http_request *request, int status, json_t *body)
{
    static const char sorry[] = "{\"error\":{\"message\":\"out of memory\",\"type\":"
                                "\"server_error\",\"param\":null,\"code\":null}}";
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    if (text)
        hd_http_reply(request, status, "application/json", text, strlen(text));
    else
        hd_http_reply(request, 503, "application/json", sorry, sizeof sorry - 1);
    free(text);
    json_decref(body);
}
