/* Chat forms: which one a model has, which template renders a conversation, and the conversation
 * itself, checked. The checkpoint's own template decides, where it has one that works;
 * chat_builtin.c has ours. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "token/token_impl.h"

/* --- which form ------------------------------------------------------------------------------- */

static bool has(const struct hd_tokenizer *tok, const char *special)
{
    return hd_tokenizer_special(tok, special) >= 0;
}

static bool template_has(const struct hd_tokenizer *tok, const char *text)
{
    return tok->chat_template && strstr(tok->chat_template, text);
}

bool hd_token__is_deepseek(enum hd_chat_form form)
{
    return form == HD_CHAT_DEEPSEEK_R1 || form == HD_CHAT_DEEPSEEK_R1_DISTILL ||
           form == HD_CHAT_DEEPSEEK_V3;
}

/* The 671B's template joins several system messages (its variable is_first_sp); the distills keep
 * the last one. A distill is also known by the Qwen or Llama tokens that its vocabulary kept. V3's
 * template, unlike all of R1's, never speaks of thoughts. */
static enum hd_chat_form deepseek_form(const struct hd_tokenizer *tok)
{
    if (tok->own && !template_has(tok, "think>"))
        return HD_CHAT_DEEPSEEK_V3;
    if (template_has(tok, "is_first_sp"))
        return HD_CHAT_DEEPSEEK_R1;
    if (has(tok, "<|vision_start|>") || has(tok, "<|fim_prefix|>") ||
        has(tok, "<|reserved_special_token_0|>") || template_has(tok, "system_prompt = message"))
        return HD_CHAT_DEEPSEEK_R1_DISTILL;
    return HD_CHAT_DEEPSEEK_R1;
}

/* The system message that a ChatML template uses where the conversation brings none: the literal
 * between "<|im_start|>system\n" and "<|im_end|>" in its source. */
static enum hd_err read_default_system(struct hd_tokenizer *tok)
{
    static const char open[] = "<|im_start|>system", close[] = "<|im_end|>";
    for (const char *at = tok->chat_template; at && (at = strstr(at, open));) {
        at += sizeof open - 1;
        bool escaped = at[0] == '\\' && at[1] == 'n';
        if (!escaped && at[0] != '\n')
            continue;
        at += escaped ? 2 : 1;
        const char *end = strstr(at, close);
        if (!end)
            break;
        if (end == at || memchr(at, '\'', (size_t)(end - at)) ||
            memchr(at, '"', (size_t)(end - at)) || memchr(at, '\\', (size_t)(end - at)) ||
            memchr(at, '{', (size_t)(end - at)))
            continue; /* the literal ends before: put together by the template */
        tok->default_system = strndup(at, (size_t)(end - at));
        return tok->default_system ? HD_OK : HD_ERR_NOMEM;
    }
    return HD_OK;
}

static enum hd_chat_form form_of(const struct hd_tokenizer *tok)
{
    if (has(tok, "<｜User｜>") && has(tok, "<｜Assistant｜>") && has(tok, "<｜end▁of▁sentence｜>"))
        return deepseek_form(tok);
    if (has(tok, "<|start_header_id|>") && has(tok, "<|end_header_id|>") && has(tok, "<|eot_id|>"))
        return HD_CHAT_LLAMA3;
    if (has(tok, "<|im_start|>") && has(tok, "<|im_end|>"))
        return HD_CHAT_CHATML;
    return tok->own ? HD_CHAT_TEMPLATE : HD_CHAT_NONE;
}

enum hd_chat_form hd_chat_form(const struct hd_tokenizer *tok)
{
    return tok->form;
}

