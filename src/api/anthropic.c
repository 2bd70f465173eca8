/* Anthropic's Messages API: POST /v1/messages and /v1/messages/count_tokens.
 *
 * Requests become chat completions: `system` a first message, a tool_result a message of role tool,
 * a tool_use a call, input_schema a function's parameters. Thoughts that come back are dropped, as
 * the models' templates drop them. A stream is message_start, for each block of content its start,
 * deltas and stop, then message_delta and message_stop.
 * Source: Anthropic's public API reference, version 2023-06-01. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/surface.h"

struct request {
    const char *model;
    json_t *messages, *system, *stop_sequences, *tools, *tool_choice, *thinking, *output_config;
    bool stream;
    float temperature, top_p;
    int max_tokens, top_k;
};

#define AT(member) offsetof(struct request, member)

static const struct hd_api__field fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"messages", KIND_JSON, AT(messages), 0, 0, 0},
    {"max_tokens", KIND_INT, AT(max_tokens), 1, 10000000, 0},
    {"system", KIND_JSON, AT(system), 0, 0, 0},
    {"stop_sequences", KIND_JSON, AT(stop_sequences), 0, 0, 0},
    {"stream", KIND_BOOL, AT(stream), 0, 0, 0},
    {"temperature", KIND_FLOAT, AT(temperature), 0, 1, 0},
    {"top_p", KIND_FLOAT, AT(top_p), 0, 1, 0},
    {"top_k", KIND_INT, AT(top_k), 0, 1000000, 0},
    {"tools", KIND_JSON, AT(tools), 0, 0, 0},
    {"tool_choice", KIND_JSON, AT(tool_choice), 0, 0, 0},
    {"thinking", KIND_JSON, AT(thinking), 0, 0, 0},
    {"output_config", KIND_JSON, AT(output_config), 0, 0, 0},
    {"metadata", KIND_ANY, 0, 0, 0, 0},
    {"service_tier", KIND_ANY, 0, 0, 0, 0},
    {"cache_control", KIND_ANY, 0, 0, 0, 0},
};
const struct hd_api__schema hd_api__anthropic_schema = {fields, sizeof fields / sizeof *fields};

static const struct hd_api__field count_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"messages", KIND_JSON, AT(messages), 0, 0, 0},
    {"system", KIND_JSON, AT(system), 0, 0, 0},
    {"tools", KIND_JSON, AT(tools), 0, 0, 0},
    {"tool_choice", KIND_JSON, AT(tool_choice), 0, 0, 0},
    {"thinking", KIND_JSON, AT(thinking), 0, 0, 0},
    {"output_config", KIND_JSON, AT(output_config), 0, 0, 0},
    {"cache_control", KIND_ANY, 0, 0, 0, 0},
};
const struct hd_api__schema hd_api__anthropic_count_schema = {
    count_fields, sizeof count_fields / sizeof *count_fields};

static const struct hd_api__word words[] = {
    {".function.parameters", ".input_schema"},
    {".function.", "."},
    {"stop", "stop_sequences"},
    {"response_format.json_schema", "output_config.format"},
    {"response_format", "output_config.format"},
    {"reasoning_effort", "output_config.effort"},
};

/* --- messages ------------------------------------------------------------------------------------
 */

/* What the blocks of one message amount to. */
struct turn {
    json_t *parts, *calls;
    const char *role;
};

static json_t *text_part(const json_t *text)
{
    return json_pack("{s:s,s:O}", "type", "text", "text", text);
}

/* A string, or an array of text blocks, as a message's content; new. */
static int take_text(json_t **out, json_t *content, const char *param, struct hd_api__fault *fault)
{
    size_t i;
    json_t *block;
    *out = NULL;
    if (json_is_string(content)) {
        *out = json_incref(content);
        return 0;
    }
    if (!json_is_array(content))
        return hd_api__invalid(fault, param, "must be a string or an array of text blocks");
    json_t *parts = json_array();
    json_array_foreach(content, i, block)
    {
        json_t *text = json_object_get(block, "text");
        if (!hd_api__is_word(json_object_get(block, "type"), "text") || !json_is_string(text)) {
            json_decref(parts);
            return hd_api__invalid(fault, param, "only blocks of type \"text\" are supported here");
        }
        json_array_append_new(parts, text_part(text));
    }
    *out = parts;
    return 0;
}

