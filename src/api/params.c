/* The bodies of /v1/chat/completions and /v1/completions.
 *
 * Fields of OpenAI's API that change nothing here are accepted where that is harmless ("user",
 * "metadata", …); fields that would change the answer are accepted only with the value that means
 * "off"; everything else is refused by name. docs/api.md lists them all. */
#include "api/api_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_MESSAGES = 4096,
    MAX_TOKENS = 10000000,
    MAX_STOP_BYTES = 1000,
    MAX_TOOLS = 128,
    MAX_N = HD_ANSWERS_MAX
};

/* What is checked and then dropped. */
struct raw {
    struct hd_api__params p; /* first */
    json_t *messages, *prompt, *stop, *stream_options, *logit_bias, *response_format, *tools;
    json_t *functions, *tool_choice, *modalities, *thinking, *template_kwargs, *logprobs;
    json_t *parallel;
    const char *reasoning_effort, *truncation, *grammar, *suffix;
    bool loop_detection, has_loop_detection, has_max_thinking;
    int max_thinking, best_of, top_logprobs;
    bool has_top;
};

#define AT(member) offsetof(struct raw, member)
#define SEEN(member) offsetof(struct raw, p.has_##member)

/* Fields of both endpoints. */
#define COMMON_FIELDS                                                                              \
    {"model", KIND_STRING, AT(p.model), 0, 0, 0}, {"stream", KIND_BOOL, AT(p.stream), 0, 0, 0},    \
        {"stream_options", KIND_JSON, AT(stream_options), 0, 0, 0},                                \
        {"temperature", KIND_FLOAT, AT(p.temperature), 0, 2, SEEN(temperature)},                   \
        {"top_p", KIND_FLOAT, AT(p.top_p), 0, 1, SEEN(top_p)},                                     \
        {"top_k", KIND_INT, AT(p.top_k), 0, 1000000, SEEN(top_k)},                                 \
        {"min_p", KIND_FLOAT, AT(p.min_p), 0, 1, 0},                                               \
        {"repetition_penalty",    KIND_FLOAT, AT(p.repetition_penalty), 0.01, 10,                  \
         SEEN(repetition_penalty)},                                                                \
        {"presence_penalty", KIND_FLOAT, AT(p.presence_penalty), -2, 2, 0},                        \
        {"frequency_penalty", KIND_FLOAT, AT(p.frequency_penalty), -2, 2, 0},                      \
        {"max_tokens", KIND_INT, AT(p.max_tokens), 1, MAX_TOKENS, 0},                              \
        {"seed", KIND_U64, AT(p.seed), -9.2e18, 9.2e18, SEEN(seed)},                               \
        {"stop", KIND_JSON, AT(stop), 0, 0, 0}, {"n", KIND_INT, AT(p.n), 1, MAX_N, 0},             \
        {"logit_bias", KIND_JSON, AT(logit_bias), 0, 0, 0},                                        \
        {"grammar", KIND_STRING, AT(grammar), 0, 0, 0},                                            \
        {"response_format", KIND_JSON, AT(response_format), 0, 0, 0},                              \
        {"logprobs", KIND_JSON, AT(logprobs), 0, 0, 0}, {"user", KIND_ANY, 0, 0, 0, 0},            \
    {                                                                                              \
        "metadata", KIND_ANY, 0, 0, 0, 0                                                           \
    }

