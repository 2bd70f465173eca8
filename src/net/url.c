#include "net/url.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* libcurl's memory is freed by curl_free; ours by free: copy once, so that callers need not know.
 */
static char *get_part(CURLU *handle, CURLUPart part, unsigned flags)
{
    char *text = NULL;
    if (curl_url_get(handle, part, &text, flags))
        return NULL;
    char *copy = strdup(text);
    curl_free(text);
    return copy;
}

enum hd_err hd_url_parse(struct hd_url *out, const char *base, const char *text,
                         struct hd_errmsg *msg)
{
    *out = (struct hd_url){0};
    CURLU *handle = curl_url();
    if (!handle)
        return hd_fail(msg, HD_ERR_NOMEM, "address: out of memory");
    CURLUcode code = base ? curl_url_set(handle, CURLUPART_URL, base, 0) : CURLUE_OK;
    if (!code)
        code = curl_url_set(handle, CURLUPART_URL, text, 0);
    if (!code)
        curl_url_set(handle, CURLUPART_FRAGMENT, NULL, 0);
    enum hd_err err = HD_OK;
    if (code) {
        err = hd_fail(msg, HD_ERR_INVALID, "\"%.200s\": not an address: %s", text,
                      curl_url_strerror(code));
    } else {
        char *user = get_part(handle, CURLUPART_USER, 0);
        out->has_credentials = user != NULL;
        free(user);
        out->text = get_part(handle, CURLUPART_URL, 0);
        out->scheme = get_part(handle, CURLUPART_SCHEME, 0);
        out->host = get_part(handle, CURLUPART_HOST, 0);
        out->port = get_part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT);
        if (!out->text || !out->scheme || !out->host || !out->port)
            err = hd_fail(msg, HD_ERR_INVALID, "\"%.200s\": not an http address", text);
    }
    curl_url_cleanup(handle);
    if (err)
        hd_url_dispose(out);
    return err;
}

void hd_url_dispose(struct hd_url *url)
{
    free(url->text);
    free(url->scheme);
    free(url->host);
    free(url->port);
    *url = (struct hd_url){0};
}

bool hd_url_same_origin(const struct hd_url *a, const struct hd_url *b)
{
    return !strcasecmp(a->scheme, b->scheme) && !strcasecmp(a->host, b->host) &&
           !strcmp(a->port, b->port);
}

char *hd_url_file_path(const char *url)
{
    int len = 0;
    if (strncasecmp(url, "file:///", 8) || strlen(url) > 8192)
        return NULL;
    char *decoded = curl_easy_unescape(NULL, url + 7, 0, &len);
    char *path = decoded && strlen(decoded) == (size_t)len ? strdup(decoded) : NULL;
    curl_free(decoded);
    return path;
}
