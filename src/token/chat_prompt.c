/* From a conversation to prompt ids: variables for a template, its text, and the tokens of that.
 *
 * Whatever the request brings (contents, tool definitions, calls and results) is marked as such by
 * the interpreter, byte by byte; added tokens are recognised in the template's own bytes alone. All
 * text between two special tokens is tokenized as one piece, as the reference does. */
#include <stdlib.h>
#include <string.h>

#include "token/token_impl.h"

/* --- variables -------------------------------------------------------------------------------- */

static struct hd_jinja_value trusted(struct hd_jinja_run *run, const char *text)
{
    return hd_jinja_string(run, text, strlen(text), false);
}

static struct hd_jinja_value from_request(struct hd_jinja_run *run, const char *text)
{
    return text ? hd_jinja_string(run, text, strlen(text), true) : hd_jinja_none();
}

static const char *after_thought(const char *content)
{
    static const char close[] = "</think>";
    for (const char *at; (at = strstr(content, close));)
        content = at + sizeof close - 1;
    return content;
}

/* The arguments of a call: OpenAI's API has them as JSON text, templates want an object. */
static struct hd_jinja_value arguments(struct hd_jinja_run *run, const struct hd_token__call *call)
{
    if (!call->object)
        return from_request(run, call->arguments);
    struct hd_jinja_value dict = hd_jinja_json(run, call->object, true);
    if (call->arguments)
        hd_jinja_dict_text(run, dict, call->arguments, strlen(call->arguments));
    return dict;
}

static struct hd_jinja_value calls(struct hd_jinja_run *run, const struct hd_token__turn *turn)
{
    struct hd_jinja_value list = hd_jinja_list(run);
    for (size_t i = 0; i < turn->n_call; i++) {
        const struct hd_token__call *call = &turn->call[i];
        struct hd_jinja_value one = hd_jinja_dict(run), function = hd_jinja_dict(run);
        if (call->id)
            hd_jinja_put(run, one, "id", from_request(run, call->id));
        hd_jinja_put(run, one, "type", trusted(run, "function"));
        hd_jinja_put(run, function, "name", from_request(run, call->name));
        hd_jinja_put(run, function, "arguments", arguments(run, call));
        hd_jinja_put(run, one, "function", function);
        hd_jinja_push(run, list, one);
    }
    return list;
}

static struct hd_jinja_value message(struct hd_jinja_run *run, const struct hd_tokenizer *tok,
                                     const struct hd_token__turn *turn, bool asked)
{
    bool drops_thoughts = asked || (hd_token__is_deepseek(tok->form) && tok->thinks);
    struct hd_jinja_value dict = hd_jinja_dict(run);
    const struct hd_chat_message *m = turn->message;
    bool assistant = !strcmp(m->role, "assistant");
    const char *content = m->content;
    if (content && assistant && drops_thoughts)
        content = after_thought(content);
    hd_jinja_put(run, dict, "role", trusted(run, m->role));
    if (!content && tok->empty_calls)
        content = "";
    hd_jinja_put(run, dict, "content", from_request(run, content));
    if (turn->n_call)
        hd_jinja_put(run, dict, "tool_calls", calls(run, turn));
    if (m->tool_call_id)
        hd_jinja_put(run, dict, "tool_call_id", from_request(run, m->tool_call_id));
    if (m->name)
        hd_jinja_put(run, dict, "name", from_request(run, m->name));
    return dict;
}

static void set_special(struct hd_jinja_run *run, const char *name, const char *text)
{
    if (text)
        hd_jinja_set(run, name, trusted(run, text));
}

/* DeepSeek's hybrids answer at once unless asked to think; here all that can think do, unless asked
 * not to. Other templates know best what their absence means. */
static void set_thinking(struct hd_jinja_run *run, const struct hd_tokenizer *tok, bool no_think)
{
    bool deepseek = hd_token__is_deepseek(tok->form);
    if (deepseek || no_think)
        hd_jinja_set(run, "enable_thinking", hd_jinja_bool(!no_think));
    if (deepseek || no_think)
        hd_jinja_set(run, "thinking", hd_jinja_bool(!no_think));
}