static const struct hd_api__field chat_fields[] = {
    COMMON_FIELDS,
    {"messages", KIND_JSON, AT(messages), 0, 0, 0},
    {"knowledge_base", KIND_STRING, AT(p.knowledge_base), 0, 0, 0},
    {"max_completion_tokens", KIND_INT, AT(p.max_completion_tokens), 1, MAX_TOKENS, 0},
    {"top_logprobs", KIND_INT, AT(top_logprobs), 0, HD_TOP_MAX, AT(has_top)},
    {"tools", KIND_JSON, AT(tools), 0, 0, 0},
    {"functions", KIND_JSON, AT(functions), 0, 0, 0},
    {"tool_choice", KIND_JSON, AT(tool_choice), 0, 0, 0},
    {"modalities", KIND_JSON, AT(modalities), 0, 0, 0},
    {"reasoning_effort", KIND_STRING, AT(reasoning_effort), 0, 0, 0},
    {"max_thinking_tokens", KIND_INT, AT(max_thinking), 0, MAX_TOKENS, AT(has_max_thinking)},
    {"loop_detection", KIND_BOOL, AT(loop_detection), 0, 0, AT(has_loop_detection)},
    {"truncation", KIND_STRING, AT(truncation), 0, 0, 0},
    {"thinking", KIND_JSON, AT(thinking), 0, 0, 0},
    {"chat_template_kwargs", KIND_JSON, AT(template_kwargs), 0, 0, 0},
    {"parallel_tool_calls", KIND_JSON, AT(parallel), 0, 0, 0},
    {"prompt_cache_key", KIND_ANY, 0, 0, 0, 0},
    {"safety_identifier", KIND_ANY, 0, 0, 0, 0},
    {"service_tier", KIND_ANY, 0, 0, 0, 0},
    {"store", KIND_ANY, 0, 0, 0, 0},
};

static const struct hd_api__field completion_fields[] = {
    COMMON_FIELDS,
    {"prompt", KIND_JSON, AT(prompt), 0, 0, 0},
    {"best_of", KIND_INT, AT(best_of), 1, MAX_N, 0},
    {"echo", KIND_BOOL, AT(p.echo), 0, 0, 0},
    {"suffix", KIND_STRING, AT(suffix), 0, 0, 0},
};

const struct hd_api__schema hd_api__chat_schema = {chat_fields,
                                                   sizeof chat_fields / sizeof *chat_fields};
const struct hd_api__schema hd_api__completion_schema = {
    completion_fields, sizeof completion_fields / sizeof *completion_fields};

/* --- what both have -----------------------------------------------------------------------------
 */

static int take_stop(struct raw *raw, struct hd_api__fault *fault)
{
    struct hd_api__params *p = &raw->p;
    size_t n = json_is_array(raw->stop) ? json_array_size(raw->stop) : raw->stop ? 1 : 0;
    if (n > HD_API_MAX_STOP)
        return hd_api__fault(fault, 400, "invalid_value", "stop", "stop: at most %d strings",
                             HD_API_MAX_STOP);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(raw->stop) ? json_array_get(raw->stop, i) : raw->stop;
        if (!json_is_string(one))
            return hd_api__invalid(fault, "stop", "must be a string or an array of strings");
        if (!json_string_length(one) || json_string_length(one) > MAX_STOP_BYTES)
            return hd_api__fault(fault, 400, "invalid_value", "stop",
                                 "stop: strings of 1 to %d bytes", MAX_STOP_BYTES);
        p->stop[p->n_stop++] = json_string_value(one);
    }
    return 0;
}

static int take_stream_options(struct raw *raw, struct hd_api__fault *fault)
{
    static const struct hd_api__field fields[] = {
        {"include_usage", KIND_BOOL, offsetof(struct hd_api__params, include_usage), 0, 0, 0},
        {"include_obfuscation", KIND_ANY, 0, 0, 0, 0},
    };
    if (!raw->stream_options)
        return 0;
    if (!json_is_object(raw->stream_options))
        return hd_api__invalid(fault, "stream_options", "must be an object");
    return hd_api__fields(raw->stream_options, fields, 2, &raw->p, "stream_options.", fault);
}

static int take_common(struct raw *raw, struct hd_api__fault *fault)
{
    int rc = take_stop(raw, fault);
    if (!rc)
        rc = hd_api__take_bias(&raw->p, raw->logit_bias, fault);
    if (!rc && raw->response_format)
        rc = hd_api__take_format(&raw->p, raw->response_format, "response_format", fault);
    if (!rc && raw->grammar)
        rc = hd_api__take_grammar(&raw->p, raw->grammar, fault);
    raw->p.n = raw->p.n ? raw->p.n : 1;
    return rc ? rc : take_stream_options(raw, fault);
}