static int take_result(json_t *out, const json_t *block, const char *param,
                       struct hd_api__fault *fault)
{
    char name[128];
    json_t *id = json_object_get(block, "tool_use_id");
    json_t *given = json_object_get(block, "content"), *content;
    snprintf(name, sizeof name, "%s.tool_use_id", param);
    if (!json_is_string(id))
        return hd_api__invalid(fault, name, "must be a string");
    snprintf(name, sizeof name, "%s.content", param);
    int rc = 0;
    if (given)
        rc = take_text(&content, given, name, fault);
    else
        content = json_string("");
    if (!rc)
        json_array_append_new(out, json_pack("{s:s,s:O,s:o}", "role", "tool", "tool_call_id", id,
                                             "content", content));
    return rc;
}

static int take_use(struct turn *turn, const json_t *block, const char *param,
                    struct hd_api__fault *fault)
{
    json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name");
    json_t *input = json_object_get(block, "input");
    if (!json_is_string(id) || !json_is_string(name) || !json_is_object(input))
        return hd_api__invalid(fault, param,
                               "{\"type\":\"tool_use\",\"id\",\"name\",\"input\":{…}}");
    char *arguments = json_dumps(input, JSON_COMPACT);
    json_array_append_new(turn->calls, json_pack("{s:O,s:s,s:{s:O,s:s}}", "id", id, "type",
                                                 "function", "function", "name", name, "arguments",
                                                 arguments ? arguments : "{}"));
    free(arguments);
    return 0;
}

static int take_block(json_t *out, struct turn *turn, const json_t *block, const char *param,
                      struct hd_api__fault *fault)
{
    const json_t *type = json_object_get(block, "type");
    json_t *text = json_object_get(block, "text");
    bool assistant = !strcmp(turn->role, "assistant");
    if (hd_api__is_word(type, "text") && json_is_string(text)) {
        json_array_append_new(turn->parts, text_part(text));
        return 0;
    }
    if (hd_api__is_word(type, "tool_result") && !assistant)
        return take_result(out, block, param, fault);
    if (hd_api__is_word(type, "tool_use") && assistant)
        return take_use(turn, block, param, fault);
    if (assistant &&
        (hd_api__is_word(type, "thinking") || hd_api__is_word(type, "redacted_thinking")))
        return 0;
    return hd_api__fault(fault, 400, "unsupported_value", param,
                         "%s: a block of type text%s is expected; pictures and files are not "
                         "supported",
                         param, assistant ? ", tool_use or thinking" : " or tool_result");
}

static int take_blocks(json_t *out, struct turn *turn, json_t *blocks, const char *param,
                       struct hd_api__fault *fault)
{
    size_t i;
    json_t *block;
    char name[96];
    int rc = 0;
    json_array_foreach(blocks, i, block)
    {
        snprintf(name, sizeof name, "%s[%zu]", param, i);
        rc = take_block(out, turn, block, name, fault);
        if (rc)
            return rc;
    }
    bool calls = json_array_size(turn->calls) > 0, text = json_array_size(turn->parts) > 0;
    if (!text && !calls && !strcmp(turn->role, "user"))
        return json_array_size(blocks) ? 0 : hd_api__invalid(fault, param, "must not be empty");
    json_t *message = json_pack("{s:s}", "role", turn->role);
    if (text || !calls)
        json_object_set(message, "content", turn->parts);
    if (calls)
        json_object_set(message, "tool_calls", turn->calls);
    json_array_append_new(out, message);
    return 0;
}