static void set_variables(struct hd_jinja_run *run, const struct hd_tokenizer *tok,
                          const struct hd_token__conversation *talk)
{
    struct hd_jinja_value list = hd_jinja_list(run);
    bool told = talk->system.text != NULL;
    if (told) {
        struct hd_jinja_value first = hd_jinja_dict(run);
        hd_jinja_put(run, first, "role", trusted(run, "system"));
        hd_jinja_put(run, first, "content", hd_jinja_text(run, &talk->system));
        hd_jinja_push(run, list, first);
    }
    for (size_t i = 0; i < talk->n_turn; i++)
        if (!told || strcmp(talk->turn[i].message->role, "system") != 0)
            hd_jinja_push(run, list, message(run, tok, &talk->turn[i], talk->ask_think));
    hd_jinja_set(run, "messages", list);
    hd_jinja_set(run, "tools",
                 talk->tools ? hd_jinja_json(run, talk->tools, true) : hd_jinja_none());
    hd_jinja_set(run, "documents", hd_jinja_none());
    hd_jinja_set(run, "add_generation_prompt", hd_jinja_bool(true));
    set_thinking(run, tok, talk->no_think);
    set_special(run, "bos_token", tok->special_text[HD_TOKEN_BOS]);
    set_special(run, "eos_token", tok->special_text[HD_TOKEN_EOS]);
    set_special(run, "pad_token", tok->special_text[HD_TOKEN_PAD]);
    set_special(run, "unk_token", tok->special_text[HD_TOKEN_UNK]);
}

/* What only our own templates read. */
static void set_builtin_variables(struct hd_jinja_run *run, const struct hd_tokenizer *tok)
{
    bool trims = !tok->chat_template || strstr(tok->chat_template, "trim");
    if (hd_token__is_deepseek(tok->form))
        set_special(run, "bos_token", "<｜begin▁of▁sentence｜>");
    if (tok->form == HD_CHAT_LLAMA3)
        set_special(run, "bos_token", "<|begin_of_text|>");
    hd_jinja_set(run, "joins", hd_jinja_bool(tok->form != HD_CHAT_DEEPSEEK_R1_DISTILL));
    hd_jinja_set(run, "trims", hd_jinja_bool(trims));
    hd_jinja_set(run, "default_system",
                 tok->default_system ? trusted(run, tok->default_system) : hd_jinja_none());
}

enum hd_err hd_token__tell_tools(struct hd_jinja_run **out_run, const struct hd_tokenizer *tok,
                                 struct hd_token__conversation *talk, bool plain,
                                 struct hd_errmsg *msg)
{
    static const struct hd_jinja_limits limits = HD_JINJA_LIMITS_DEFAULT;
    struct hd_jinja_run *run;
    bool joins = tok->form != HD_CHAT_DEEPSEEK_R1_DISTILL, some = false;
    *out_run = NULL;
    enum hd_err err = hd_jinja_run_new(&run, tok->tool_prompt, &limits, talk->now);
    if (err)
        return hd_fail(msg, err, "out of memory");
    for (size_t i = 0; i < talk->n_turn; i++) {
        const struct hd_chat_message *m = talk->turn[i].message;
        if (strcmp(m->role, "system"))
            continue;
        if (!joins)
            hd_buf_clear(&talk->system_text);
        else if (some)
            hd_buf_puts(&talk->system_text, "\n\n");
        hd_buf_puts(&talk->system_text, m->content);
        some = true;
    }
    hd_jinja_set(run, "system", from_request(run, hd_buf_str(&talk->system_text)));
    hd_jinja_set(run, "tools", hd_jinja_json(run, talk->tools, true));
    hd_jinja_set(run, "plain", hd_jinja_bool(plain));
    err = talk->system_text.err ? hd_fail(msg, talk->system_text.err, "out of memory")
                                : hd_jinja_render(run, &talk->system, msg);
    if (err)
        hd_jinja_run_free(run);
    else
        *out_run = run;
    return err;
}

