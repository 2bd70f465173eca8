/* Fields that steer which tokens an answer is made of: formats, grammars, calls that must come,
 * bias, log-probabilities. */
#include "api/api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "token/grammar/grammar.h"

enum { MAX_GRAMMAR = 256 << 10, MAX_BUILT = 4 << 20, MAX_BIAS = HD_BIAS_MAX };

static int no_memory(struct hd_api__fault *fault)
{
    return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
}

static bool is_string(const json_t *value, const char *text)
{
    return json_is_string(value) && !strcmp(json_string_value(value), text);
}

/* UNSUPPORTED, INVALID and LIMIT are the client's: a 400 that names the field. */
static int grammar_fault(struct hd_api__fault *fault, enum hd_err err, const char *param,
                         const struct hd_errmsg *msg)
{
    if (err == HD_ERR_NOMEM)
        return no_memory(fault);
    return hd_api__fault(fault, 400,
                         err == HD_ERR_UNSUPPORTED ? "unsupported_value" : "invalid_value", param,
                         "%s: %s", param, msg->text);
}

/* --- formats and grammars ------------------------------------------------------------------------
 */

static int take_schema(struct hd_api__params *p, const json_t *schema, const char *param,
                       struct hd_api__fault *fault)
{
    struct hd_buf gbnf;
    struct hd_errmsg msg = {0};
    char *text = json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY);
    hd_buf_init(&gbnf, MAX_BUILT);
    enum hd_err err = text ? hd_grammar_from_schema(&gbnf, text, strlen(text), &msg) : HD_ERR_NOMEM;
    if (!err && !(p->grammar = hd_buf_take(&gbnf)))
        err = HD_ERR_NOMEM;
    free(text);
    hd_buf_dispose(&gbnf);
    return err ? grammar_fault(fault, err, param, &msg) : 0;
}

int hd_api__take_format(struct hd_api__params *p, const json_t *format, const char *param,
                        struct hd_api__fault *fault)
{
    static const char *const known[] = {"type", "json_schema"};
    static const char *const parts[] = {"name", "description", "schema", "strict"};
    char where[80];
    const char *key;
    json_t *value;
    const json_t *type = json_object_get(format, "type");
    const json_t *outer = json_object_get(format, "json_schema");
    json_object_foreach((json_t *)format, key, value)
    {
        snprintf(where, sizeof where, "%s.%.40s", param, key);
        if (strcmp(key, known[0]) && strcmp(key, known[1]))
            return hd_api__fault(fault, 400, "unknown_parameter", where, "%s: unknown field",
                                 where);
    }
    if (is_string(type, "text"))
        return 0;
    if (is_string(type, "json_object")) {
        p->grammar = strdup(hd_grammar_json_object);
        return p->grammar ? 0 : no_memory(fault);
    }
    if (!is_string(type, "json_schema"))
        return hd_api__fault(fault, 400, "unsupported_value", param,
                             "%s: type text, json_object or json_schema", param);
    snprintf(where, sizeof where, "%s.json_schema", param);
    if (!json_is_object(outer))
        return hd_api__invalid(fault, where, "{\"name\",\"schema\"} is expected");
    json_object_foreach((json_t *)outer, key, value)
    {
        size_t i = 0;
        while (i < 4 && strcmp(key, parts[i]))
            i++;
        snprintf(where, sizeof where, "%s.json_schema.%.30s", param, key);
        if (i == 4)
            return hd_api__fault(fault, 400, "unknown_parameter", where, "%s: unknown field",
                                 where);
    }
    snprintf(where, sizeof where, "%s.json_schema.schema", param);
    value = json_object_get(outer, "schema");
    return value ? take_schema(p, value, where, fault)
                 : hd_api__invalid(fault, where, "is missing");
}

int hd_api__take_grammar(struct hd_api__params *p, const char *grammar, struct hd_api__fault *fault)
{
    struct hd_errmsg msg = {0};
    if (strlen(grammar) > MAX_GRAMMAR)
        return hd_api__fault(fault, 400, "invalid_value", "grammar", "grammar: at most %d bytes",
                             MAX_GRAMMAR);
    if (p->grammar)
        return hd_api__fault(fault, 400, "invalid_value", "grammar",
                             "grammar: not together with response_format");
    /* Tokens by name need a model; the rest is checked when it is known. */
    struct hd_grammar *compiled = NULL;
    enum hd_err err = strchr(grammar, '<')
                          ? HD_OK
                          : hd_grammar_new(&compiled, grammar, strlen(grammar), NULL, false, &msg);
    hd_grammar_unref(compiled);
    if (err)
        return grammar_fault(fault, err, "grammar", &msg);
    p->grammar = strdup(grammar);
    return p->grammar ? 0 : no_memory(fault);
}