static int take_message(json_t *out, const json_t *message, size_t i, struct hd_api__fault *fault)
{
    const json_t *role = json_object_get(message, "role");
    json_t *content = json_object_get(message, "content");
    char param[64];
    snprintf(param, sizeof param, "messages[%zu].role", i);
    if (!hd_api__is_word(role, "user") && !hd_api__is_word(role, "assistant"))
        return hd_api__invalid(fault, param,
                               "\"user\" or \"assistant\" (system is a field of its own)");
    snprintf(param, sizeof param, "messages[%zu].content", i);
    if (json_is_string(content)) {
        json_array_append_new(out, json_pack("{s:O,s:O}", "role", role, "content", content));
        return 0;
    }
    if (!json_is_array(content))
        return hd_api__invalid(fault, param, "must be a string or an array of blocks");
    struct turn turn = {json_array(), json_array(), json_string_value(role)};
    int rc = take_blocks(out, &turn, content, param, fault);
    json_decref(turn.parts);
    json_decref(turn.calls);
    return rc;
}

static int take_messages(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    size_t i, n = json_array_size(r->messages);
    json_t *message, *out = json_array(), *content;
    json_object_set_new(chat, "messages", out);
    if (!json_is_array(r->messages) || !n)
        return hd_api__invalid(fault, "messages", "must be an array with at least one message");
    if (r->system) {
        int rc = take_text(&content, r->system, "system", fault);
        if (rc)
            return rc;
        json_array_append_new(out, json_pack("{s:s,s:o}", "role", "system", "content", content));
    }
    json_array_foreach(r->messages, i, message)
    {
        int rc = take_message(out, message, i, fault);
        if (rc)
            return rc;
    }
    if (hd_api__is_word(json_object_get(json_array_get(r->messages, n - 1), "role"), "assistant"))
        return hd_api__fault(fault, 400, "unsupported_value", "messages",
                             "messages: the last one must be the user's; the beginning of an "
                             "answer cannot be given");
    return 0;
}

/* --- the rest of a request -----------------------------------------------------------------------
 */

static int take_tools(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    size_t i;
    json_t *tool, *out;
    char param[48];
    if (!r->tools)
        return 0;
    if (!json_is_array(r->tools))
        return hd_api__invalid(fault, "tools", "must be an array");
    json_object_set_new(chat, "tools", out = json_array());
    json_array_foreach(r->tools, i, tool)
    {
        const json_t *type = json_object_get(tool, "type");
        json_t *function = json_object();
        snprintf(param, sizeof param, "tools[%zu].type", i);
        if (type && !json_is_null(type) && !hd_api__is_word(type, "custom")) {
            json_decref(function);
            return hd_api__fault(fault, 400, "unsupported_value", param,
                                 "%s: only the client's own functions (\"custom\") are supported",
                                 param);
        }
        hd_api__copy(function, NULL, tool, "name");
        hd_api__copy(function, NULL, tool, "description");
        hd_api__copy(function, "parameters", tool, "input_schema");
        hd_api__copy(function, NULL, tool, "strict");
        json_array_append_new(out,
                              json_pack("{s:s,s:o}", "type", "function", "function", function));
    }
    return 0;
}

static int take_choice(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    static const struct hd_api__word kinds[] = {
        {"auto", "auto"}, {"required", "any"}, {"none", "none"}};
    const json_t *type = json_object_get(r->tool_choice, "type");
    if (!r->tool_choice)
        return 0;
    for (size_t i = 0; i < 3; i++)
        if (hd_api__is_word(type, kinds[i].theirs)) {
            json_object_set_new(chat, "tool_choice", json_string(kinds[i].ours));
            return 0;
        }
    json_t *name = json_object_get(r->tool_choice, "name");
    if (!hd_api__is_word(type, "tool") || !json_is_string(name))
        return hd_api__invalid(fault, "tool_choice",
                               "{\"type\":\"auto\"}, \"any\", \"none\", or \"tool\" with a name");
    json_object_set_new(chat, "tool_choice",
                        json_pack("{s:s,s:{s:O}}", "type", "function", "function", "name", name));
    return 0;
}

