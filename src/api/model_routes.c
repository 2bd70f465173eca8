/* Models, and text ⇄ tokens. */
#include "api/api_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kb/kb.h"

#include "base/utf8.h"

static void reply_err(struct hd_api__call *call, enum hd_err err, const struct hd_errmsg *msg)
{
    struct hd_api__fault fault;
    hd_api__fault_err(&fault, err, msg);
    hd_api__reply_fault(call->api, call->http, &fault);
}

/* --- GET /v1/models
 * -------------------------------------------------------------------------------- */

static json_t *model_json(const struct hd_model_info *info)
{
    static const char *const kinds[] = {"language", "encoder", "reranker"};
    json_t *out =
        json_pack("{s:s,s:s,s:I,s:s,s:s,s:i,s:s,s:b}", "id", info->name, "object", "model",
                  "created", (json_int_t)info->created, "owned_by", "holdfast", "type",
                  kinds[info->kind], "context_length", info->n_ctx, "architecture",
                  info->arch ? info->arch : "", "thinks", (int)info->thinks);
    if (info->kind == HD_MODEL_ENCODER)
        json_object_set_new(out, "dimensions", json_integer(info->n_embd));
    return out;
}

/* MODEL@NAME, for clients that can only choose a model. */
static json_t *pair_json(const char *model, int64_t created, int n_ctx, const char *kb)
{
    char id[320];
    snprintf(id, sizeof id, "%s@%s", model, kb);
    return json_pack("{s:s,s:s,s:I,s:s,s:i,s:s,s:s}", "id", id, "object", "model", "created",
                     (json_int_t)created, "owned_by", "holdfast", "context_length", n_ctx, "model",
                     model, "knowledge_base", kb);
}

static void run_models(struct hd_api__call *call)
{
    struct hd_engine *engine = call->api->engine;
    struct hd_kb_names bases = {0};
    struct hd_errmsg msg = {0};
    struct hd_model_info info;
    size_t n = hd_engine_n_model(engine);
    enum hd_err err = hd_kb_list_bases(&bases, call->api->options.kb_dir, &call->who, &msg);
    if (err) {
        reply_err(call, err, &msg);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        if (!hd_engine_model_info(engine, i, &info))
            json_array_append_new(data, model_json(&info));
    for (size_t i = 0; i < n; i++)
        if (!hd_engine_model_info(engine, i, &info) && info.kind == HD_MODEL_LANGUAGE)
            for (size_t j = 0; j < bases.n; j++)
                json_array_append_new(
                    data, pair_json(info.name, info.created, info.n_ctx, bases.names[j]));
    bool quotes = !hd_api__has_language(engine);
    for (size_t j = 0; quotes && j < bases.n; j++)
        json_array_append_new(data, pair_json("none", 0, 0, bases.names[j]));
    hd_kb_names_dispose(&bases);
    hd_api__reply_json(call->http, 200, json_pack("{s:s,s:o}", "object", "list", "data", data));
}

void hd_api__models(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.run = run_models};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof like, api->quick, &like);
}

void hd_api__model(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_model_info info;
    struct hd_api__fault fault;
    const char *name = hd_http_request_var(request, "model");
    if (!hd_engine_model_find(api->engine, name, &info)) {
        hd_api__reply_json(request, 200, model_json(&info));
        return;
    }
    hd_api__fault(&fault, 404, "model_not_found", "model",
                  "the model \"%.100s\" is not loaded here", name);
    hd_api__reply_fault(api, request, &fault);
}

/* --- POST /tokenize and /detokenize
 * ------------------------------------------------------------------ */

struct token_params {
    const char *model, *content, *prompt, *text;
    json_t *tokens;
};
#define AT(member) offsetof(struct token_params, member)

static int bad_tokens(struct hd_api__fault *fault)
{
    return hd_api__fault(fault, 400, "invalid_type", "tokens",
                         "tokens: must be an array of token ids");
}

static int model_fault(struct hd_api__call *call, const char *name, struct hd_model_info *info,
                       struct hd_api__fault *fault)
{
    if (!hd_engine_model_find(call->api->engine, name, info))
        return 0;
    if (!atomic_load(&call->api->ready))
        return hd_api__fault(fault, 503, "loading", NULL,
                             "the server is still loading (GET /startupz tells how far)");
    return hd_api__fault(fault, 404, "model_not_found", "model",
                         "the model \"%.100s\" is not loaded here", name ? name : "");
}

static const struct hd_api__field tokenize_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"content", KIND_STRING, AT(content), 0, 0, 0},
    {"prompt", KIND_STRING, AT(prompt), 0, 0, 0},
    {"text", KIND_STRING, AT(text), 0, 0, 0},
};
const struct hd_api__schema hd_api__tokenize_schema = {
    tokenize_fields, sizeof tokenize_fields / sizeof *tokenize_fields};

