/* OpenAI's Responses API: POST /v1/responses.
 *
 * Requests become chat completions: `instructions` a first system message, items of `input`
 * messages, calls and their results. Nothing is stored, so what refers to an earlier response is
 * refused, and every response says "store": false. A stream numbers its events and tells each
 * item's and each part's beginning, pieces and end; the response itself comes whole at the end.
 * Source: OpenAI's public API reference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/surface.h"

struct request {
    const char *model, *instructions, *knowledge_base, *truncation, *previous_response_id;
    json_t *input, *tools, *tool_choice, *text, *reasoning, *include, *conversation, *prompt;
    json_t *max_tool_calls, *stream_options;
    bool stream, background;
    float temperature, top_p;
    int max_output_tokens, top_logprobs;
    uint64_t seed;
};

#define AT(member) offsetof(struct request, member)

static const struct hd_api__field fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"input", KIND_JSON, AT(input), 0, 0, 0},
    {"instructions", KIND_STRING, AT(instructions), 0, 0, 0},
    {"stream", KIND_BOOL, AT(stream), 0, 0, 0},
    {"stream_options", KIND_JSON, AT(stream_options), 0, 0, 0},
    {"temperature", KIND_FLOAT, AT(temperature), 0, 2, 0},
    {"top_p", KIND_FLOAT, AT(top_p), 0, 1, 0},
    {"seed", KIND_U64, AT(seed), -9.2e18, 9.2e18, 0},
    {"max_output_tokens", KIND_INT, AT(max_output_tokens), 1, 10000000, 0},
    {"tools", KIND_JSON, AT(tools), 0, 0, 0},
    {"tool_choice", KIND_JSON, AT(tool_choice), 0, 0, 0},
    {"text", KIND_JSON, AT(text), 0, 0, 0},
    {"reasoning", KIND_JSON, AT(reasoning), 0, 0, 0},
    {"include", KIND_JSON, AT(include), 0, 0, 0},
    {"truncation", KIND_STRING, AT(truncation), 0, 0, 0},
    {"knowledge_base", KIND_STRING, AT(knowledge_base), 0, 0, 0},
    {"top_logprobs", KIND_INT, AT(top_logprobs), 0, 0, 0},
    {"background", KIND_BOOL, AT(background), 0, 0, 0},
    {"previous_response_id", KIND_STRING, AT(previous_response_id), 0, 0, 0},
    {"conversation", KIND_JSON, AT(conversation), 0, 0, 0},
    {"prompt", KIND_JSON, AT(prompt), 0, 0, 0},
    {"max_tool_calls", KIND_JSON, AT(max_tool_calls), 0, 0, 0},
    {"parallel_tool_calls", KIND_ANY, 0, 0, 0, 0},
    {"metadata", KIND_ANY, 0, 0, 0, 0},
    {"store", KIND_ANY, 0, 0, 0, 0},
    {"user", KIND_ANY, 0, 0, 0, 0},
    {"safety_identifier", KIND_ANY, 0, 0, 0, 0},
    {"prompt_cache_key", KIND_ANY, 0, 0, 0, 0},
    {"service_tier", KIND_ANY, 0, 0, 0, 0},
};
const struct hd_api__schema hd_api__responses_schema = {fields, sizeof fields / sizeof *fields};

static const struct hd_api__word words[] = {
    {"max_completion_tokens", "max_output_tokens"}, {".function.", "."},
    {"response_format.json_schema", "text.format"}, {"response_format", "text.format"},
    {"reasoning_effort", "reasoning.effort"},       {"messages", "input"},
};

/* --- input ---------------------------------------------------------------------------------------
 */

static int take_content(json_t **out, json_t *content, const char *param,
                        struct hd_api__fault *fault)
{
    size_t i;
    json_t *part;
    *out = NULL;
    if (json_is_string(content)) {
        *out = json_incref(content);
        return 0;
    }
    if (!json_is_array(content))
        return hd_api__invalid(fault, param, "must be a string or an array of parts");
    json_t *parts = json_array();
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type");
        json_t *text = json_object_get(part, "text");
        bool is_text = hd_api__is_word(type, "input_text") || hd_api__is_word(type, "output_text");
        if (!is_text || !json_is_string(text)) {
            json_decref(parts);
            return hd_api__unsupported(fault, param,
                                       "only parts of type \"input_text\" and \"output_text\" are "
                                       "supported");
        }
        json_array_append_new(parts, json_pack("{s:s,s:O}", "type", "text", "text", text));
    }
    *out = parts;
    return 0;
}