static int take_root(struct raw *raw, const struct hd_api__field *fields, size_t n_field,
                     struct hd_api__fault *fault)
{
    int rc = hd_api__fields(raw->p.root, fields, n_field, raw, "", fault);
    return rc ? rc : take_common(raw, fault);
}

/* --- chat ----------------------------------------------------------------------------------------
 */

static bool empty_array(const json_t *value)
{
    return json_is_array(value) && !json_array_size(value);
}

static bool is_string(const json_t *value, const char *text)
{
    return json_is_string(value) && !strcmp(json_string_value(value), text);
}

static int refuse_unsupported(const struct raw *raw, struct hd_api__fault *fault)
{
    if (raw->functions && !empty_array(raw->functions))
        return hd_api__unsupported(fault, "functions", "is not supported; send tools");
    if (raw->parallel && !json_is_boolean(raw->parallel))
        return hd_api__invalid(fault, "parallel_tool_calls", "must be true or false");
    if (raw->modalities && !(json_array_size(raw->modalities) == 1 &&
                             is_string(json_array_get(raw->modalities, 0), "text")))
        return hd_api__unsupported(fault, "modalities", "only [\"text\"] is supported");
    return 0;
}

/* The name of a function, as OpenAI allows it. */
static bool is_function_name(const json_t *name)
{
    size_t len = json_string_length(name);
    if (!json_is_string(name) || !len || len > 64)
        return false;
    for (const char *c = json_string_value(name); *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              *c == '_' || *c == '-' || *c == '.'))
            return false;
    return true;
}

/* Functions that the model may call. With tool_choice "none" it is not told of them. */
static int take_tools(struct raw *raw, struct hd_api__fault *fault)
{
    size_t i;
    json_t *tool;
    char param[64];
    if (!raw->tools || empty_array(raw->tools))
        return hd_api__take_tool_choice(&raw->p, raw->tool_choice, NULL, fault);
    if (!json_is_array(raw->tools))
        return hd_api__invalid(fault, "tools", "must be an array");
    if (json_array_size(raw->tools) > MAX_TOOLS)
        return hd_api__fault(fault, 400, "invalid_value", "tools", "tools: at most %d", MAX_TOOLS);
    json_array_foreach(raw->tools, i, tool)
    {
        json_t *function = json_object_get(tool, "function");
        json_t *parameters = json_object_get(function, "parameters");
        snprintf(param, sizeof param, "tools[%zu]", i);
        if (!is_string(json_object_get(tool, "type"), "function"))
            return hd_api__unsupported(fault, param, "only {\"type\":\"function\",…} is supported");
        snprintf(param, sizeof param, "tools[%zu].function.name", i);
        if (!is_function_name(json_object_get(function, "name")))
            return hd_api__invalid(fault, param, "1 to 64 letters, digits, \"_\", \"-\" or \".\"");
        snprintf(param, sizeof param, "tools[%zu].function.parameters", i);
        if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
            return hd_api__invalid(fault, param, "must be an object");
    }
    if (is_string(raw->tool_choice, "none"))
        return 0;
    raw->p.one_call = json_is_false(raw->parallel);
    raw->p.tools = json_dumps(raw->tools, JSON_COMPACT);
    return raw->p.tools ? hd_api__take_tool_choice(&raw->p, raw->tool_choice, raw->tools, fault)
                        : hd_api__fault(fault, 503, NULL, NULL, "out of memory");
}

/* {"type":"enabled","budget_tokens":N}, as other servers spell it. */
static int take_thinking_object(struct raw *raw, struct hd_api__fault *fault)
{
    const json_t *type = json_object_get(raw->thinking, "type");
    const json_t *budget = json_object_get(raw->thinking, "budget_tokens");
    if (!raw->thinking)
        return 0;
    if (!is_string(type, "enabled") && !is_string(type, "disabled"))
        return hd_api__invalid(fault, "thinking",
                               "{\"type\":\"enabled\"} (maybe with \"budget_tokens\") or "
                               "{\"type\":\"disabled\"}");
    if (budget && (!json_is_integer(budget) || json_integer_value(budget) < 1 ||
                   json_integer_value(budget) > MAX_TOKENS))
        return hd_api__invalid(fault, "thinking.budget_tokens", "must be a whole number from 1");
    raw->p.no_think |= is_string(type, "disabled");
    raw->p.ask_think |= is_string(type, "enabled");
    if (budget)
        raw->p.max_thinking = (int)json_integer_value(budget);
    return 0;
}