const char *hd_chat_form_name(enum hd_chat_form form)
{
    switch (form) {
    case HD_CHAT_DEEPSEEK_R1:
        return "deepseek-r1";
    case HD_CHAT_DEEPSEEK_R1_DISTILL:
        return "deepseek-r1-distill";
    case HD_CHAT_DEEPSEEK_V3:
        return "deepseek-v3";
    case HD_CHAT_CHATML:
        return "chatml";
    case HD_CHAT_LLAMA3:
        return "llama3";
    case HD_CHAT_TEMPLATE:
        return "template";
    case HD_CHAT_NONE:
        break;
    }
    return "none";
}

bool hd_chat_thinks(const struct hd_tokenizer *tok)
{
    return tok->thinks;
}

const char *hd_chat_source(const struct hd_tokenizer *tok)
{
    if (tok->own && tok->tool_prompt)
        return "checkpoint, tools told by us";
    if (tok->own)
        return tok->own_calls ? "checkpoint"
               : tok->builtin ? "checkpoint, tools built in"
                              : "checkpoint, no tools";
    return tok->builtin ? "built in" : "none";
}

/* --- trying a template ------------------------------------------------------------------------ */

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (; (text = strstr(text, what)); n++)
        text += strlen(what);
    return n;
}

/* The text of a conversation that is ours, or NULL where the template fails; owned. */
static char *try_text(const struct hd_tokenizer *tok, const struct hd_jinja *jinja,
                      const struct hd_chat_message *messages, size_t n, const char *tools,
                      struct hd_errmsg *msg)
{
    struct hd_token__conversation talk = {0};
    const struct hd_chat_options options = {.tools = tools};
    struct hd_jinja_output out;
    struct hd_jinja_run *run = NULL;
    char *text = NULL;
    enum hd_err err = hd_token__conversation(&talk, messages, n, &options, msg);
    if (!err)
        err = hd_token__render(&run, &out, tok, jinja, &talk, msg);
    if (!err)
        text = strndup(out.text, out.len);
    hd_jinja_run_free(run);
    hd_token__conversation_dispose(&talk);
    return text;
}

#define PROBE_TOOL                                                                                 \
    "[{\"type\":\"function\",\"function\":{\"name\":\"probe_tool\",\"description\":\"d\","         \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"string\"}}}}}]"
#define PROBE_CALL                                                                                 \
    "[{\"id\":\"call00001\",\"type\":\"function\",\"function\":{\"name\":\"probe_tool\","          \
    "\"arguments\":\"{\\\"x\\\": \\\"probe_value\\\"}\"}}]"

/* Whether the template shows the calls and results of two rounds, sets own_calls, own_tools and
 * plain_calls. R1's published templates fail here: they leave a single call open and begin no
 * second round. */
static void try_tools(struct hd_tokenizer *tok, const struct hd_jinja *jinja)
{
    static const struct hd_chat_message messages[] = {
        {.role = "user", .content = "q"},
        {.role = "assistant", .tool_calls = PROBE_CALL},
        {.role = "tool",
         .content = "probe_result",
         .tool_call_id = "call00001",
         .name = "probe_tool"},
        {.role = "assistant", .content = "probe_answer"},
        {.role = "user", .content = "q"},
        {.role = "assistant", .tool_calls = PROBE_CALL},
        {.role = "tool",
         .content = "probe_result",
         .tool_call_id = "call00001",
         .name = "probe_tool"},
    };
    char *shown = try_text(tok, jinja, messages, 1, PROBE_TOOL, NULL);
    char *text =
        try_text(tok, jinja, messages, sizeof messages / sizeof *messages, PROBE_TOOL, NULL);
    if (shown && text) {
        size_t n_shown = count(shown, "probe_tool");
        tok->own_tools = n_shown > 0;
        tok->own_calls = count(text, "probe_tool") >= n_shown + 2 &&
                         count(text, "probe_value") >= 2 && count(text, "probe_result") >= 2 &&
                         count(text, "probe_answer") >= 1;
    }
    if (tok->own_calls && hd_token__is_deepseek(tok->form)) {
        static const char begin[] = "<｜tool▁calls▁begin｜>", end[] = "<｜tool▁calls▁end｜>";
        tok->own_calls = count(text, begin) == count(shown, begin) + 2 &&
                         count(text, end) == count(shown, end) + 2;
        tok->plain_calls = strstr(text, "probe_tool<｜tool▁sep｜>") != NULL;
    }
    free(shown);
    free(text);
}