static int tokenize(struct hd_api__call *call, json_t *root, struct hd_api__fault *fault)
{
    struct token_params p = {0};
    struct hd_model_info info;
    struct hd_errmsg msg = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = hd_api__fields(root, hd_api__tokenize_schema.fields, hd_api__tokenize_schema.n, &p, "",
                            fault);
    const char *text = p.content ? p.content : p.prompt ? p.prompt : p.text;
    if (!rc && !text)
        rc = hd_api__fault(fault, 400, "invalid_type", "content", "content: is missing");
    if (!rc)
        rc = model_fault(call, p.model, &info, fault);
    if (rc)
        return rc;
    enum hd_err err =
        hd_engine_tokenize(call->api->engine, info.name, text, strlen(text), &ids, &n, &msg);
    if (err)
        return hd_api__fault_err(fault, err, &msg);
    json_t *tokens = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(tokens, json_integer(ids[i]));
    free(ids);
    hd_api__reply_json(call->http, 200,
                       json_pack("{s:s,s:I,s:i,s:o}", "model", info.name, "count", (json_int_t)n,
                                 "max_model_len", info.n_ctx, "tokens", tokens));
    return 0;
}

static int take_tokens(int32_t **out, size_t *n, const json_t *array, struct hd_api__fault *fault)
{
    size_t i;
    json_t *id;
    if (!json_is_array(array))
        return bad_tokens(fault);
    *n = json_array_size(array);
    *out = calloc(*n ? *n : 1, sizeof **out);
    if (!*out)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    json_array_foreach(array, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return bad_tokens(fault);
        (*out)[i] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static const struct hd_api__field detokenize_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"tokens", KIND_JSON, AT(tokens), 0, 0, 0},
};
const struct hd_api__schema hd_api__detokenize_schema = {
    detokenize_fields, sizeof detokenize_fields / sizeof *detokenize_fields};

/* Tokens may end, or begin, inside a character: JSON has no bytes, so U+FFFD stands for those that
 * make none. New; NULL without memory. */
static json_t *whole_characters(const char *text)
{
    struct hd_buf out;
    size_t left = strlen(text), n;
    unsigned codepoint;
    char mark[4];
    hd_buf_init(&out, 4 * left + 1);
    for (const char *at = text; left; at += n, left -= n) {
        n = hd_utf8_decode(&codepoint, at, left, NULL);
        if (n) {
            hd_buf_append(&out, at, n);
            continue;
        }
        n = 1;
        hd_buf_append(&out, mark, hd_utf8_encode(mark, HD_UTF8_REPLACEMENT));
    }
    json_t *string = out.err ? NULL : json_stringn(hd_buf_str(&out), out.len);
    hd_buf_dispose(&out);
    return string;
}

static int detokenize(struct hd_api__call *call, json_t *root, struct hd_api__fault *fault)
{
    struct token_params p = {0};
    struct hd_model_info info;
    struct hd_errmsg msg = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    char *text = NULL;
    int rc = hd_api__fields(root, hd_api__detokenize_schema.fields, hd_api__detokenize_schema.n, &p,
                            "", fault);
    if (!rc)
        rc = take_tokens(&ids, &n, p.tokens, fault);
    if (!rc)
        rc = model_fault(call, p.model, &info, fault);
    if (!rc) {
        enum hd_err err = hd_engine_detokenize(call->api->engine, info.name, ids, n, &text, &msg);
        if (err)
            rc = hd_api__fault_err(fault, err, &msg);
        else
            hd_api__reply_json(
                call->http, 200,
                json_pack("{s:s,s:o}", "model", info.name, "content", whole_characters(text)));
    }
    free(text);
    free(ids);
    return rc;
}

static void with_body(struct hd_api__call *call,
                      int (*fn)(struct hd_api__call *, json_t *, struct hd_api__fault *))
{
    struct hd_api__fault fault;
    size_t len;
    json_t *root;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = hd_api__parse(&root, body, len, &fault);
    if (!rc)
        rc = fn(call, root, &fault);
    if (rc)
        hd_api__reply_fault(call->api, call->http, &fault);
    json_decref(root);
}

static void run_tokenize(struct hd_api__call *call)
{
    with_body(call, tokenize);
}

static void run_detokenize(struct hd_api__call *call)
{
    with_body(call, detokenize);
}

void hd_api__tokenize(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.run = run_tokenize};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof like, api->quick, &like);
}

void hd_api__detokenize(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.run = run_detokenize};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof like, api->quick, &like);
}