static int take_template_kwargs(struct raw *raw, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (raw->template_kwargs && !json_is_object(raw->template_kwargs))
        return hd_api__invalid(fault, "chat_template_kwargs", "must be an object");
    json_object_foreach(raw->template_kwargs, key, value)
    {
        if ((strcmp(key, "enable_thinking") && strcmp(key, "thinking")) || !json_is_boolean(value))
            return hd_api__unsupported(
                fault, "chat_template_kwargs",
                "only the booleans enable_thinking and thinking are supported");
        raw->p.no_think |= json_is_false(value);
        raw->p.ask_think |= json_is_true(value);
    }
    return 0;
}

/* Whether, and how much, to think: OpenAI's spelling, those of other servers, and a plain number,
 * which is the most exact and wins over them. "Off" wins over "on". */
static int take_thinking(struct raw *raw, struct hd_api__fault *fault)
{
    struct hd_api__params *p = &raw->p;
    const char *effort = raw->reasoning_effort;
    if (effort && !hd_reasoning_effort(effort, &p->no_think, &p->max_thinking))
        return hd_api__fault(fault, 400, "invalid_value", "reasoning_effort",
                             "reasoning_effort: none, minimal, low, medium, high or xhigh");
    p->ask_think = effort && !p->no_think;
    int rc = take_thinking_object(raw, fault);
    if (!rc)
        rc = take_template_kwargs(raw, fault);
    if (raw->has_max_thinking) {
        p->max_thinking = raw->max_thinking;
        p->no_think |= !raw->max_thinking;
        p->ask_think = true;
    }
    p->ask_think = p->ask_think && !p->no_think;
    return rc;
}

static int take_policies(struct raw *raw, struct hd_api__fault *fault)
{
    const char *how = raw->truncation;
    if (how && strcmp(how, "auto") && strcmp(how, "disabled"))
        return hd_api__fault(fault, 400, "invalid_value", "truncation",
                             "truncation: \"disabled\" (a conversation too long is refused) or "
                             "\"auto\" (its oldest turns are left out)");
    raw->p.drop_turns = how && !strcmp(how, "auto");
    raw->p.any_loops = raw->has_loop_detection && !raw->loop_detection;
    return 0;
}

/* Joins the text parts of a message's content with line feeds. */
static int join_parts(struct hd_api__params *p, const json_t *parts, const char *param,
                      const char **out, struct hd_api__fault *fault)
{
    struct hd_buf text;
    size_t i;
    json_t *part;
    hd_buf_init(&text, (size_t)1 << 30);
    json_array_foreach(parts, i, part)
    {
        const json_t *type = json_object_get(part, "type"), *value = json_object_get(part, "text");
        if (!is_string(type, "text") || !json_is_string(value)) {
            hd_buf_dispose(&text);
            return json_is_string(type) && !is_string(type, "text")
                       ? hd_api__unsupported(fault, param,
                                             "only parts of type \"text\" are supported")
                       : hd_api__invalid(fault, param,
                                         "a part is {\"type\":\"text\",\"text\":\"…\"}");
        }
        if (i)
            hd_buf_putc(&text, '\n');
        hd_buf_append(&text, json_string_value(value), json_string_length(value));
    }
    char *joined = text.err ? NULL : text.len ? hd_buf_take(&text) : strdup("");
    hd_buf_dispose(&text);
    if (!joined)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    *out = p->text[p->n_text++] = joined;
    return 0;
}

struct raw_message {
    const char *role, *tool_call_id;
    json_t *content, *tool_calls, *name;
};

static bool is_role(const char *role)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i], role))
            return true;
    return false;
}

