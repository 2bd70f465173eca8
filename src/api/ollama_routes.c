/* What Ollama's clients ask besides text: GET /api/tags, /api/ps and /api/version, POST /api/show.
 *
 * Only facts: what is not known here (a digest, a parameter count, when a model will be unloaded)
 * is left out. Every listed model is loaded; models stay loaded until the server ends. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/api_impl.h"

static json_t *details_json(const struct hd_model_info *info)
{
    size_t n = strlen(info->path);
    bool gguf = n > 5 && !strcmp(info->path + n - 5, ".gguf");
    const char *arch = info->arch ? info->arch : "";
    return json_pack("{s:s,s:s,s:s,s:[s]}", "parent_model", "", "format",
                     gguf ? "gguf" : "safetensors", "family", arch, "families", arch);
}

static json_t *time_json(int64_t seconds)
{
    char text[40];
    time_t at = (time_t)seconds;
    struct tm tm;
    gmtime_r(&at, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static json_t *model_json(const struct hd_model_info *info, bool running)
{
    json_t *out = json_pack("{s:s,s:s,s:I,s:o}", "name", info->name, "model", info->name, "size",
                            (json_int_t)info->file_bytes, "details", details_json(info));
    if (running) {
        json_object_set_new(out, "size_vram", json_integer(0));
        json_object_set_new(out, "context_length", json_integer(info->n_ctx));
    } else {
        json_object_set_new(out, "modified_at", time_json(info->created));
    }
    return out;
}

/* /api/tags, and /api/ps: the same models. */
void hd_api__ollama_tags(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_model_info info;
    bool running = !strcmp(hd_http_request_pattern(request), "/api/ps");
    json_t *list = json_array();
    for (size_t i = 0; i < hd_engine_n_model(api->engine); i++)
        if (!hd_engine_model_info(api->engine, i, &info))
            json_array_append_new(list, model_json(&info, running));
    hd_api__reply_json(request, 200, json_pack("{s:o}", "models", list));
}

void hd_api__ollama_version(struct hd_http_request *request, void *ud)
{
    hd_api__reply_json(request, 200, json_pack("{s:s}", "version", HOLDFAST_VERSION));
}

struct show_params {
    const char *model, *name;
};
static const struct hd_api__field fields[] = {
    {"model", KIND_STRING, offsetof(struct show_params, model), 0, 0, 0},
    {"name", KIND_STRING, offsetof(struct show_params, name), 0, 0, 0},
    {"verbose", KIND_ANY, 0, 0, 0, 0},
};
const struct hd_api__schema hd_api__ollama_show_schema = {fields, sizeof fields / sizeof *fields};

static void add_number(json_t *out, const struct hd_model_info *info, const char *name, int value)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", info->arch ? info->arch : "model", name);
    json_object_set_new(out, key, json_integer(value));
}

static json_t *show_json(const struct hd_model_info *info)
{
    json_t *facts = json_pack("{s:s}", "general.architecture", info->arch ? info->arch : "");
    json_t *can = json_array();
    add_number(facts, info, "context_length", info->n_ctx);
    add_number(facts, info, "embedding_length", info->n_embd);
    add_number(facts, info, "block_count", info->n_layer);
    if (info->kind == HD_MODEL_LANGUAGE) {
        json_array_append_new(can, json_string("completion"));
        if (info->chat_form && *info->chat_form && strcmp(info->chat_form, "none"))
            json_array_append_new(can, json_string("tools"));
        if (info->thinks)
            json_array_append_new(can, json_string("thinking"));
    } else if (info->kind == HD_MODEL_ENCODER) {
        json_array_append_new(can, json_string("embedding"));
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "details", details_json(info), "model_info", facts,
                     "capabilities", can, "modified_at", time_json(info->created));
}

static int show(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct show_params p = {0};
    struct hd_model_info info;
    size_t len;
    json_t *root;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = hd_api__parse(&root, body, len, fault);
    if (!rc)
        rc = hd_api__fields(root, fields, sizeof fields / sizeof *fields, &p, "", fault);
    const char *name = p.model ? p.model : p.name;
    if (!rc && !name)
        rc = hd_api__fault(fault, 400, "invalid_type", "model", "model: is missing");
    if (!rc && hd_api__model_find(call->api->engine, name, &info))
        rc = hd_api__fault(fault, 404, "model_not_found", "model",
                           "the model \"%.100s\" is not loaded here", name);
    if (!rc)
        hd_api__reply_json(call->http, 200, show_json(&info));
    json_decref(root);
    return rc;
}

void hd_api__ollama_show(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.run = hd_api__run_work, .work = show};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof like, api->quick, &like);
}