static int take_message(json_t *out, const json_t *item, const char *param,
                        struct hd_api__fault *fault)
{
    char name[80];
    json_t *role = json_object_get(item, "role"), *content;
    snprintf(name, sizeof name, "%s.role", param);
    if (!hd_api__is_word(role, "user") && !hd_api__is_word(role, "assistant") &&
        !hd_api__is_word(role, "system") && !hd_api__is_word(role, "developer"))
        return hd_api__invalid(fault, name, "user, assistant, system or developer");
    snprintf(name, sizeof name, "%s.content", param);
    int rc = take_content(&content, json_object_get(item, "content"), name, fault);
    if (!rc)
        json_array_append_new(out, json_pack("{s:O,s:o}", "role", role, "content", content));
    return rc;
}

/* Calls join the assistant's message before them. */
static int take_call(json_t *out, const json_t *item, const char *param,
                     struct hd_api__fault *fault)
{
    json_t *id = json_object_get(item, "call_id"), *name = json_object_get(item, "name");
    json_t *arguments = json_object_get(item, "arguments");
    if (!json_is_string(id) || !json_is_string(name) || !json_is_string(arguments))
        return hd_api__invalid(fault, param,
                               "a function_call has call_id, name and arguments, texts");
    size_t n = json_array_size(out);
    json_t *last = n ? json_array_get(out, n - 1) : NULL;
    if (!hd_api__is_word(json_object_get(last, "role"), "assistant")) {
        last = json_pack("{s:s}", "role", "assistant");
        json_array_append_new(out, last);
    }
    if (!json_object_get(last, "tool_calls"))
        json_object_set_new(last, "tool_calls", json_array());
    json_array_append_new(json_object_get(last, "tool_calls"),
                          json_pack("{s:O,s:s,s:{s:O,s:O}}", "id", id, "type", "function",
                                    "function", "name", name, "arguments", arguments));
    return 0;
}

static int take_output(json_t *out, const json_t *item, const char *param,
                       struct hd_api__fault *fault)
{
    char name[80];
    json_t *id = json_object_get(item, "call_id"), *content;
    snprintf(name, sizeof name, "%s.call_id", param);
    if (!json_is_string(id))
        return hd_api__invalid(fault, name, "must be a string");
    snprintf(name, sizeof name, "%s.output", param);
    int rc = take_content(&content, json_object_get(item, "output"), name, fault);
    if (!rc)
        json_array_append_new(out, json_pack("{s:s,s:O,s:o}", "role", "tool", "tool_call_id", id,
                                             "content", content));
    return rc;
}

static int take_item(json_t *out, const json_t *item, size_t i, struct hd_api__fault *fault)
{
    const json_t *type = json_object_get(item, "type");
    char param[48];
    snprintf(param, sizeof param, "input[%zu]", i);
    if (!json_is_object(item))
        return hd_api__invalid(fault, param, "must be an object");
    if (!type || hd_api__is_word(type, "message"))
        return take_message(out, item, param, fault);
    if (hd_api__is_word(type, "function_call"))
        return take_call(out, item, param, fault);
    if (hd_api__is_word(type, "function_call_output"))
        return take_output(out, item, param, fault);
    if (hd_api__is_word(type, "reasoning")) /* templates drop earlier thoughts */
        return 0;
    return hd_api__unsupported(
        fault, param,
        "only items of type message, function_call, function_call_output and "
        "reasoning are supported");
}

static int take_input(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    size_t i;
    json_t *item, *out = json_array();
    json_object_set_new(chat, "messages", out);
    if (r->instructions && *r->instructions)
        json_array_append_new(out,
                              json_pack("{s:s,s:s}", "role", "system", "content", r->instructions));
    if (!r->input)
        return hd_api__invalid(fault, "input", "is missing");
    if (json_is_string(r->input)) {
        json_array_append_new(out, json_pack("{s:s,s:O}", "role", "user", "content", r->input));
        return 0;
    }
    if (!json_is_array(r->input) || !json_array_size(r->input))
        return hd_api__invalid(fault, "input",
                               "must be a string, or an array with at least one item");
    json_array_foreach(r->input, i, item)
    {
        int rc = take_item(out, item, i, fault);
        if (rc)
            return rc;
    }
    return 0;
}

/* --- the rest of a request -----------------------------------------------------------------------
 */

