/* Ollama's generating endpoints: POST /api/chat and /api/generate; ollama_routes.c has the rest.
 *
 * Requests become chat completions, except /api/generate with `raw` or `suffix`, which is a text
 * completion. Streams, the default, are JSON objects a line each. Options that only say where and
 * how a model is placed are accepted without effect, since that is decided when the server starts;
 * options that would change the answer and are not known here are refused.
 * Source: Ollama's public API reference (docs/api.md of its repository, MIT). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/surface.h"
#include "base/clock.h"

struct request {
    const char *model, *prompt, *suffix, *system, *template;
    json_t *messages, *tools, *format, *options, *think, *images, *context, *logprobs;
    bool stream, has_stream, raw;
    int top_logprobs;
};

#define AT(member) offsetof(struct request, member)

#define BOTH                                                                                       \
    {"model", KIND_STRING, AT(model), 0, 0, 0},                                                    \
        {"stream", KIND_BOOL, AT(stream), 0, 0, AT(has_stream)},                                   \
        {"format", KIND_JSON, AT(format), 0, 0, 0}, {"options", KIND_JSON, AT(options), 0, 0, 0},  \
        {"think", KIND_JSON, AT(think), 0, 0, 0}, {"logprobs", KIND_JSON, AT(logprobs), 0, 0, 0},  \
        {"top_logprobs", KIND_INT, AT(top_logprobs), 0, 20, 0},                                    \
    {                                                                                              \
        "keep_alive", KIND_ANY, 0, 0, 0, 0                                                         \
    }

static const struct hd_api__field chat_fields[] = {
    BOTH,
    {"messages", KIND_JSON, AT(messages), 0, 0, 0},
    {"tools", KIND_JSON, AT(tools), 0, 0, 0},
};
static const struct hd_api__field generate_fields[] = {
    BOTH,
    {"prompt", KIND_STRING, AT(prompt), 0, 0, 0},
    {"suffix", KIND_STRING, AT(suffix), 0, 0, 0},
    {"system", KIND_STRING, AT(system), 0, 0, 0},
    {"template", KIND_STRING, AT(template), 0, 0, 0},
    {"raw", KIND_BOOL, AT(raw), 0, 0, 0},
    {"images", KIND_JSON, AT(images), 0, 0, 0},
    {"context", KIND_JSON, AT(context), 0, 0, 0},
};
const struct hd_api__schema hd_api__ollama_chat_schema = {chat_fields,
                                                          sizeof chat_fields / sizeof *chat_fields};
const struct hd_api__schema hd_api__ollama_generate_schema = {
    generate_fields, sizeof generate_fields / sizeof *generate_fields};

static const struct hd_api__word words[] = {
    {"max_tokens", "options.num_predict"},
    {"repetition_penalty", "options.repeat_penalty"},
    {"response_format.json_schema", "format"},
    {"response_format", "format"},
    {"reasoning_effort", "think"},
    {"thinking", "think"},
};

/* --- options -------------------------------------------------------------------------------------
 */

static const struct option {
    const char *name;
    const char *ours; /* NULL: no effect, or only with the value that means "off" */
    double off;
    enum { OPTION_ASKS, OPTION_PLACES, OPTION_OFF } kind;
} options[] = {
    {"temperature", "temperature", 0, OPTION_ASKS},
    {"top_p", "top_p", 0, OPTION_ASKS},
    {"top_k", "top_k", 0, OPTION_ASKS},
    {"min_p", "min_p", 0, OPTION_ASKS},
    {"seed", "seed", 0, OPTION_ASKS},
    {"stop", "stop", 0, OPTION_ASKS},
    {"repeat_penalty", "repetition_penalty", 0, OPTION_ASKS},
    {"presence_penalty", "presence_penalty", 0, OPTION_ASKS},
    {"frequency_penalty", "frequency_penalty", 0, OPTION_ASKS},
    {"num_predict", "max_tokens", 0, OPTION_ASKS},
    {"num_ctx", NULL, 0, OPTION_PLACES},
    {"num_keep", NULL, 0, OPTION_PLACES},
    {"num_batch", NULL, 0, OPTION_PLACES},
    {"num_gpu", NULL, 0, OPTION_PLACES},
    {"num_thread", NULL, 0, OPTION_PLACES},
    {"main_gpu", NULL, 0, OPTION_PLACES},
    {"numa", NULL, 0, OPTION_PLACES},
    {"low_vram", NULL, 0, OPTION_PLACES},
    {"f16_kv", NULL, 0, OPTION_PLACES},
    {"use_mmap", NULL, 0, OPTION_PLACES},
    {"use_mlock", NULL, 0, OPTION_PLACES},
    {"tfs_z", NULL, 1, OPTION_OFF},
    {"typical_p", NULL, 1, OPTION_OFF},
    {"mirostat", NULL, 0, OPTION_OFF},
    {"repeat_last_n", NULL, -1, OPTION_OFF}, /* penalties look at the whole context */
};