/* Where the template has a place for calls but none for tools, DeepSeek's are told of them in the
 * system message; others have ours take over. */
static enum hd_err detect_tools(struct hd_tokenizer *tok)
{
    const struct hd_jinja *jinja = tok->own_with_tools ? tok->own_with_tools : tok->own;
    if (!jinja)
        return HD_OK;
    try_tools(tok, jinja);
    if (!tok->own_calls) {
        tok->empty_calls = true;
        try_tools(tok, jinja);
        tok->empty_calls = tok->own_calls;
    }
    if (!tok->own_calls || tok->own_tools)
        return HD_OK;
    tok->own_calls = hd_token__is_deepseek(tok->form);
    return tok->own_calls ? hd_jinja_compile(&tok->tool_prompt, hd_token__deepseek_tool_prompt,
                                             strlen(hd_token__deepseek_tool_prompt), NULL)
                          : HD_OK;
}

/* A template that compiles, looks at the messages, and renders one; else NULL and a warning. */
static struct hd_jinja *compile(const struct hd_tokenizer *tok, const char *source)
{
    static const struct hd_chat_message hello = {.role = "user", .content = "hello"};
    struct hd_jinja *jinja = NULL;
    struct hd_errmsg msg = {0};
    if (!source || hd_jinja_compile(&jinja, source, strlen(source), &msg)) {
        if (source)
            hd_log(HD_LOG_WARN, "token", "chat template not used: %s", msg.text);
        return NULL;
    }
    char *text =
        hd_jinja_reads(jinja, "messages") ? try_text(tok, jinja, &hello, 1, NULL, &msg) : NULL;
    if (!text || !strstr(text, "hello")) {
        if (msg.text[0])
            hd_log(HD_LOG_WARN, "token", "chat template not used: %s", msg.text);
        hd_jinja_free(jinja);
        jinja = NULL;
    }
    free(text);
    return jinja;
}

enum hd_err hd_token__chat_detect(struct hd_tokenizer *tok)
{
    enum hd_err err = HD_OK;
    tok->own = compile(tok, tok->chat_template);
    tok->own_with_tools = compile(tok, tok->tool_template);
    tok->form = form_of(tok);
    if (tok->form == HD_CHAT_CHATML)
        err = read_default_system(tok);
    tok->thinks = hd_token__is_deepseek(tok->form) ? tok->form != HD_CHAT_DEEPSEEK_V3
                                                   : tok->own && template_has(tok, "think>");
    const char *builtin = hd_token__builtin_template(tok->form);
    if (!err && builtin)
        err = hd_jinja_compile(&tok->builtin, builtin, strlen(builtin), NULL);
    return err ? err : detect_tools(tok);
}

void hd_token__chat_dispose(struct hd_tokenizer *tok)
{
    hd_jinja_free(tok->own);
    hd_jinja_free(tok->own_with_tools);
    hd_jinja_free(tok->builtin);
    hd_jinja_free(tok->tool_prompt);
    free(tok->chat_template);
    free(tok->tool_template);
    free(tok->default_system);
    for (size_t i = 0; i < HD_TOKEN_N_SPECIAL; i++)
        free(tok->special_text[i]);
}

/* --- the conversation, checked ---------------------------------------------------------------- */