/* Calls that the assistant made earlier: checked here by shape, by the engine in full. */
static int take_calls(struct hd_api__params *p, struct hd_message *message, json_t *calls, size_t i,
                      struct hd_api__fault *fault)
{
    char param[64];
    size_t k;
    json_t *call;
    snprintf(param, sizeof param, "messages[%zu].tool_calls", i);
    if (!calls || empty_array(calls))
        return 0;
    if (!json_is_array(calls) || json_array_size(calls) > MAX_TOOLS)
        return hd_api__invalid(fault, param, "must be an array of at most 128 calls");
    if (strcmp(message->role, "assistant"))
        return hd_api__invalid(fault, param, "only the assistant calls");
    json_array_foreach(calls, k, call)
    {
        json_t *function = json_object_get(call, "function");
        json_t *arguments = json_object_get(function, "arguments");
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu]", i, k);
        if (!json_is_string(json_object_get(function, "name")) ||
            (arguments && !json_is_string(arguments) && !json_is_object(arguments)))
            return hd_api__invalid(
                fault, param,
                "{\"id\",\"type\":\"function\",\"function\":{\"name\",\"arguments\"}}");
    }
    char *text = json_dumps(calls, JSON_COMPACT);
    if (!text)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    message->tool_calls = p->text[p->n_text++] = text;
    return 0;
}

static int take_message(struct hd_api__params *p, json_t *object, size_t i,
                        struct hd_api__fault *fault)
{
    static const struct hd_api__field fields[] = {
        {"role", KIND_STRING, offsetof(struct raw_message, role), 0, 0, 0},
        {"content", KIND_JSON, offsetof(struct raw_message, content), 0, 0, 0},
        {"tool_calls", KIND_JSON, offsetof(struct raw_message, tool_calls), 0, 0, 0},
        {"tool_call_id", KIND_STRING, offsetof(struct raw_message, tool_call_id), 0, 0, 0},
        {"name", KIND_JSON, offsetof(struct raw_message, name), 0, 0, 0},
        {"reasoning_content", KIND_ANY, 0, 0, 0, 0},
        {"reasoning", KIND_ANY, 0, 0, 0, 0},
        {"refusal", KIND_ANY, 0, 0, 0, 0},
        {"annotations", KIND_ANY, 0, 0, 0, 0},
        {"audio", KIND_ANY, 0, 0, 0, 0},
        {"citations", KIND_ANY, 0, 0, 0, 0},
    };
    struct raw_message raw = {0};
    struct hd_message *message = &p->message[i];
    char param[48];
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(object))
        return hd_api__invalid(fault, param, "must be an object");
    snprintf(param, sizeof param, "messages[%zu].", i);
    int rc = hd_api__fields(object, fields, sizeof fields / sizeof *fields, &raw, param, fault);
    if (rc)
        return rc;
    snprintf(param, sizeof param, "messages[%zu].role", i);
    if (!raw.role)
        return hd_api__invalid(fault, param, "is missing");
    message->role = strcmp(raw.role, "developer") ? raw.role : "system";
    if (!is_role(message->role))
        return hd_api__fault(fault, 400, "unsupported_value", param,
                             "%s: system, developer, user, assistant or tool", param);
    rc = take_calls(p, message, raw.tool_calls, i, fault);
    if (rc)
        return rc;
    if (!strcmp(message->role, "tool")) {
        message->tool_call_id = raw.tool_call_id;
        message->name = json_string_value(raw.name);
    }
    snprintf(param, sizeof param, "messages[%zu].content", i);
    if (json_is_array(raw.content))
        return join_parts(p, raw.content, param, &message->content, fault);
    if (!raw.content && strcmp(message->role, "assistant"))
        return hd_api__invalid(fault, param, "is missing");
    if (raw.content && !json_is_string(raw.content))
        return hd_api__invalid(fault, param, "must be a string or an array of text parts");
    message->content = raw.content           ? json_string_value(raw.content)
                       : message->tool_calls ? NULL
                                             : "";
    return 0;
}

