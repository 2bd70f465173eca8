/* Knowledge bases: bases, documents, search. */
#include "api/api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "kb/kb.h"

static const char *base_name(const struct hd_api__call *call)
{
    return hd_http_request_var(call->http, "kb");
}

static int open_base(struct hd_api__call *call, struct hd_kb **kb, struct hd_api__fault *fault)
{
    struct hd_errmsg msg = {0};
    enum hd_err err =
        hd_kb_open(kb, call->api->options.kb_dir, &call->who, base_name(call), false, &msg);
    if (err == HD_ERR_NOTFOUND)
        return hd_api__fault(fault, 404, "knowledge_base_not_found", "knowledge_base", "%s",
                             msg.text);
    return err ? hd_api__fault_err(fault, err, &msg) : 0;
}

/* --- bases
 * ----------------------------------------------------------------------------------------- */

static json_t *base_json(struct hd_api__call *call, const char *name, struct hd_errmsg *msg)
{
    struct hd_kb *kb = NULL;
    struct hd_kb_info info;
    json_t *out = NULL;
    if (!hd_kb_open(&kb, call->api->options.kb_dir, &call->who, name, false, msg) &&
        !hd_kb_info(kb, &call->who, &info, msg))
        out =
            json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", name, "object", "knowledge_base",
                      "version", (json_int_t)info.version, "documents", (json_int_t)info.n_document,
                      "passages", (json_int_t)info.n_chunk, "codepoints",
                      (json_int_t)info.n_codepoint, "file_bytes", (json_int_t)info.file_bytes);
    hd_kb_close(kb);
    return out;
}

static int list_bases(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb_names bases = {0};
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_kb_list_bases(&bases, call->api->options.kb_dir, &call->who, &msg);
    if (err)
        return hd_api__fault_err(fault, err, &msg);
    json_t *data = json_array();
    for (size_t i = 0; i < bases.n; i++) {
        json_t *one = base_json(call, bases.names[i], &msg);
        if (one) /* removed in between: no longer listed */
            json_array_append_new(data, one);
    }
    hd_kb_names_dispose(&bases);
    hd_api__reply_json(call->http, 200, json_pack("{s:s,s:o}", "object", "list", "data", data));
    return 0;
}

struct name_params {
    const char *name;
};

static const struct hd_api__field create_fields[] = {
    {"name", KIND_STRING, offsetof(struct name_params, name), 0, 0, 0}};
const struct hd_api__schema hd_api__kb_create_schema = {create_fields, sizeof create_fields /
                                                                           sizeof *create_fields};

static int create_base(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct name_params p = {0};
    struct hd_errmsg msg = {0};
    size_t len;
    json_t *root;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = hd_api__parse(&root, body, len, fault);
    if (!rc)
        rc = hd_api__fields(root, hd_api__kb_create_schema.fields, hd_api__kb_create_schema.n, &p,
                            "", fault);
    if (!rc && !p.name)
        rc = hd_api__fault(fault, 400, "invalid_type", "name", "name: is missing");
    if (!rc) {
        enum hd_err err = hd_kb_create(call->api->options.kb_dir, &call->who, p.name, &msg);
        json_t *made = err ? NULL : base_json(call, p.name, &msg);
        if (made)
            hd_api__reply_json(call->http, 201, made);
        else
            rc = hd_api__fault_err(fault, err ? err : HD_ERR_INTERNAL, &msg);
    }
    json_decref(root);
    return rc;
}

static int base_info(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb *kb = NULL;
    struct hd_errmsg msg = {0};
    int rc = open_base(call, &kb, fault);
    hd_kb_close(kb);
    if (rc)
        return rc;
    json_t *info = base_json(call, base_name(call), &msg);
    if (!info)
        return hd_api__fault_err(fault, HD_ERR_INTERNAL, &msg);
    hd_api__reply_json(call->http, 200, info);
    return 0;
}

static int delete_base(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_kb_destroy(call->api->options.kb_dir, &call->who, base_name(call), &msg);
    if (err)
        return hd_api__fault_err(fault, err, &msg);
    hd_api__reply_json(call->http, 200,
                       json_pack("{s:s,s:s,s:b}", "id", base_name(call), "object",
                                 "knowledge_base.deleted", "deleted", 1));
    return 0;
}

/* --- documents
 * ------------------------------------------------------------------------------------- */

