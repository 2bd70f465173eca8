/* Method + path → route. Paths are split first and decoded after, so that an encoded slash never
 * makes a new segment. */
#include "http/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *hd_http_percent_decode(const char *s, size_t len, bool plus_is_space)
{
    char *out = malloc(len + 1);
    size_t n = 0;
    if (!out)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_digit(s[i + 1]) : -1;
            int low = len - i > 2 ? hex_digit(s[i + 2]) : -1;
            if (high < 0 || low < 0)
                goto bad;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (!c)
            goto bad;
        out[n++] = c;
    }
    out[n] = 0;
    if (hd_utf8_valid(out, n))
        return out;
bad:
    free(out);
    return NULL;
}

static size_t segment_len(const char *s)
{
    return strcspn(s, "/");
}

/* Compares one path with one pattern; on success fills the variables (decoded later). */
static bool pattern_fits(const char *pattern, const char *path, struct hd_http_match *match,
                         const char *raw[], size_t raw_len[])
{
    match->n_var = 0;
    for (;;) {
        if (*pattern != '/' || *path != '/')
            return !*pattern && !*path;
        pattern++;
        path++;
        size_t n = segment_len(pattern), m = segment_len(path);
        if (*pattern == '{') {
            struct hd_http_var *var = &match->var[match->n_var];
            if (!m || match->n_var == HD_HTTP_MAX_VARS)
                return false;
            snprintf(var->name, sizeof var->name, "%.*s", (int)(n - 2), pattern + 1);
            raw[match->n_var] = path;
            raw_len[match->n_var++] = m;
        } else if (n != m || memcmp(pattern, path, n)) {
            return false;
        }
        pattern += n;
        path += m;
    }
}

static bool method_fits(const char *route, const char *method)
{
    return !strcmp(route, method) || (!strcmp(route, "GET") && !strcmp(method, "HEAD"));
}

static void add_allow(char allow[64], const char *method)
{
    size_t n = strlen(allow);
    if (!strstr(allow, method))
        snprintf(allow + n, 64 - n, "%s%s", n ? ", " : "", method);
}

static void decode_vars(struct hd_http_match *match, const char *raw[], size_t raw_len[])
{
    for (size_t i = 0; i < match->n_var; i++) {
        match->var[i].value = hd_http_percent_decode(raw[i], raw_len[i], false);
        if (!match->var[i].value) {
            match->route = NULL;
            match->status = 400;
        }
    }
}

void hd_http_route_match(struct hd_http_match *out, const struct hd_http_route *routes, size_t n,
                         const char *method, const char *path)
{
    const char *raw[HD_HTTP_MAX_VARS];
    size_t raw_len[HD_HTTP_MAX_VARS];
    memset(out, 0, sizeof *out);
    out->status = 404;
    for (size_t i = 0; i < n; i++) {
        if (!pattern_fits(routes[i].pattern, path, out, raw, raw_len))
            continue;
        if (method_fits(routes[i].method, method)) {
            out->route = &routes[i];
            out->status = 200;
            decode_vars(out, raw, raw_len);
            return;
        }
        out->status = 405;
        add_allow(out->allow, routes[i].method);
    }
    out->n_var = 0;
}

void hd_http_match_dispose(struct hd_http_match *match)
{
    for (size_t i = 0; i < match->n_var; i++)
        free(match->var[i].value);
    memset(match, 0, sizeof *match);
}