static int take_messages(struct raw *raw, struct hd_api__fault *fault)
{
    struct hd_api__params *p = &raw->p;
    size_t n = json_array_size(raw->messages);
    if (!raw->messages)
        return hd_api__invalid(fault, "messages", "is missing");
    if (!json_is_array(raw->messages) || !n)
        return hd_api__invalid(fault, "messages", "must be an array with at least one message");
    if (n > MAX_MESSAGES)
        return hd_api__fault(fault, 400, "invalid_value", "messages", "messages: at most %d",
                             MAX_MESSAGES);
    p->message = calloc(n, sizeof *p->message);
    p->text = calloc(2 * n, sizeof *p->text);
    if (!p->message || !p->text)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    for (size_t i = 0; i < n; i++) {
        int rc = take_message(p, json_array_get(raw->messages, i), i, fault);
        if (rc)
            return rc;
    }
    p->n_message = n;
    return 0;
}

int hd_api__params_chat(struct hd_api__params *out, const char *body, size_t len,
                        struct hd_api__fault *fault)
{
    json_t *root;
    int rc = hd_api__parse(&root, body, len, fault);
    memset(out, 0, sizeof *out);
    return rc ? rc : hd_api__params_chat_json(out, root, fault);
}

int hd_api__params_chat_json(struct hd_api__params *out, json_t *root, struct hd_api__fault *fault)
{
    struct raw raw = {.p.root = root};
    int rc = take_root(&raw, chat_fields, sizeof chat_fields / sizeof *chat_fields, fault);
    if (!rc)
        rc = refuse_unsupported(&raw, fault);
    if (!rc)
        rc =
            hd_api__take_logprobs(&raw.p, raw.logprobs, raw.top_logprobs, raw.has_top, true, fault);
    if (!rc)
        rc = take_thinking(&raw, fault);
    if (!rc)
        rc = take_policies(&raw, fault);
    if (!rc)
        rc = take_tools(&raw, fault);
    if (!rc)
        rc = take_messages(&raw, fault);
    *out = raw.p;
    return rc;
}

/* --- completions ---------------------------------------------------------------------------------
 */