static int take_tools(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    static const char *const members[] = {"name", "description", "parameters", "strict"};
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
        snprintf(param, sizeof param, "tools[%zu].type", i);
        if (!hd_api__is_word(json_object_get(tool, "type"), "function"))
            return hd_api__unsupported(fault, param, "only functions (\"function\") are supported");
        json_t *function = json_object();
        for (size_t k = 0; k < sizeof members / sizeof *members; k++)
            hd_api__copy(function, NULL, tool, members[k]);
        json_array_append_new(out,
                              json_pack("{s:s,s:o}", "type", "function", "function", function));
    }
    return 0;
}

static void take_choice(json_t *chat, const struct request *r)
{
    json_t *name = json_object_get(r->tool_choice, "name");
    if (hd_api__is_word(json_object_get(r->tool_choice, "type"), "function") && name)
        json_object_set_new(
            chat, "tool_choice",
            json_pack("{s:s,s:{s:O}}", "type", "function", "function", "name", name));
    else if (r->tool_choice)
        json_object_set(chat, "tool_choice", r->tool_choice);
}

/* text.format: {"type":"json_schema","name","schema",…} is flatter than response_format. */
static int take_text(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (r->text && !json_is_object(r->text))
        return hd_api__invalid(fault, "text", "must be an object");
    json_object_foreach(r->text, key, value)
    {
        if (!strcmp(key, "verbosity") && (json_is_null(value) || hd_api__is_word(value, "medium")))
            continue;
        if (strcmp(key, "format"))
            return hd_api__unsupported(fault, "text", "only format is supported");
        if (!hd_api__is_word(json_object_get(value, "type"), "json_schema")) {
            json_object_set(chat, "response_format", value);
            continue;
        }
        json_t *schema = json_copy(value);
        json_object_del(schema, "type");
        json_object_set_new(chat, "response_format",
                            json_pack("{s:s,s:o}", "type", "json_schema", "json_schema", schema));
    }
    return 0;
}

static int take_reasoning(json_t *chat, const struct request *r, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (r->reasoning && !json_is_object(r->reasoning))
        return hd_api__invalid(fault, "reasoning", "must be an object");
    json_object_foreach(r->reasoning, key, value)
    {
        if (!strcmp(key, "effort"))
            hd_api__copy(chat, "reasoning_effort", r->reasoning, "effort");
        else if (strcmp(key, "summary") && strcmp(key, "generate_summary"))
            return hd_api__unsupported(fault, "reasoning",
                                       "only effort and summary are known here");
    }
    return 0;
}

static int refuse_unsupported(const struct request *r, struct hd_api__fault *fault)
{
    size_t i;
    json_t *value;
    if (r->previous_response_id)
        return hd_api__unsupported(fault, "previous_response_id",
                                   "responses are not stored; send the earlier items in input");
    if (r->conversation)
        return hd_api__unsupported(fault, "conversation",
                                   "is not supported; send its items in input");
    if (r->prompt)
        return hd_api__unsupported(fault, "prompt", "stored prompts are not supported");
    if (r->background)
        return hd_api__unsupported(fault, "background", "is not supported");
    if (r->max_tool_calls)
        return hd_api__unsupported(fault, "max_tool_calls", "no tools run here");
    if (r->include && !json_is_array(r->include))
        return hd_api__invalid(fault, "include", "must be an array");
    json_array_foreach(r->include, i, value)
    {
        if (!hd_api__is_word(value, "reasoning.encrypted_content"))
            return hd_api__unsupported(
                fault, "include",
                "only \"reasoning.encrypted_content\" is accepted (thoughts come "
                "as text, not encrypted)");
    }
    if (r->stream_options && !json_is_object(r->stream_options))
        return hd_api__invalid(fault, "stream_options", "must be an object");
    return 0;
}

