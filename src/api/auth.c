/* Who may call: the one function that decides, before a body is read. */
#include "api/api_impl.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"

/* A path from a plain web page to a server on loopback is DNS rebinding: the page's own name is
 * made to resolve to 127.0.0.1. The Host header then still carries that name. */
bool hd_api__host_is_loopback(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; host && i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if (!strncasecmp(host, names[i], n) &&
            (!host[n] || (host[n] == ':' && host[n + 1] &&
                          strspn(host + n + 1, "0123456789") == strlen(host + n + 1))))
            return true;
    }
    return false;
}

bool hd_api__origin_is_host(const char *origin, const char *host)
{
    if (!host)
        return false;
    if (!strncasecmp(origin, "http://", 7))
        return !strcasecmp(origin + 7, host);
    if (!strncasecmp(origin, "https://", 8))
        return !strcasecmp(origin + 8, host);
    return false;
}

enum hd_err hd_api__auth_init(struct hd_api *api, struct hd_errmsg *msg)
{
    static const char *const loopback[] = {"localhost", "127.0.0.1", "::1"};
    const char *key = api->options.api_key;
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < 3; i++)
        api->loopback_only |= !strcmp(api->options.host, loopback[i]);
    if (key && *key && hd_sha256_hex(api->key_digest, key, strlen(key)))
        return hd_fail(msg, HD_ERR_NOMEM, "api: no digest of the key");
    if (api->options.keys_file)
        err = hd_api__keys_load(&api->keys, api->options.keys_file, msg);
    api->has_key = api->key_digest[0] || api->keys;
    return err;
}

/* The key that a request carries, or NULL: Authorization as OpenAI's clients send it, or x-api-key
 * as Anthropic's do. Inside a hook or handler. */
static const char *key_of(struct hd_http_request *request)
{
    const char *authorization = hd_http_request_header(request, "Authorization");
    if (authorization && !strncasecmp(authorization, "Bearer ", 7))
        return authorization + 7 + strspn(authorization + 7, " ");
    return hd_http_request_header(request, "x-api-key");
}

/* Whose key it is. Digests are compared, in constant time, so that neither length nor prefix shows.
 * Without any key set, everyone is the local user. */
static bool find_principal(struct hd_principal *out, const struct hd_api *api, const char *key)
{
    char digest[65];
    *out = HD_PRINCIPAL_LOCAL;
    if (!api->has_key)
        return true;
    if (!key)
        return false;
    if (hd_sha256_hex(digest, key, strlen(key)))
        return false;
    if (api->key_digest[0] && !CRYPTO_memcmp(digest, api->key_digest, 64)) {
        out->key_id = "api-key";
        return true;
    }
    const struct hd_principal *who = api->keys ? hd_api__keys_find(api->keys, digest) : NULL;
    if (who)
        *out = *who;
    return who != NULL;
}

static int check_source(const struct hd_api *api, struct hd_http_request *request,
                        struct hd_api__fault *fault)
{
    const char *host = hd_http_request_header(request, "Host");
    const char *origin = hd_http_request_header(request, "Origin");
    if (api->loopback_only && !api->has_key && host && !hd_api__host_is_loopback(host))
        return hd_api__fault(
            fault, 403, "host_not_allowed", NULL,
            "this server listens on this machine only and is called localhost, not "
            "\"%.80s\" (behind a proxy, set an API key)",
            host);
    if (origin && !hd_api__origin_is_host(origin, host))
        return hd_api__fault(fault, 403, "origin_not_allowed", NULL,
                             "pages of other sites may not call this server");
    return 0;
}

/* --- scopes: what a key may be used for ---------------------------------------------------------
 */

static const char *const scope_names[] = {"chat", "embed", "kb:read", "kb:write", "admin"};

bool hd_api__is_scope(const char *name)
{
    for (size_t i = 0; i < sizeof scope_names / sizeof *scope_names; i++)
        if (!strcmp(scope_names[i], name))
            return true;
    return false;
}