static enum hd_err take_call(struct hd_token__call *out, const json_t *json, size_t i, size_t k,
                             struct hd_errmsg *msg)
{
    const json_t *function = json_object_get(json, "function");
    const json_t *arguments = json_object_get(function, "arguments");
    out->id = json_string_value(json_object_get(json, "id"));
    out->name = json_string_value(json_object_get(function, "name"));
    if (!out->name)
        return hd_fail(msg, HD_ERR_INVALID,
                       "messages[%zu].tool_calls[%zu]: {\"id\",\"type\":\"function\",\"function\":"
                       "{\"name\",\"arguments\"}} is due",
                       i, k);
    if (arguments && !json_is_string(arguments) && !json_is_object(arguments))
        return hd_fail(msg, HD_ERR_INVALID,
                       "messages[%zu].tool_calls[%zu].function.arguments: a string is due", i, k);
    out->arguments = json_is_string(arguments) ? json_string_value(arguments) : NULL;
    if (json_is_object(arguments))
        out->object = json_incref((json_t *)(uintptr_t)arguments);
    else if (out->arguments && *out->arguments)
        out->object = json_loads(out->arguments, JSON_REJECT_DUPLICATES, NULL);
    else
        out->object = json_object();
    if (out->object && !json_is_object(out->object)) {
        json_decref(out->object);
        out->object = NULL;
    }
    return HD_OK;
}

static enum hd_err take_calls(struct hd_token__turn *turn, size_t i, struct hd_errmsg *msg)
{
    json_error_t error;
    turn->json = json_loads(turn->message->tool_calls, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_array(turn->json))
        return hd_fail(msg, HD_ERR_INVALID, "messages[%zu].tool_calls: no JSON list", i);
    size_t n = json_array_size(turn->json);
    turn->call = calloc(n ? n : 1, sizeof *turn->call);
    if (!turn->call)
        return hd_fail(msg, HD_ERR_NOMEM, "messages: out of memory");
    enum hd_err err = HD_OK;
    for (size_t k = 0; k < n && !err; k++) {
        err = take_call(&turn->call[k], json_array_get(turn->json, k), i, k, msg);
        turn->n_call++;
    }
    return err;
}

static enum hd_err take_turn(struct hd_token__turn *turn, const struct hd_chat_message *message,
                             size_t i, struct hd_errmsg *msg)
{
    const char *role = message->role ? message->role : "";
    bool assistant = !strcmp(role, "assistant");
    turn->message = message;
    if (strcmp(role, "system") && strcmp(role, "user") && !assistant && strcmp(role, "tool"))
        return hd_fail(msg, HD_ERR_INVALID,
                       "messages[%zu].role: \"%.32s\" (system, user, assistant or tool is due)", i,
                       role);
    if (message->tool_calls && !assistant)
        return hd_fail(msg, HD_ERR_INVALID, "messages[%zu].tool_calls: only the assistant calls",
                       i);
    enum hd_err err = message->tool_calls ? take_calls(turn, i, msg) : HD_OK;
    if (!err && !message->content && !turn->n_call)
        err = hd_fail(msg, HD_ERR_INVALID, "messages[%zu].content: missing", i);
    return err;
}

enum hd_err hd_token__conversation(struct hd_token__conversation *out,
                                   const struct hd_chat_message *messages, size_t n,
                                   const struct hd_chat_options *options, struct hd_errmsg *msg)
{
    *out = (struct hd_token__conversation){.turn = calloc(n ? n : 1, sizeof *out->turn)};
    if (!out->turn)
        return hd_fail(msg, HD_ERR_NOMEM, "messages: out of memory");
    hd_buf_init(&out->system_text, HD_TOKEN_MAX_TEXT);
    out->no_think = options && options->no_think;
    out->ask_think = options && options->ask_think && !options->no_think;
    out->now = options && options->now ? options->now : hd_clock_unix();
    if (options && options->tools) {
        out->tools = json_loads(options->tools, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_array(out->tools))
            return hd_fail(msg, HD_ERR_INVALID, "tools: no JSON list");
        if (!json_array_size(out->tools)) {
            json_decref(out->tools);
            out->tools = NULL;
        }
    }
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < n && !err; i++) {
        err = take_turn(&out->turn[i], &messages[i], i, msg);
        out->n_turn++;
    }
    return err;
}