enum hd_err hd_token__render(struct hd_jinja_run **out_run, struct hd_jinja_output *out,
                             const struct hd_tokenizer *tok, const struct hd_jinja *jinja,
                             const struct hd_token__conversation *talk, struct hd_errmsg *msg)
{
    static const struct hd_jinja_limits limits = HD_JINJA_LIMITS_DEFAULT;
    struct hd_jinja_run *run;
    *out_run = NULL;
    enum hd_err err = hd_jinja_run_new(&run, jinja, &limits, talk->now);
    if (err)
        return hd_fail(msg, err, "out of memory");
    set_variables(run, tok, talk);
    if (jinja == tok->builtin)
        set_builtin_variables(run, tok);
    err = hd_jinja_render(run, out, msg);
    if (err)
        hd_jinja_run_free(run);
    else
        *out_run = run;
    return err;
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* Plain text gathers until a special token: words may reach across a content's edge. */
struct prompt {
    const struct hd_tokenizer *tok;
    struct hd_ids *out;
    struct hd_buf text;
};

static enum hd_err flush(struct prompt *prompt)
{
    enum hd_err err = prompt->text.err;
    if (!err && prompt->text.len)
        err = hd_tokenizer_encode(prompt->tok, prompt->out, prompt->text.data, prompt->text.len,
                                  false);
    hd_buf_clear(&prompt->text);
    return err;
}

static enum hd_err put(void *ud, int32_t id, const char *text, size_t len)
{
    struct prompt *prompt = ud;
    if (id < 0)
        return hd_buf_append(&prompt->text, text, len);
    enum hd_err err = flush(prompt);
    return err ? err : hd_ids_push(prompt->out, id);
}

static enum hd_err put_raw(void *ud, int32_t id, const char *text, size_t len)
{
    struct prompt *prompt = ud;
    if (id >= 0)
        return put(prompt, id, text, len);
    return hd_token__added_split(prompt->tok, &prompt->tok->normalized, text, len, put, prompt);
}

static enum hd_err put_template_text(struct prompt *prompt, const char *text, size_t len)
{
    return hd_token__added_split(prompt->tok, &prompt->tok->raw, text, len, put_raw, prompt);
}

static bool is_request(const struct hd_jinja_output *text, size_t i)
{
    return text->mask ? text->mask[i] : text->request;
}

/* Whether the template's own text `what` stands at byte i. */
static bool stands(const struct hd_jinja_output *text, size_t i, const char *what)
{
    size_t n = strlen(what);
    if (text->len - i < n || memcmp(text->text + i, what, n) != 0)
        return false;
    for (size_t k = 0; k < n; k++)
        if (is_request(text, i + k))
            return false;
    return true;
}

/* What R1's prompts must end with and some of its templates leave out: the thought's beginning,
 * and, where no thought is wanted, its end. Found behind the last mark of a turn's beginning. */
static enum hd_err put_thought(struct prompt *prompt, const struct hd_jinja_output *text,
                               bool no_think)
{
    bool deepseek = hd_token__is_deepseek(prompt->tok->form), open = false, any = false;
    size_t i = text->len;
    for (; i-- > 0 && !any;) {
        if (stands(text, i, "</think>") || stands(text, i, "<think>")) {
            open = text->text[i + 1] == 't';
            any = true;
        } else if (deepseek && stands(text, i, "<｜Assistant｜>")) {
            break;
        }
    }
    enum hd_err err = HD_OK;
    static const char turn[] = "<｜Assistant｜>";
    if (deepseek && !any && text->len >= sizeof turn - 1 &&
        stands(text, text->len - (sizeof turn - 1), turn)) {
        err = put_template_text(prompt, "<think>\n", 8);
        open = true;
    }
    if (!err && no_think && open)
        err = put_template_text(prompt, "</think>", 8);
    return err;
}

enum hd_err hd_token__prompt(const struct hd_tokenizer *tok, struct hd_ids *out,
                             const struct hd_jinja_output *text, bool no_think, bool ask_think)
{
    struct prompt prompt = {.tok = tok, .out = out};
    enum hd_err err = HD_OK;
    hd_buf_init(&prompt.text, HD_TOKEN_MAX_TEXT);
    for (size_t i = 0; i < text->len && !err;) {
        bool request = is_request(text, i);
        size_t end = i + 1;
        if (!text->mask)
            end = text->len;
        while (end < text->len && is_request(text, end) == request)
            end++;
        err = request ? hd_buf_append(&prompt.text, text->text + i, end - i)
                      : put_template_text(&prompt, text->text + i, end - i);
        i = end;
    }
    if (!err && tok->thinks)
        err = put_thought(&prompt, text, no_think);
    else if (!err && ask_think)
        err = put_template_text(&prompt, "<think>\n", 8);
    if (!err)
        err = flush(&prompt);
    hd_buf_dispose(&prompt.text);
    return err;
}