/* What an address needs, or NULL: any key will do. */
static const char *scope_of(const char *method, const char *path)
{
    static const struct {
        const char *path, *scope;
    } all[] = {
        {"/v1/chat/completions", "chat"},
        {"/v1/completions", "chat"},
        {"/v1/responses", "chat"},
        {"/v1/messages", "chat"},
        {"/v1/messages/count_tokens", "chat"},
        {"/v1/streams/{id}", "chat"},
        {"/api/chat", "chat"},
        {"/api/generate", "chat"},
        {"/v1/embeddings", "embed"},
        {"/v1/rerank", "embed"},
        {"/api/embed", "embed"},
        {"/metrics", "admin"},
        {"/v1/knowledge_bases/{kb}/search", "kb:read"},
    };
    for (size_t i = 0; path && i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].path, path))
            return all[i].scope;
    if (path && !strncmp(path, "/v1/knowledge_bases", 19))
        return strcmp(method, "GET") ? "kb:write" : "kb:read";
    return NULL;
}

int hd_api__check_scope(const struct hd_principal *who, const char *scope,
                        struct hd_api__fault *fault)
{
    for (size_t i = 0; i < who->n_scope; i++)
        if (!strcmp(who->scopes[i], scope))
            return 0;
    if (!who->n_scope)
        return 0; /* a key without scopes may do everything */
    return hd_api__fault(fault, 403, "insufficient_scope", NULL,
                         "this key lacks the scope \"%s\" (the key file gives it)", scope);
}

static int check_key(const struct hd_api *api, struct hd_http_request *request,
                     struct hd_api__fault *fault)
{
    const char *authorization = hd_http_request_header(request, "Authorization");
    struct hd_principal who;
    if (find_principal(&who, api, key_of(request))) {
        const char *scope =
            scope_of(hd_http_request_method(request), hd_http_request_pattern(request));
        return scope ? hd_api__check_scope(&who, scope, fault) : 0;
    }
    return hd_api__fault(fault, 401, "invalid_api_key", NULL,
                         authorization || key_of(request)
                             ? "the API key is wrong"
                             : "an API key is needed: Authorization: Bearer KEY, "
                               "or x-api-key: KEY");
}

static int check_room(struct hd_api *api, int kind, struct hd_api__fault *fault,
                      const char **reason)
{
    struct hd_engine_stats stats;
    if (atomic_load(&api->draining)) {
        *reason = "draining";
        return hd_api__fault(fault, 503, "draining", NULL,
                             "the server is shutting down and takes no new requests");
    }
    if (!atomic_load(&api->ready)) {
        *reason = "loading";
        return hd_api__fault(fault, 503, "loading", NULL,
                             "the server is still loading (GET /startupz tells how far)");
    }
    if (kind != ROUTE_GENERATE)
        return 0;
    hd_engine_stats(api->engine, &stats);
    if (stats.running < api->options.max_sessions || stats.waiting < api->options.max_queue)
        return 0;
    *reason = "queue_full";
    return hd_api__fault(fault, 429, "rate_limit_exceeded", NULL,
                         "%d requests are running and %d wait; try again later", stats.running,
                         stats.waiting);
}

void hd_api__before(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_api__fault fault;
    int kind = hd_http_request_tag(request);
    const char *reason = "source";
    int status = check_source(api, request, &fault);
    if (!status && kind != ROUTE_OPEN) {
        reason = "key";
        status = check_key(api, request, &fault);
    }
    if (!status && kind >= ROUTE_WORK)
        status = check_room(api, kind, &fault, &reason);
    if (!status)
        return;
    hd_metrics_add(api->metrics, M_REJECTED, HD_LABELS(reason), 1);
    hd_api__reply_fault(api, request, &fault);
}

struct hd_principal hd_api__principal(struct hd_api *api, struct hd_http_request *request)
{
    struct hd_principal who;
    find_principal(&who, api, key_of(request));
    return who;
}