static int take_option(json_t *chat, const char *key, json_t *value, struct hd_api__fault *fault)
{
    char param[80];
    size_t i = 0, n = sizeof options / sizeof *options;
    snprintf(param, sizeof param, "options.%s", key);
    while (i < n && strcmp(options[i].name, key))
        i++;
    if (i == n)
        return hd_api__fault(fault, 400, "unknown_parameter", param,
                             "%s: this option is not known here", param);
    if (json_is_null(value) || options[i].kind == OPTION_PLACES)
        return 0;
    if (options[i].kind == OPTION_OFF)
        return json_is_number(value) && json_number_value(value) == options[i].off
                   ? 0
                   : hd_api__unsupported(fault, param, "is not supported");
    /* Ollama's clients may send 40.0 where 40 is meant, and -1 or -2 for "no limit". */
    bool limit = !strcmp(key, "num_predict");
    if (limit && json_is_number(value) && json_number_value(value) < 0)
        return 0;
    json_object_set(chat, options[i].ours, value);
    return 0;
}

static int take_options(json_t *chat, json_t *given, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (given && !json_is_object(given))
        return hd_api__invalid(fault, "options", "must be an object");
    json_object_foreach(given, key, value)
    {
        int rc = take_option(chat, key, value, fault);
        if (rc)
            return rc;
    }
    return 0;
}

/* --- what both have ------------------------------------------------------------------------------
 */

static int take_format(json_t *chat, json_t *format, struct hd_api__fault *fault)
{
    if (!format || hd_api__is_word(format, ""))
        return 0;
    if (hd_api__is_word(format, "json"))
        json_object_set_new(chat, "response_format", json_pack("{s:s}", "type", "json_object"));
    else if (json_is_object(format))
        json_object_set_new(chat, "response_format",
                            json_pack("{s:s,s:{s:s,s:O}}", "type", "json_schema", "json_schema",
                                      "name", "answer", "schema", format));
    else
        return hd_api__invalid(fault, "format", "must be \"json\" or a JSON schema");
    return 0;
}

static int take_think(json_t *chat, json_t *think, struct hd_api__fault *fault)
{
    if (json_is_boolean(think))
        json_object_set_new(
            chat, "thinking",
            json_pack("{s:s}", "type", json_is_true(think) ? "enabled" : "disabled"));
    else if (json_is_string(think))
        json_object_set(chat, "reasoning_effort", think);
    else if (think)
        return hd_api__invalid(fault, "think",
                               "must be a boolean, or \"low\", \"medium\" or \"high\"");
    return 0;
}

static int take_both(json_t *out, const json_t *root, const struct request *r,
                     struct hd_api__fault *fault)
{
    hd_api__copy(out, NULL, root, "model");
    if (r->top_logprobs || (r->logprobs && !json_is_false(r->logprobs)))
        return hd_api__unsupported(fault, "logprobs",
                                   "are not given here; /v1/chat/completions has them");
    json_object_set_new(out, "stream", json_boolean(r->stream || !r->has_stream));
    int rc = take_options(out, r->options, fault);
    return rc ? rc : take_format(out, r->format, fault);
}

/* --- /api/chat -----------------------------------------------------------------------------------
 */

/* {"function":{"name","arguments":{…}}} with the arguments as JSON text, and an id. */
static json_t *take_calls(const json_t *calls)
{
    size_t i;
    json_t *call, *out = json_array();
    char id[32];
    json_array_foreach((json_t *)calls, i, call)
    {
        json_t *function = json_deep_copy(json_object_get(call, "function"));
        json_t *arguments = json_object_get(function, "arguments");
        if (json_is_object(arguments)) {
            char *text = json_dumps(arguments, JSON_COMPACT);
            json_object_set_new(function, "arguments", json_string(text ? text : "{}"));
            free(text);
        }
        json_object_del(function, "index");
        json_t *given = json_object_get(call, "id");
        snprintf(id, sizeof id, "call_%zu", i);
        json_array_append_new(
            out, json_pack("{s:o,s:s,s:o}", "id",
                           json_is_string(given) ? json_incref(given) : json_string(id), "type",
                           "function", "function", function ? function : json_object()));
    }
    return out;
}