/* --- calls that must come
 * ------------------------------------------------------------------------- */

static bool has_function(const json_t *tools, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        if (is_string(json_object_get(json_object_get(tool, "function"), "name"), name))
            return true;
    }
    return false;
}

/* The schemas of the functions that may have to be called. */
static int check_parameters(const json_t *tools, const char *only, struct hd_api__fault *fault)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        json_t *schema = json_object_get(function, "parameters");
        struct hd_api__params scratch = {0};
        char param[64];
        if (!json_object_size(schema) ||
            (*only && !is_string(json_object_get(function, "name"), only)))
            continue;
        snprintf(param, sizeof param, "tools[%zu].function.parameters", i);
        int rc = take_schema(&scratch, schema, param, fault);
        free(scratch.grammar);
        if (rc)
            return rc;
    }
    return 0;
}

int hd_api__take_tool_choice(struct hd_api__params *p, const json_t *choice, const json_t *tools,
                             struct hd_api__fault *fault)
{
    const char *name =
        json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
    bool required = is_string(choice, "required");
    if (!choice || is_string(choice, "none") || is_string(choice, "auto"))
        return 0;
    if (!required && !(is_string(json_object_get(choice, "type"), "function") && name))
        return hd_api__fault(fault, 400, "unsupported_value", "tool_choice",
                             "tool_choice: none, auto, required, or "
                             "{\"type\":\"function\",\"function\":{\"name\"}}");
    if (!json_array_size(tools))
        return hd_api__fault(fault, 400, "invalid_value", "tool_choice",
                             "tool_choice: there are no tools to choose from");
    if (name && !has_function(tools, name))
        return hd_api__fault(fault, 400, "invalid_value", "tool_choice",
                             "tool_choice: there is no function \"%.64s\" in tools", name);
    if (p->grammar)
        return hd_api__fault(fault, 400, "invalid_value", "tool_choice",
                             "tool_choice: a call cannot be required together with "
                             "response_format or grammar");
    p->tool_choice = name ? name : "";
    return check_parameters(tools, p->tool_choice, fault);
}

/* --- bias and log-probabilities
 * ------------------------------------------------------------------- */

int hd_api__take_bias(struct hd_api__params *p, const json_t *bias, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    if (!bias)
        return 0;
    if (!json_is_object(bias))
        return hd_api__invalid(fault, "logit_bias", "must be an object of token ids and numbers");
    if (json_object_size(bias) > MAX_BIAS)
        return hd_api__fault(fault, 400, "invalid_value", "logit_bias",
                             "logit_bias: at most %d tokens", MAX_BIAS);
    p->bias = calloc(json_object_size(bias) + 1, sizeof *p->bias);
    if (!p->bias)
        return no_memory(fault);
    json_object_foreach((json_t *)bias, key, value)
    {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        double number = json_number_value(value);
        if (*key < '0' || *key > '9' || *end || errno || id > INT32_MAX)
            return hd_api__invalid(fault, "logit_bias",
                                   "names must be token ids (/tokenize gives them)");
        if (!json_is_number(value) || !(number >= -100 && number <= 100))
            return hd_api__fault(fault, 400, "invalid_value", "logit_bias",
                                 "logit_bias: numbers of -100 to 100");
        p->bias[p->n_bias++] = (struct hd_logit_bias){(int32_t)id, (float)number};
    }
    return 0;
}

/* Chat: logprobs is a switch, top_logprobs a number; completions: logprobs is the number. */
int hd_api__take_logprobs(struct hd_api__params *p, const json_t *logprobs, int top, bool has_top,
                          bool chat, struct hd_api__fault *fault)
{
    if (has_top && !(chat && json_is_true(logprobs)))
        return hd_api__fault(fault, 400, "invalid_value", "top_logprobs",
                             "top_logprobs: only with \"logprobs\": true");
    p->n_top = top;
    if (!logprobs || json_is_false(logprobs))
        return 0;
    if (chat && !json_is_true(logprobs))
        return hd_api__invalid(fault, "logprobs",
                               "must be true or false (top_logprobs takes a number)");
    if (!chat) {
        if (!json_is_integer(logprobs) || json_integer_value(logprobs) < 0 ||
            json_integer_value(logprobs) > HD_TOP_MAX)
            return hd_api__fault(fault, 400, "invalid_value", "logprobs",
                                 "logprobs: a whole number of 0 to %d", HD_TOP_MAX);
        p->n_top = (int)json_integer_value(logprobs);
    }
    p->logprobs = true;
    return 0;
}