static int take_thinking(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    const json_t *type = json_object_get(r->thinking, "type");
    bool enabled = hd_api__is_word(type, "enabled") || hd_api__is_word(type, "adaptive");
    if (!r->thinking)
        return 0;
    if (!enabled && !hd_api__is_word(type, "disabled"))
        return hd_api__invalid(
            fault, "thinking",
            "{\"type\":\"enabled\",\"budget_tokens\":N}, \"adaptive\" or \"disabled\"");
    json_t *out = json_pack("{s:s}", "type", enabled ? "enabled" : "disabled");
    if (enabled)
        hd_api__copy(out, NULL, r->thinking, "budget_tokens");
    json_object_set_new(chat, "thinking", out);
    return 0;
}

static int take_output(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (r->output_config && !json_is_object(r->output_config))
        return hd_api__invalid(fault, "output_config", "must be an object");
    json_object_foreach(r->output_config, key, value)
    {
        json_t *schema = json_object_get(value, "schema");
        if (!strcmp(key, "effort")) {
            json_object_set_new(chat, "reasoning_effort",
                                hd_api__is_word(value, "max") ? json_string("xhigh")
                                                              : json_incref(value));
        } else if (!strcmp(key, "format")) {
            if (!hd_api__is_word(json_object_get(value, "type"), "json_schema") || !schema)
                return hd_api__invalid(fault, "output_config.format",
                                       "{\"type\":\"json_schema\",\"schema\":{…}}");
            json_object_set_new(chat, "response_format",
                                json_pack("{s:s,s:{s:s,s:O}}", "type", "json_schema", "json_schema",
                                          "name", "answer", "schema", schema));
        } else {
            return hd_api__invalid(fault, "output_config", "only effort and format are known here");
        }
    }
    return 0;
}

static int translate(json_t *chat, const json_t *root, const struct request *r,
                     struct hd_api__fault *fault)
{
    static const char *const same[] = {"model", "stream", "temperature",
                                       "top_p", "top_k",  "max_tokens"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        hd_api__copy(chat, NULL, root, same[i]);
    hd_api__copy(chat, "stop", root, "stop_sequences");
    int rc = take_messages(chat, r, fault);
    if (!rc)
        rc = take_tools(chat, r, fault);
    if (!rc)
        rc = take_choice(chat, r, fault);
    if (!rc)
        rc = take_thinking(chat, r, fault);
    return rc ? rc : take_output(chat, r, fault);
}

static int parse_with(struct hd_api__params *out, const char *body, size_t len,
                      const struct hd_api__schema *schema, struct hd_api__fault *fault)
{
    struct request r = {0};
    json_t *root, *chat = json_object();
    int rc = hd_api__read_fields(&r, &root, body, len, schema, fault);
    if (!rc && !r.max_tokens && schema == &hd_api__anthropic_schema)
        rc = hd_api__invalid(fault, "max_tokens", "is missing");
    if (!rc)
        rc = translate(chat, root, &r, fault);
    return hd_api__params_translated(out, rc, root, chat, true, words, sizeof words / sizeof *words,
                                     fault);
}

static int parse(struct hd_api__params *out, const char *body, size_t len,
                 struct hd_api__fault *fault)
{
    return parse_with(out, body, len, &hd_api__anthropic_schema, fault);
}

/* --- answers -------------------------------------------------------------------------------------
 */

static json_t *usage_json(const struct hd_result *r)
{
    return json_pack("{s:i,s:i,s:i,s:i}", "input_tokens", r->n_prompt - r->n_cached,
                     "cache_creation_input_tokens", 0, "cache_read_input_tokens", r->n_cached,
                     "output_tokens", r->n_generated);
}

/* The one that ended the answer, or NULL. */
static const char *stop_sequence(const struct hd_api__gen *gen)
{
    size_t by = gen->c->has_result ? gen->c->result.stopped_by : 0;
    bool stop = by && by <= gen->params.n_stop && hd_api__finish_of(gen) == HD_API_FINISH_STOP;
    return stop ? gen->params.stop[by - 1] : NULL;
}

static const char *stop_reason(const struct hd_api__gen *gen)
{
    static const char *const names[] = {"end_turn", "max_tokens", "tool_use"};
    return stop_sequence(gen) ? "stop_sequence" : names[hd_api__finish_of(gen)];
}

static json_t *stop_sequence_json(const struct hd_api__gen *gen)
{
    return stop_sequence(gen) ? json_string(stop_sequence(gen)) : json_null();
}

/* {"name","arguments"} as {"type","id","name","input"}. A model may write what is no JSON object;
 * its text is then one member, so that nothing is lost. */
static json_t *use_json(const json_t *function, const char *id, bool with_input)
{
    const char *text = json_string_value(json_object_get(function, "arguments"));
    json_t *input = with_input && text ? json_loads(text, 0, NULL) : NULL;
    if (with_input && !json_is_object(input)) {
        json_decref(input);
        input = text && *text ? json_pack("{s:s}", "arguments", text) : NULL;
    }
    return json_pack("{s:s,s:s,s:O,s:o}", "type", "tool_use", "id", id, "name",
                     json_object_get(function, "name"), "input", input ? input : json_object());
}

static json_t *whole(struct hd_api__gen *gen, json_t *grounds)
{
    size_t i;
    json_t *call, *content = json_array();
    if (gen->c->reasoning.len)
        json_array_append_new(content,
                              json_pack("{s:s,s:o,s:s}", "type", "thinking", "thinking",
                                        json_stringn(gen->c->reasoning.data, gen->c->reasoning.len),
                                        "signature", ""));
    if (gen->c->answer.len || !gen->c->n_call)
        json_array_append_new(
            content, json_pack("{s:s,s:o}", "type", "text", "text",
                               json_stringn(hd_buf_str(&gen->c->answer), gen->c->answer.len)));
    json_array_foreach(gen->c->calls, i, call) json_array_append_new(
        content, use_json(json_object_get(call, "function"),
                          json_string_value(json_object_get(call, "id")), true));
    json_t *body = json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:o,s:o}", "id", gen->id, "type", "message",
                             "role", "assistant", "model", gen->model, "content", content,
                             "stop_reason", stop_reason(gen), "stop_sequence",
                             stop_sequence_json(gen), "usage", usage_json(&gen->c->result));
    hd_api__add_reasoning_stop(gen, body);
    if (grounds)
        json_object_update(body, grounds);
    return body;
}