static int take_message(json_t *out, json_t *message, size_t i, struct hd_api__fault *fault)
{
    char param[96];
    const char *key;
    json_t *value, *made;
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(message))
        return hd_api__invalid(fault, param, "must be an object");
    json_array_append_new(out, made = json_object());
    json_object_foreach(message, key, value)
    {
        snprintf(param, sizeof param, "messages[%zu].%.40s", i, key);
        if (json_is_null(value) || !strcmp(key, "thinking"))
            continue;
        if (!strcmp(key, "images") && json_array_size(value))
            return hd_api__unsupported(fault, param, "pictures are not supported");
        if (!strcmp(key, "tool_calls") && json_is_array(value))
            json_object_set_new(made, key, take_calls(value));
        else if (!strcmp(key, "tool_name"))
            json_object_set(made, "name", value);
        else if (strcmp(key, "images"))
            json_object_set(made, key, value);
    }
    if (!json_object_get(made, "content"))
        json_object_set_new(made, "content", json_string(""));
    return 0;
}

static int translate_chat(json_t *chat, const json_t *root, const struct request *r,
                          struct hd_api__fault *fault)
{
    size_t i;
    json_t *message, *out = json_array();
    json_object_set_new(chat, "messages", out);
    hd_api__copy(chat, NULL, root, "tools");
    if (!json_is_array(r->messages))
        return hd_api__invalid(fault, "messages", "must be an array");
    json_array_foreach(r->messages, i, message)
    {
        int rc = take_message(out, message, i, fault);
        if (rc)
            return rc;
    }
    int rc = take_think(chat, r->think, fault);
    return rc ? rc : take_both(chat, root, r, fault);
}

static int parse_chat(struct hd_api__params *out, const char *body, size_t len,
                      struct hd_api__fault *fault)
{
    struct request r = {0};
    json_t *root, *chat = json_object();
    int rc = hd_api__read_fields(&r, &root, body, len, &hd_api__ollama_chat_schema, fault);
    if (!rc)
        rc = translate_chat(chat, root, &r, fault);
    return hd_api__params_translated(out, rc, root, chat, true, words, sizeof words / sizeof *words,
                                     fault);
}

/* --- /api/generate -------------------------------------------------------------------------------
 */

static int translate_generate(json_t *out, const json_t *root, const struct request *r, bool chat,
                              struct hd_api__fault *fault)
{
    if (json_array_size(r->images))
        return hd_api__unsupported(fault, "images", "pictures are not supported");
    if (json_array_size(r->context))
        return hd_api__unsupported(fault, "context",
                                   "is not supported; send the conversation to /api/chat");
    if (r->template && *r->template)
        return hd_api__unsupported(fault, "template",
                                   "is not supported; send a prompt with \"raw\"");
    if (!r->prompt)
        return hd_api__invalid(fault, "prompt", "is missing");
    if (!chat) {
        hd_api__copy(out, NULL, root, "prompt");
        if (r->suffix && *r->suffix)
            hd_api__copy(out, NULL, root, "suffix");
        if (r->system && *r->system)
            return hd_api__unsupported(fault, "system", "not together with raw or suffix");
        return take_both(out, root, r, fault);
    }
    json_t *messages = json_array();
    json_object_set_new(out, "messages", messages);
    if (r->system && *r->system)
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", "system", "content", r->system));
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "user", "content", r->prompt));
    int rc = take_think(out, r->think, fault);
    return rc ? rc : take_both(out, root, r, fault);
}

static int parse_generate(struct hd_api__params *out, const char *body, size_t len,
                          struct hd_api__fault *fault)
{
    struct request r = {0};
    json_t *root, *request = json_object();
    int rc = hd_api__read_fields(&r, &root, body, len, &hd_api__ollama_generate_schema, fault);
    bool chat = !r.raw && !(r.suffix && *r.suffix);
    if (!rc)
        rc = translate_generate(request, root, &r, chat, fault);
    return hd_api__params_translated(out, rc, root, request, chat, words,
                                     sizeof words / sizeof *words, fault);
}

/* --- answers -------------------------------------------------------------------------------------
 */

static bool is_chat_route(const struct hd_api__gen *gen)
{
    return gen->surface == &hd_api__ollama_chat;
}

static json_t *line_json(const struct hd_api__gen *gen, bool done)
{
    char at[40];
    time_t now = (time_t)hd_clock_unix();
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_pack("{s:s,s:s,s:b}", "model", gen->model, "created_at", at, "done", (int)done);
}

static json_t *nanoseconds(double seconds)
{
    return json_integer((json_int_t)(seconds * 1e9));
}

