/* multipart/form-data (RFC 7578) over a body that is wholly in memory. */
#include "http/http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/utf8.h"

enum { MAX_BOUNDARY = 70, MAX_PART_HEADER = 4096 };

static char *keep(struct hd_http_parts *parts, const char *s, size_t len)
{
    if (parts->n_string == sizeof parts->strings / sizeof *parts->strings)
        return NULL;
    char *copy = strndup(s, len);
    if (copy)
        parts->strings[parts->n_string++] = copy;
    return copy;
}

/* The value of ; name="value" or ; name=value; backslash escapes quote and backslash. */
static bool parameter(char *out, size_t size, const char *s, size_t len, const char *name)
{
    const char *end = s + len;
    size_t n = strlen(name);
    while ((s = memchr(s, ';', (size_t)(end - s)))) {
        s++;
        while (s < end && (*s == ' ' || *s == '\t'))
            s++;
        if ((size_t)(end - s) <= n || strncasecmp(s, name, n) || s[n] != '=')
            continue;
        s += n + 1;
        bool quoted = s < end && *s == '"';
        size_t used = 0;
        for (s += quoted; s < end && (quoted ? *s != '"' : *s != ';' && *s != ' '); s++) {
            if (quoted && *s == '\\' && s + 1 < end && (s[1] == '"' || s[1] == '\\'))
                s++;
            if (used + 1 >= size)
                return false;
            out[used++] = *s;
        }
        out[used] = 0;
        return !quoted || s < end;
    }
    return false;
}

static bool parse_part_headers(struct hd_http_parts *parts, struct hd_http_part *part,
                               const char *s, size_t len)
{
    char value[1024];
    const char *end = s + len;
    part->name = part->filename = part->content_type = "";
    while (s < end) {
        const char *eol = memmem(s, (size_t)(end - s), "\r\n", 2);
        size_t n = eol ? (size_t)(eol - s) : (size_t)(end - s);
        if (n > 20 && !strncasecmp(s, "Content-Disposition:", 20)) {
            if (!parameter(value, sizeof value, s, n, "name") ||
                !hd_utf8_valid(value, strlen(value)))
                return false;
            part->name = keep(parts, value, strlen(value));
            if (parameter(value, sizeof value, s, n, "filename") &&
                hd_utf8_valid(value, strlen(value)))
                part->filename = keep(parts, value, strlen(value));
        } else if (n > 13 && !strncasecmp(s, "Content-Type:", 13)) {
            size_t skip = 13 + strspn(s + 13, " \t");
            part->content_type = keep(parts, s + skip, n - skip);
        }
        s += n + (eol ? 2 : 0);
    }
    return part->name && *part->name && part->filename && part->content_type;
}

enum hd_err hd_http_multipart_parse(struct hd_http_parts *out, const char *content_type,
                                    const char *body, size_t len, struct hd_errmsg *msg)
{
    char boundary[MAX_BOUNDARY + 1], mark[MAX_BOUNDARY + 8];
    const char *end = body + len;
    memset(out, 0, sizeof *out);
    if (!content_type || strncasecmp(content_type, "multipart/form-data", 19) ||
        !parameter(boundary, sizeof boundary, content_type, strlen(content_type), "boundary") ||
        !*boundary)
        return hd_fail(msg, HD_ERR_INVALID, "multipart: the Content-Type names no boundary");
    size_t n = strlen(boundary);
    memcpy(mark, "\r\n--", 4);
    memcpy(mark + 4, boundary, n + 1);
    const char *p = body;
    if (len < n + 2 || memcmp(p, mark + 2, n + 2))
        return hd_fail(msg, HD_ERR_INVALID, "multipart: the body does not begin with its boundary");
    p += n + 2;
    while (end - p < 2 || memcmp(p, "--", 2)) {
        const char *head = p + 2;
        const char *gap = NULL, *next = NULL;
        if (end - p >= 2 && !memcmp(p, "\r\n", 2))
            gap = memmem(head, (size_t)(end - head), "\r\n\r\n", 4);
        if (gap && gap - head <= MAX_PART_HEADER)
            next = memmem(gap + 2, (size_t)(end - gap - 2), mark, n + 4);
        if (!next || next < gap + 4) {
            hd_http_parts_dispose(out);
            return hd_fail(msg, HD_ERR_INVALID, "multipart: a part does not end (byte %zu)",
                           (size_t)(p - body));
        }
        struct hd_http_part *part = &out->part[out->n];
        if (out->n == sizeof out->part / sizeof *out->part ||
            !parse_part_headers(out, part, head, (size_t)(gap - head))) {
            hd_http_parts_dispose(out);
            return hd_fail(msg, HD_ERR_INVALID,
                           "multipart: more than 16 parts, or a part without a name");
        }
        part->data = gap + 4;
        part->len = (size_t)(next - part->data);
        out->n++;
        p = next + n + 4;
    }
    return HD_OK;
}

void hd_http_parts_dispose(struct hd_http_parts *parts)
{
    for (size_t i = 0; i < parts->n_string; i++)
        free(parts->strings[i]);
    memset(parts, 0, sizeof *parts);
}