/* --- streaming
 * ------------------------------------------------------------------------------------ */

enum { BLOCK_NONE, BLOCK_THINKING, BLOCK_TEXT };

static void block_close(struct hd_api__gen *gen, struct hd_buf *out)
{
    if (gen->block.open)
        hd_api__event_json(gen, out, "content_block_stop",
                           json_pack("{s:s,s:I}", "type", "content_block_stop", "index",
                                     (json_int_t)gen->block.n - 1));
    gen->block.open = BLOCK_NONE;
}

static void block_start(struct hd_api__gen *gen, struct hd_buf *out, json_t *block)
{
    hd_api__event_json(gen, out, "content_block_start",
                       json_pack("{s:s,s:I,s:o}", "type", "content_block_start", "index",
                                 (json_int_t)gen->block.n++, "content_block", block));
}

static void block_delta(struct hd_api__gen *gen, struct hd_buf *out, json_t *delta)
{
    hd_api__event_json(gen, out, "content_block_delta",
                       json_pack("{s:s,s:I,s:o}", "type", "content_block_delta", "index",
                                 (json_int_t)gen->block.n - 1, "delta", delta));
}

static void block_open(struct hd_api__gen *gen, struct hd_buf *out, int kind)
{
    if (gen->block.open == kind)
        return;
    block_close(gen, out);
    block_start(gen, out,
                kind == BLOCK_THINKING ? json_pack("{s:s,s:s,s:s}", "type", "thinking", "thinking",
                                                   "", "signature", "")
                                       : json_pack("{s:s,s:s}", "type", "text", "text", ""));
    gen->block.open = kind;
}