void hd_token__conversation_dispose(struct hd_token__conversation *talk)
{
    for (size_t i = 0; i < talk->n_turn; i++) {
        for (size_t k = 0; k < talk->turn[i].n_call; k++)
            json_decref(talk->turn[i].call[k].object);
        free(talk->turn[i].call);
        json_decref(talk->turn[i].json);
    }
    free(talk->turn);
    hd_buf_dispose(&talk->system_text);
    json_decref(talk->tools);
    *talk = (struct hd_token__conversation){0};
}

/* --- rendering -------------------------------------------------------------------------------- */

static bool has_tools(const struct hd_token__conversation *talk)
{
    for (size_t i = 0; i < talk->n_turn; i++)
        if (talk->turn[i].n_call || !strcmp(talk->turn[i].message->role, "tool"))
            return true;
    return talk->tools != NULL;
}

static enum hd_err choose(const struct hd_jinja **out, const struct hd_tokenizer *tok,
                          const struct hd_token__conversation *talk, struct hd_errmsg *msg)
{
    bool tools = has_tools(talk);
    *out = NULL;
    if (tools && tok->own_calls)
        *out = tok->own_with_tools ? tok->own_with_tools : tok->own;
    else if (tools || !tok->own)
        *out = tok->builtin;
    else
        *out = tok->own;
    if (*out)
        return HD_OK;
    if (tok->own)
        return hd_fail(msg, HD_ERR_INVALID,
                       "tools: this model's chat template has no place for them");
    return hd_fail(msg, HD_ERR_UNSUPPORTED,
                   "chat: the model has no chat form that we know (use generate --raw)");
}

static enum hd_err render(const struct hd_tokenizer *tok, struct hd_ids *out,
                          const struct hd_chat_message *messages, size_t n,
                          const struct hd_chat_options *options, struct hd_errmsg *msg)
{
    struct hd_token__conversation talk;
    struct hd_jinja_output text;
    struct hd_jinja_run *run = NULL, *tell = NULL;
    const struct hd_jinja *jinja = NULL;
    struct hd_errmsg why = {0};
    enum hd_err err = hd_token__conversation(&talk, messages, n, options, msg);
    if (!err)
        err = choose(&jinja, tok, &talk, msg);
    if (!err) {
        if (talk.tools && jinja != tok->builtin && tok->tool_prompt)
            err = hd_token__tell_tools(&tell, tok, &talk, tok->plain_calls, &why);
        if (!err)
            err = hd_token__render(&run, &text, tok, jinja, &talk, &why);
        if (err)
            hd_fail(msg, err, "chat template: %.400s", why.text);
        else if ((err = hd_token__prompt(tok, out, &text, talk.no_think, talk.ask_think)))
            hd_fail(msg, err, "chat: %s", hd_err_text(err));
    }
    hd_jinja_run_free(run);
    hd_jinja_run_free(tell);
    hd_token__conversation_dispose(&talk);
    return err;
}

enum hd_err hd_chat_render(const struct hd_tokenizer *tok, struct hd_ids *out,
                           const struct hd_chat_message *messages, size_t n,
                           const struct hd_chat_options *options, struct hd_errmsg *msg)
{
    if (!options || !options->ask_think || options->no_think || tok->thinks)
        return render(tok, out, messages, n, options, msg);
    struct hd_token__asked asked;
    size_t before = out->n;
    enum hd_err err = hd_token__ask(&asked, tok, messages, n, false, msg);
    if (!err && (err = render(tok, out, asked.message, asked.n, options, msg)) == HD_ERR_INVALID) {
        /* a template that takes no system message: the question says it then */
        hd_token__asked_dispose(&asked);
        out->n = before;
        struct hd_errmsg second = {0};
        err = hd_token__ask(&asked, tok, messages, n, true, &second);
        if (!err)
            err = render(tok, out, asked.message, asked.n, options, &second);
    }
    hd_token__asked_dispose(&asked);
    return err;
}