static int take_ids(struct hd_api__params *p, const json_t *array, struct hd_api__fault *fault)
{
    size_t i;
    json_t *id;
    p->ids = calloc(json_array_size(array), sizeof *p->ids);
    if (!p->ids)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    json_array_foreach(array, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return hd_api__invalid(fault, "prompt", "must be a string or an array of token ids");
        p->ids[p->n_id++] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int take_prompt(struct raw *raw, struct hd_api__fault *fault)
{
    const json_t *prompt = raw->prompt;
    if (json_array_size(prompt) == 1 && json_is_string(json_array_get(prompt, 0)))
        prompt = json_array_get(prompt, 0); /* one prompt in an array */
    if (!prompt)
        return hd_api__invalid(fault, "prompt", "is missing");
    if (json_is_string(prompt))
        raw->p.prompt = json_string_value(prompt);
    else if (json_is_array(prompt) && json_is_integer(json_array_get(prompt, 0)))
        return take_ids(&raw->p, prompt, fault);
    else if (json_array_size(prompt) > 1)
        return hd_api__unsupported(fault, "prompt", "one prompt per request");
    else
        return hd_api__invalid(fault, "prompt", "must be a string or an array of token ids");
    return 0;
}

int hd_api__params_completion(struct hd_api__params *out, const char *body, size_t len,
                              struct hd_api__fault *fault)
{
    json_t *root;
    int rc = hd_api__parse(&root, body, len, fault);
    memset(out, 0, sizeof *out);
    return rc ? rc : hd_api__params_completion_json(out, root, fault);
}

int hd_api__params_completion_json(struct hd_api__params *out, json_t *root,
                                   struct hd_api__fault *fault)
{
    struct raw raw = {.p.root = root};
    int rc = take_root(&raw, completion_fields,
                       sizeof completion_fields / sizeof *completion_fields, fault);
    if (!rc)
        rc = hd_api__take_logprobs(&raw.p, raw.logprobs, 0, false, false, fault);
    if (!rc && raw.best_of && raw.best_of != raw.p.n)
        rc = hd_api__unsupported(fault, "best_of", "must be n, or absent: all answers are given");
    if (!rc && raw.p.echo && (raw.p.logprobs || raw.suffix))
        rc =
            hd_api__unsupported(fault, "echo", "together with logprobs or suffix is not supported");
    if (!rc)
        rc = take_prompt(&raw, fault);
    if (!rc && raw.p.echo && !raw.p.prompt)
        rc = hd_api__unsupported(fault, "echo", "of token ids is not supported");
    if (!rc && raw.suffix && *raw.suffix) {
        raw.p.suffix = raw.suffix;
        if (!raw.p.prompt)
            rc = hd_api__unsupported(fault, "suffix", "beside token ids is not supported");
    }
    *out = raw.p;
    return rc;
}

/* --- afterwards ----------------------------------------------------------------------------------
 */

void hd_api__params_dispose(struct hd_api__params *params)
{
    for (size_t i = 0; i < params->n_text; i++)
        free(params->text[i]);
    free(params->text);
    free(params->message);
    free(params->ids);
    free(params->split_model);
    free(params->tools);
    free(params->grammar);
    free(params->bias);
    json_decref(params->root);
    json_decref(params->original);
    memset(params, 0, sizeof *params);
}

bool hd_api__has_language(struct hd_engine *engine)
{
    struct hd_model_info info;
    return !hd_engine_model_find(engine, NULL, &info) && info.kind == HD_MODEL_LANGUAGE;
}

enum hd_err hd_api__model_find(struct hd_engine *engine, const char *name,
                               struct hd_model_info *out)
{
    static const char latest[] = ":latest";
    size_t n = name ? strlen(name) : 0, tail = sizeof latest - 1;
    char bare[160];
    enum hd_err err = hd_engine_model_find(engine, name, out);
    if (!err || n <= tail || n >= sizeof bare || strcmp(name + n - tail, latest))
        return err;
    snprintf(bare, sizeof bare, "%.*s", (int)(n - tail), name);
    return hd_engine_model_find(engine, bare, out);
}

bool hd_api__is_none(const char *model)
{
    return model && !strcmp(model, "none");
}

int hd_api__params_split(struct hd_api__params *params, struct hd_engine *engine,
                         struct hd_api__fault *fault)
{
    struct hd_model_info info;
    if (params->knowledge_base && !*params->knowledge_base)
        params->knowledge_base = NULL; /* what a form sends for "none" */
    const char *at = params->model ? strrchr(params->model, '@') : NULL;
    if (!at || !hd_engine_model_find(engine, params->model, &info))
        return 0;
    if (!at[1])
        return hd_api__fault(fault, 400, "invalid_value", "model",
                             "model: no knowledge base is named after '@'");
    if (params->knowledge_base && strcmp(params->knowledge_base, at + 1))
        return hd_api__fault(fault, 400, "invalid_value", "knowledge_base",
                             "knowledge_base: \"%s\" contradicts model \"%s\"",
                             params->knowledge_base, params->model);
    params->knowledge_base = at + 1;
    params->split_model = strndup(params->model, (size_t)(at - params->model));
    if (!params->split_model)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    params->model = params->split_model;
    return 0;
}

struct hd_sampling hd_api__params_sampling(const struct hd_api__params *params, bool thinks)
{
    struct hd_sampling s = HD_SAMPLING_GREEDY;
    bool grounded = params->knowledge_base != NULL;
    /* R1's authors recommend 0.6 and 0.95; Qwen2.5's 0.7 and 0.8; a grounded answer stays close to
     * its passages. */
    s.temperature = params->has_temperature ? params->temperature
                    : grounded              ? 0
                    : thinks                ? 0.6f
                                            : 0.7f;
    s.top_p = params->has_top_p ? params->top_p : grounded ? 1 : thinks ? 0.95f : 0.8f;
    s.top_k = params->has_top_k ? params->top_k : 0;
    s.min_p = params->min_p;
    if (params->has_repetition_penalty)
        s.repetition_penalty = params->repetition_penalty;
    s.presence_penalty = params->presence_penalty;
    s.frequency_penalty = params->frequency_penalty;
    s.seed = params->seed;
    return s;
}