static int translate(json_t *chat, const json_t *root, const struct request *r,
                     struct hd_api__fault *fault)
{
    static const char *const same[] = {"model", "stream",         "temperature", "top_p",
                                       "seed",  "knowledge_base", "truncation"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        hd_api__copy(chat, NULL, root, same[i]);
    hd_api__copy(chat, "max_completion_tokens", root, "max_output_tokens");
    int rc = refuse_unsupported(r, fault);
    if (!rc)
        rc = take_input(chat, r, fault);
    if (!rc)
        rc = take_tools(chat, r, fault);
    if (!rc)
        rc = take_text(chat, r, fault);
    if (!rc)
        take_choice(chat, r);
    return rc ? rc : take_reasoning(chat, r, fault);
}

static int parse(struct hd_api__params *out, const char *body, size_t len,
                 struct hd_api__fault *fault)
{
    struct request r = {0};
    json_t *root, *chat = json_object();
    int rc = hd_api__read_fields(&r, &root, body, len, &hd_api__responses_schema, fault);
    if (!rc)
        rc = translate(chat, root, &r, fault);
    return hd_api__params_translated(out, rc, root, chat, true, words, sizeof words / sizeof *words,
                                     fault);
}

/* --- items of an answer --------------------------------------------------------------------------
 */

static void item_id(const struct hd_api__gen *gen, const char *prefix, size_t n, char out[64])
{
    snprintf(out, 64, "%s%s%02zu", prefix, gen->digits, n);
}

static json_t *text_part(const char *text, size_t len)
{
    return json_pack("{s:s,s:o,s:[],s:[]}", "type", "output_text", "text", json_stringn(text, len),
                     "annotations", "logprobs");
}

static json_t *reasoning_part(const char *text, size_t len)
{
    return json_pack("{s:s,s:o}", "type", "reasoning_text", "text", json_stringn(text, len));
}

/* content: stolen; an array of parts. */
static json_t *message_item(const struct hd_api__gen *gen, size_t n, const char *status,
                            json_t *content)
{
    char id[64];
    item_id(gen, "msg_", n, id);
    return json_pack("{s:s,s:s,s:s,s:s,s:o}", "id", id, "type", "message", "status", status, "role",
                     "assistant", "content", content);
}

static json_t *reasoning_item(const struct hd_api__gen *gen, size_t n, const char *status,
                              json_t *content)
{
    char id[64];
    item_id(gen, "rs_", n, id);
    return json_pack("{s:s,s:s,s:s,s:[],s:o}", "id", id, "type", "reasoning", "status", status,
                     "summary", "content", content);
}

static json_t *call_item(const struct hd_api__gen *gen, size_t n, const char *status,
                         const char *call_id, const json_t *function, bool whole)
{
    char id[64];
    json_t *arguments = json_object_get(function, "arguments");
    item_id(gen, "fc_", n, id);
    return json_pack("{s:s,s:s,s:s,s:s,s:O,s:o}", "id", id, "type", "function_call", "status",
                     status, "call_id", call_id, "name", json_object_get(function, "name"),
                     "arguments", whole && arguments ? json_incref(arguments) : json_string(""));
}

/* --- the response --------------------------------------------------------------------------------
 */

static json_t *usage_json(const struct hd_result *r)
{
    return json_pack("{s:i,s:{s:i},s:i,s:{s:i},s:i}", "input_tokens", r->n_prompt,
                     "input_tokens_details", "cached_tokens", r->n_cached, "output_tokens",
                     r->n_generated, "output_tokens_details", "reasoning_tokens", r->n_reasoning,
                     "total_tokens", r->n_prompt + r->n_generated);
}

/* A member of the request as it came, or what stands for its absence; steals absent. */
static json_t *asked(const struct hd_api__gen *gen, const char *name, json_t *absent)
{
    json_t *value = json_object_get(gen->params.original, name);
    if (!value || json_is_null(value))
        return absent;
    json_decref(absent);
    return json_incref(value);
}

/* Steals output; usage nullable. */
static json_t *response_json(const struct hd_api__gen *gen, const char *status, json_t *output,
                             json_t *usage)
{
    json_t *body = json_pack("{s:s,s:s,s:I,s:s,s:s,s:o,s:b,s:b,s:n,s:n,s:n}", "id", gen->id,
                             "object", "response", "created_at", (json_int_t)gen->created, "status",
                             status, "model", gen->model, "output", output, "background", 0,
                             "store", 0, "error", "incomplete_details", "previous_response_id");
    json_object_set_new(body, "instructions", asked(gen, "instructions", json_null()));
    json_object_set_new(body, "max_output_tokens", asked(gen, "max_output_tokens", json_null()));
    json_object_set_new(body, "temperature", asked(gen, "temperature", json_null()));
    json_object_set_new(body, "top_p", asked(gen, "top_p", json_null()));
    json_object_set_new(body, "tools", asked(gen, "tools", json_array()));
    json_object_set_new(body, "tool_choice", asked(gen, "tool_choice", json_string("auto")));
    json_object_set_new(body, "parallel_tool_calls",
                        asked(gen, "parallel_tool_calls", json_true()));
    json_object_set_new(body, "reasoning",
                        asked(gen, "reasoning", json_pack("{s:n,s:n}", "effort", "summary")));
    json_object_set_new(body, "text",
                        asked(gen, "text", json_pack("{s:{s:s}}", "format", "type", "text")));
    json_object_set_new(body, "metadata", asked(gen, "metadata", json_object()));
    json_object_set_new(body, "truncation", asked(gen, "truncation", json_string("disabled")));
    json_object_set_new(body, "usage", usage ? usage : json_null());
    return body;
}

static json_t *finished_json(const struct hd_api__gen *gen, json_t *output, json_t *grounds)
{
    bool cut = hd_api__finish_of(gen) == HD_API_FINISH_LENGTH;
    json_t *body =
        response_json(gen, cut ? "incomplete" : "completed", output, usage_json(&gen->c->result));
    if (cut)
        json_object_set_new(body, "incomplete_details",
                            json_pack("{s:s}", "reason", "max_output_tokens"));
    if (gen->c->result.n_dropped)
        json_object_set_new(body, "dropped_messages", json_integer(gen->c->result.n_dropped));
    hd_api__add_reasoning_stop(gen, body);
    if (grounds)
        json_object_update(body, grounds);
    return body;
}

static json_t *whole(struct hd_api__gen *gen, json_t *grounds)
{
    size_t i, n = 0;
    json_t *call, *output = json_array();
    const char *status =
        hd_api__finish_of(gen) == HD_API_FINISH_LENGTH ? "incomplete" : "completed";
    if (gen->c->reasoning.len)
        json_array_append_new(
            output, reasoning_item(gen, n++, "completed",
                                   json_pack("[o]", reasoning_part(gen->c->reasoning.data,
                                                                   gen->c->reasoning.len))));
    if (gen->c->answer.len || !gen->c->n_call)
        json_array_append_new(output,
                              message_item(gen, n++, status,
                                           json_pack("[o]", text_part(hd_buf_str(&gen->c->answer),
                                                                      gen->c->answer.len))));
    json_array_foreach(gen->c->calls, i, call) json_array_append_new(
        output, call_item(gen, n++, "completed", json_string_value(json_object_get(call, "id")),
                          json_object_get(call, "function"), true));
    return finished_json(gen, output, grounds);
}

/* --- streaming -----------------------------------------------------------------------------------
 *
 * block.open says which item has begun, block.n how many have, block.list which have ended;
 * gen->c->answer and gen->c->reasoning hold the open item's text. */

enum { ITEM_NONE, ITEM_REASONING, ITEM_MESSAGE };

/* data: stolen. */
static void event(struct hd_api__gen *gen, struct hd_buf *out, const char *name, json_t *data)
{
    json_object_set_new(data, "type", json_string(name));
    json_object_set_new(data, "sequence_number", json_integer(gen->n_event));
    hd_api__event_json(gen, out, name, data);
}

static void begin(struct hd_api__gen *gen, struct hd_buf *out)
{
    static const char *const names[] = {"response.created", "response.in_progress"};
    for (size_t i = 0; i < 2; i++)
        event(
            gen, out, names[i],
            json_pack("{s:o}", "response", response_json(gen, "in_progress", json_array(), NULL)));
    gen->block.list = json_array();
}

/* An event about the open item: its id and place are added. */
static void item_event(struct hd_api__gen *gen, struct hd_buf *out, const char *name, json_t *data)
{
    char id[64];
    size_t n = gen->block.n - 1;
    item_id(gen, gen->block.open == ITEM_REASONING ? "rs_" : "msg_", n, id);
    json_object_set_new(data, "item_id", json_string(id));
    json_object_set_new(data, "output_index", json_integer((json_int_t)n));
    json_object_set_new(data, "content_index", json_integer(0));
    event(gen, out, name, data);
}

static void item_edge(struct hd_api__gen *gen, struct hd_buf *out, const char *name, size_t n,
                      json_t *item)
{
    event(gen, out, name, json_pack("{s:I,s:o}", "output_index", (json_int_t)n, "item", item));
}

static void item_open(struct hd_api__gen *gen, struct hd_buf *out, int kind)
{
    bool thought = kind == ITEM_REASONING;
    size_t n = gen->block.n++;
    gen->block.open = kind;
    hd_buf_clear(thought ? &gen->c->reasoning : &gen->c->answer);
    item_edge(gen, out, "response.output_item.added", n,
              thought ? reasoning_item(gen, n, "in_progress", json_array())
                      : message_item(gen, n, "in_progress", json_array()));
    item_event(gen, out, "response.content_part.added",
               json_pack("{s:o}", "part", thought ? reasoning_part("", 0) : text_part("", 0)));
}

static void item_close(struct hd_api__gen *gen, struct hd_buf *out, const char *status)
{
    bool thought = gen->block.open == ITEM_REASONING;
    const struct hd_buf *text = thought ? &gen->c->reasoning : &gen->c->answer;
    if (!gen->block.open)
        return;
    json_t *part = thought ? reasoning_part(hd_buf_str(text), text->len)
                           : text_part(hd_buf_str(text), text->len);
    json_t *done = json_pack("{s:o}", "text", json_stringn(hd_buf_str(text), text->len));
    if (!thought)
        json_object_set_new(done, "logprobs", json_array());
    item_event(gen, out, thought ? "response.reasoning_text.done" : "response.output_text.done",
               done);
    item_event(gen, out, "response.content_part.done", json_pack("{s:O}", "part", part));
    size_t n = gen->block.n - 1;
    json_t *item = thought ? reasoning_item(gen, n, status, json_pack("[o]", part))
                           : message_item(gen, n, status, json_pack("[o]", part));
    json_array_append(gen->block.list, item);
    item_edge(gen, out, "response.output_item.done", n, item);
    gen->block.open = ITEM_NONE;
}

static void put_text(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                     const char *text, size_t len)
{
    bool thought = kind == HD_TEXT_REASONING;
    int wanted = thought ? ITEM_REASONING : ITEM_MESSAGE;
    if (gen->block.open != wanted) {
        item_close(gen, out, "completed");
        item_open(gen, out, wanted);
    }
    hd_buf_append(thought ? &gen->c->reasoning : &gen->c->answer, text, len);
    json_t *data = json_pack("{s:o}", "delta", json_stringn(text, len));
    if (!thought)
        json_object_set_new(data, "logprobs", json_array());
    item_event(gen, out, thought ? "response.reasoning_text.delta" : "response.output_text.delta",
               data);
}

static void put_call(struct hd_api__gen *gen, struct hd_buf *out,
                     const struct hd_api__tool_call *call)
{
    char id[64];
    item_close(gen, out, "completed");
    size_t n = gen->block.n++;
    json_t *arguments = json_object_get(call->function, "arguments");
    json_t *item = call_item(gen, n, "completed", call->id, call->function, true);
    item_id(gen, "fc_", n, id);
    item_edge(gen, out, "response.output_item.added", n,
              call_item(gen, n, "in_progress", call->id, call->function, false));
    event(gen, out, "response.function_call_arguments.delta",
          json_pack("{s:s,s:I,s:O}", "item_id", id, "output_index", (json_int_t)n, "delta",
                    arguments));
    event(gen, out, "response.function_call_arguments.done",
          json_pack("{s:s,s:I,s:O,s:O}", "item_id", id, "output_index", (json_int_t)n, "name",
                    json_object_get(call->function, "name"), "arguments", arguments));
    json_array_append(gen->block.list, item);
    item_edge(gen, out, "response.output_item.done", n, item);
}

static void end(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds)
{
    bool cut = hd_api__finish_of(gen) == HD_API_FINISH_LENGTH;
    if (!gen->block.n)
        item_open(gen, out, ITEM_MESSAGE);
    item_close(gen, out, cut ? "incomplete" : "completed");
    event(
        gen, out, cut ? "response.incomplete" : "response.completed",
        json_pack("{s:o}", "response", finished_json(gen, json_incref(gen->block.list), grounds)));
}

static void fail(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault)
{
    json_t *body = response_json(gen, "failed", json_incref(gen->block.list), NULL);
    json_object_set_new(body, "error",
                        json_pack("{s:s,s:s}", "code", fault->code ? fault->code : "server_error",
                                  "message", fault->msg.text));
    event(gen, out, "response.failed", json_pack("{s:o}", "response", body));
}

const struct hd_api__surface hd_api__responses = {
    .pattern = "/v1/responses",
    .id_prefix = "resp_",
    .call_prefix = "call_",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = parse,
    .begin = begin,
    .text = put_text,
    .call = put_call,
    .end = end,
    .fail = fail,
    .whole = whole,
};