static void begin(struct hd_api__gen *gen, struct hd_buf *out)
{
    const struct hd_result none = {0}; /* the prompt is counted by then, but known at the end */
    json_t *message = json_pack("{s:s,s:s,s:s,s:s,s:[],s:n,s:n,s:o}", "id", gen->id, "type",
                                "message", "role", "assistant", "model", gen->model, "content",
                                "stop_reason", "stop_sequence", "usage", usage_json(&none));
    hd_api__event_json(gen, out, "message_start",
                       json_pack("{s:s,s:o}", "type", "message_start", "message", message));
    hd_api__event_json(gen, out, "ping", json_pack("{s:s}", "type", "ping"));
}

static void put_text(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                     const char *text, size_t len)
{
    bool thought = kind == HD_TEXT_REASONING;
    block_open(gen, out, thought ? BLOCK_THINKING : BLOCK_TEXT);
    block_delta(gen, out,
                json_pack("{s:s,s:o}", "type", thought ? "thinking_delta" : "text_delta",
                          thought ? "thinking" : "text", json_stringn(text, len)));
}

static void put_call(struct hd_api__gen *gen, struct hd_buf *out,
                     const struct hd_api__tool_call *call)
{
    json_t *use = use_json(call->function, call->id, true);
    char *input = json_dumps(json_object_get(use, "input"), JSON_COMPACT);
    block_close(gen, out);
    block_start(gen, out, use_json(call->function, call->id, false));
    block_delta(
        gen, out,
        json_pack("{s:s,s:s}", "type", "input_json_delta", "partial_json", input ? input : "{}"));
    gen->block.open = BLOCK_TEXT; /* any: it ends here */
    block_close(gen, out);
    free(input);
    json_decref(use);
}

static void end(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds)
{
    if (!gen->block.n) /* an answer has at least one block, though it be empty */
        block_open(gen, out, BLOCK_TEXT);
    block_close(gen, out);
    json_t *delta = json_pack("{s:s,s:o}", "stop_reason", stop_reason(gen), "stop_sequence",
                              stop_sequence_json(gen));
    hd_api__add_reasoning_stop(gen, delta);
    json_t *data = json_pack("{s:s,s:o,s:o}", "type", "message_delta", "delta", delta, "usage",
                             usage_json(&gen->c->result));
    if (grounds)
        json_object_update(data, grounds);
    hd_api__event_json(gen, out, "message_delta", data);
    hd_api__event_json(gen, out, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static void fail(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault)
{
    hd_api__event_open(gen, out, "error");
    hd_api__put_error(out, gen->surface->pattern, fault->status, fault->code, fault->param,
                      fault->msg.text);
    hd_buf_puts(out, "\n\n");
}

const struct hd_api__surface hd_api__anthropic_messages = {
    .pattern = "/v1/messages",
    .id_prefix = "msg_",
    .call_prefix = "toolu_",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = parse,
    .begin = begin,
    .text = put_text,
    .call = put_call,
    .end = end,
    .fail = fail,
    .whole = whole,
};

/* --- POST /v1/messages/count_tokens --------------------------------------------------------------
 */

static int count(struct hd_api__call *call, struct hd_api__fault *fault)
{
    struct hd_api__params p = {0};
    struct hd_model_info info;
    struct hd_request request;
    struct hd_errmsg msg = {0};
    size_t len, n;
    const char *body = hd_http_request_body(call->http, &len);
    int rc = parse_with(&p, body, len, &hd_api__anthropic_count_schema, fault);
    if (!rc)
        rc = hd_api__params_split(&p, call->api->engine, fault);
    if (!rc)
        rc = hd_api__find_language(call->api, p.model, &info, fault);
    if (!rc) {
        hd_api__params_request(&p, &info, &call->who, &request);
        enum hd_err err = hd_engine_count_tokens(call->api->engine, &n, &request, &msg);
        rc = err ? hd_api__submit_fault(err, &msg, "messages", fault) : 0;
    }
    if (!rc)
        hd_api__reply_json(call->http, 200, json_pack("{s:I}", "input_tokens", (json_int_t)n));
    hd_api__params_dispose(&p);
    return rc;
}

void hd_api__count_tokens(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.run = hd_api__run_work, .work = count};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof like, api->quick, &like);
}