static int list_documents(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb *kb = NULL;
    struct hd_kb_documents documents = {0};
    struct hd_errmsg msg = {0};
    int rc = open_base(call, &kb, fault);
    if (rc)
        return rc;
    enum hd_err err = hd_kb_list(kb, &call->who, &documents, &msg);
    if (err)
        rc = hd_api__fault_err(fault, err, &msg);
    else
        hd_api__reply_json(call->http, 200, hd_kb_documents_json(&documents));
    hd_kb_documents_dispose(&documents);
    hd_kb_close(kb);
    return rc;
}

static int take_id(const struct hd_api__call *call, int64_t *out, struct hd_api__fault *fault)
{
    const char *text = hd_http_request_var(call->http, "id");
    size_t n = strlen(text);
    if (!n || n > 18 || strspn(text, "0123456789") != n)
        return hd_api__fault(fault, 404, "document_not_found", "id",
                             "\"%.40s\" is not a document's id", text);
    *out = strtoll(text, NULL, 10);
    return 0;
}

/* The stored text, so that a citation can be shown in its place. */
static int show_document(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb *kb = NULL;
    struct hd_errmsg msg = {0};
    int64_t id = 0;
    char *text = NULL;
    int rc = take_id(call, &id, fault);
    if (!rc)
        rc = open_base(call, &kb, fault);
    if (rc)
        return rc;
    enum hd_err err = hd_kb_text(kb, &call->who, id, &text, &msg);
    if (err)
        rc = hd_api__fault_err(fault, err, &msg);
    else
        hd_api__reply_json(call->http, 200,
                           json_pack("{s:I,s:s,s:s}", "id", (json_int_t)id, "object",
                                     "knowledge_base.document", "text", text));
    free(text);
    hd_kb_close(kb);
    return rc;
}

static int add_one(struct hd_api__call *call, struct hd_kb *kb, const char *name, const void *data,
                   size_t len, json_t *added, struct hd_api__fault *fault)
{
    struct hd_errmsg msg = {0};
    int64_t id = 0;
    if (!name || !*name)
        return hd_api__fault(fault, 400, "invalid_type", "name", "name: is missing");
    enum hd_err err = hd_kb_add_bytes(kb, &call->who, name, data, len, NULL, &id, &msg);
    if (err)
        return hd_api__fault_err(fault, err, &msg);
    json_array_append_new(added, json_pack("{s:I,s:s}", "id", (json_int_t)id, "name", name));
    return 0;
}

struct document_params {
    const char *name, *text;
};

static const struct hd_api__field add_fields[] = {
    {"name", KIND_STRING, offsetof(struct document_params, name), 0, 0, 0},
    {"text", KIND_STRING, offsetof(struct document_params, text), 0, 0, 0},
};
const struct hd_api__schema hd_api__kb_add_schema = {add_fields,
                                                     sizeof add_fields / sizeof *add_fields};

static int add_json(struct hd_api__call *call, struct hd_kb *kb, json_t *added,
                    struct hd_api__fault *fault)
{
    struct document_params p = {0};
    size_t len;
    json_t *root;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = hd_api__parse(&root, body, len, fault);
    if (!rc)
        rc = hd_api__fields(root, hd_api__kb_add_schema.fields, hd_api__kb_add_schema.n, &p, "",
                            fault);
    if (!rc && !p.text)
        rc = hd_api__fault(fault, 400, "invalid_type", "text", "text: is missing");
    if (!rc)
        rc = add_one(call, kb, p.name, p.text, strlen(p.text), added, fault);
    json_decref(root);
    return rc;
}

static int add_upload(struct hd_api__call *call, struct hd_kb *kb, json_t *added,
                      struct hd_api__fault *fault)
{
    struct hd_http_parts parts;
    struct hd_errmsg msg = {0};
    size_t len;
    int rc = 0;
    const char *body = hd_http_request_body(call->http, &len);
    if (hd_http_multipart_parse(&parts, call->content_type, body, len, &msg))
        return hd_api__fault(fault, 400, "invalid_multipart", NULL, "%s", msg.text);
    for (size_t i = 0; !rc && i < parts.n; i++)
        if (*parts.part[i].filename)
            rc = add_one(call, kb, parts.part[i].filename, parts.part[i].data, parts.part[i].len,
                         added, fault);
    if (!rc && !json_array_size(added))
        rc = hd_api__fault(fault, 400, "invalid_multipart", "file",
                           "multipart: no part is a file (a part named \"file\" with a filename)");
    hd_http_parts_dispose(&parts);
    return rc;
}