static void add_end(const struct hd_api__gen *gen, json_t *line, json_t *grounds)
{
    static const char *const reasons[] = {"stop", "length", "stop"};
    const struct hd_result *r = &gen->c->result;
    json_object_set_new(line, "done_reason", json_string(reasons[hd_api__finish_of(gen)]));
    hd_api__add_reasoning_stop(gen, line);
    json_object_set_new(line, "total_duration", nanoseconds(hd_clock_seconds() - gen->started));
    json_object_set_new(line, "load_duration", json_integer(0));
    json_object_set_new(line, "prompt_eval_count", json_integer(r->n_prompt));
    json_object_set_new(line, "prompt_eval_duration", nanoseconds(r->prefill_s));
    json_object_set_new(line, "eval_count", json_integer(r->n_generated));
    json_object_set_new(line, "eval_duration", nanoseconds(r->decode_s));
    if (grounds)
        json_object_update(line, grounds);
}

/* The piece of an answer where this route has it; values are stolen, calls and thought nullable. */
static void add_piece(const struct hd_api__gen *gen, json_t *line, json_t *text, json_t *thought,
                      json_t *calls)
{
    json_t *holder = is_chat_route(gen) ? json_pack("{s:s}", "role", "assistant") : line;
    json_object_set_new(holder, is_chat_route(gen) ? "content" : "response", text);
    if (thought)
        json_object_set_new(holder, "thinking", thought);
    if (calls)
        json_object_set_new(holder, "tool_calls", calls);
    if (holder != line)
        json_object_set_new(line, "message", holder);
}

static void put_line(struct hd_buf *out, json_t *line)
{
    hd_api__put_dump(out, line);
    hd_buf_putc(out, '\n');
}

static void begin(struct hd_api__gen *gen, struct hd_buf *out)
{
}

static void put_text(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                     const char *text, size_t len)
{
    json_t *line = line_json(gen, false), *piece = json_stringn(text, len);
    if (kind == HD_TEXT_REASONING)
        add_piece(gen, line, json_string(""), piece, NULL);
    else
        add_piece(gen, line, piece, NULL, NULL);
    put_line(out, line);
}

/* With the arguments as an object, as Ollama has them. */
static json_t *call_json(const json_t *function, size_t index, const char *id)
{
    const char *text = json_string_value(json_object_get(function, "arguments"));
    json_t *arguments = text ? json_loads(text, 0, NULL) : NULL;
    if (!json_is_object(arguments)) {
        json_decref(arguments);
        arguments = text && *text ? json_pack("{s:s}", "arguments", text) : json_object();
    }
    return json_pack("{s:s,s:{s:I,s:O,s:o}}", "id", id, "function", "index", (json_int_t)index,
                     "name", json_object_get(function, "name"), "arguments", arguments);
}

static void put_call(struct hd_api__gen *gen, struct hd_buf *out,
                     const struct hd_api__tool_call *call)
{
    json_t *line = line_json(gen, false);
    add_piece(gen, line, json_string(""), NULL,
              json_pack("[o]", call_json(call->function, call->index, call->id)));
    put_line(out, line);
}

static void end(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds)
{
    json_t *line = line_json(gen, true);
    add_piece(gen, line, json_string(""), NULL, NULL);
    add_end(gen, line, grounds);
    put_line(out, line);
}

static void fail(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault)
{
    hd_api__put_error(out, gen->surface->pattern, fault->status, fault->code, fault->param,
                      fault->msg.text);
    hd_buf_putc(out, '\n');
}

static json_t *whole(struct hd_api__gen *gen, json_t *grounds)
{
    size_t i;
    json_t *call, *calls = gen->c->calls ? json_array() : NULL, *line = line_json(gen, true);
    json_array_foreach(gen->c->calls, i, call)
        json_array_append_new(calls, call_json(json_object_get(call, "function"), i,
                                               json_string_value(json_object_get(call, "id"))));
    add_piece(gen, line, json_stringn(hd_buf_str(&gen->c->answer), gen->c->answer.len),
              gen->c->reasoning.len ? json_stringn(gen->c->reasoning.data, gen->c->reasoning.len)
                                    : NULL,
              calls);
    add_end(gen, line, grounds);
    return line;
}

const struct hd_api__surface hd_api__ollama_chat = {
    .pattern = "/api/chat",
    .id_prefix = "",
    .call_prefix = "call_",
    .stream_type = "application/x-ndjson",
    .parse = parse_chat,
    .begin = begin,
    .text = put_text,
    .call = put_call,
    .end = end,
    .fail = fail,
    .whole = whole,
};

const struct hd_api__surface hd_api__ollama_generate = {
    .pattern = "/api/generate",
    .id_prefix = "",
    .call_prefix = "call_",
    .stream_type = "application/x-ndjson",
    .parse = parse_generate,
    .begin = begin,
    .text = put_text,
    .call = put_call,
    .end = end,
    .fail = fail,
    .whole = whole,
};