static int add_documents(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb *kb = NULL;
    double started = hd_clock_seconds();
    int rc = open_base(call, &kb, fault);
    if (rc)
        return rc;
    json_t *added = json_array();
    bool upload = call->content_type && !strncasecmp(call->content_type, "multipart/form-data", 19);
    rc = upload ? add_upload(call, kb, added, fault) : add_json(call, kb, added, fault);
    hd_kb_close(kb);
    hd_metrics_observe(call->api->metrics, M_KB_STAGE, HD_LABELS("add"),
                       hd_clock_seconds() - started);
    if (rc)
        json_decref(added);
    else
        hd_api__reply_json(call->http, 201,
                           json_pack("{s:s,s:o}", "object", "list", "data", added));
    return rc;
}

static int remove_document(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_kb *kb = NULL;
    struct hd_errmsg msg = {0};
    int64_t id = 0;
    int rc = take_id(call, &id, fault);
    if (!rc)
        rc = open_base(call, &kb, fault);
    if (rc)
        return rc;
    enum hd_err err = hd_kb_remove_id(kb, &call->who, id, &msg);
    hd_kb_close(kb);
    if (err)
        return hd_api__fault_err(fault, err, &msg);
    hd_api__reply_json(call->http, 200,
                       json_pack("{s:I,s:s,s:b}", "id", (json_int_t)id, "object",
                                 "knowledge_base.document.deleted", "deleted", 1));
    return 0;
}

/* --- search
 * ---------------------------------------------------------------------------------------- */

struct search_params {
    const char *query;
    int top;
    bool passages;
};

static const struct hd_api__field search_fields[] = {
    {"query", KIND_STRING, offsetof(struct search_params, query), 0, 0, 0},
    {"top", KIND_INT, offsetof(struct search_params, top), 1, 1000, 0},
    {"passages", KIND_BOOL, offsetof(struct search_params, passages), 0, 0, 0},
};
const struct hd_api__schema hd_api__kb_search_schema = {search_fields, sizeof search_fields /
                                                                           sizeof *search_fields};

static int search(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct search_params p = {.top = 10};
    struct hd_kb *kb = NULL;
    struct hd_kb_hits hits = {0};
    struct hd_errmsg msg = {0};
    double started = hd_clock_seconds();
    size_t len;
    json_t *root;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = hd_api__parse(&root, body, len, fault);
    if (!rc)
        rc = hd_api__fields(root, hd_api__kb_search_schema.fields, hd_api__kb_search_schema.n, &p,
                            "", fault);
    if (!rc && !p.query)
        rc = hd_api__fault(fault, 400, "invalid_type", "query", "query: is missing");
    if (!rc)
        rc = open_base(call, &kb, fault);
    if (!rc) {
        struct hd_kb_search_options options = {.top = (size_t)p.top, .passages = p.passages};
        enum hd_err err = hd_kb_search(kb, &call->who, p.query, &options, &hits, &msg);
        if (err)
            rc = hd_api__fault_err(fault, err, &msg);
        else
            hd_api__reply_json(call->http, 200, hd_kb_hits_json(&hits));
    }
    hd_metrics_observe(call->api->metrics, M_KB_STAGE, HD_LABELS("search"),
                       hd_clock_seconds() - started);
    hd_kb_hits_dispose(&hits);
    hd_kb_close(kb);
    json_decref(root);
    return rc;
}

/* --- handlers
 * -------------------------------------------------------------------------------------- */

#define HANDLER(name, pool, fn)                                                                    \
    void name(struct hd_http_request *request, void *ud)                                           \
    {                                                                                              \
        static const struct hd_api__call like = {.run = hd_api__run_work, .work = fn};             \
        struct hd_api *api = ud;                                                                   \
        hd_api__call_start(api, request, sizeof like, api->pool, &like);                           \
    }

HANDLER(hd_api__kb_list, quick, list_bases)
HANDLER(hd_api__kb_create, slow, create_base)
HANDLER(hd_api__kb_info, quick, base_info)
HANDLER(hd_api__kb_delete, slow, delete_base)
HANDLER(hd_api__kb_documents, quick, list_documents)
HANDLER(hd_api__kb_document, quick, show_document)
HANDLER(hd_api__kb_add, slow, add_documents)
HANDLER(hd_api__kb_remove, slow, remove_document)
HANDLER(hd_api__kb_search, quick, search)
