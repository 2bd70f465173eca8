/* Chat forms: messages to prompt ids, each form written out as its model's published template does
 * it (deepseek-ai/DeepSeek-R1 and its distills, MIT; Qwen2.5, Apache-2.0; Llama 3). Contents are
 * plain text to the tokenizer; only the role tokens that we place are special. */
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>

#include "base/utf8.h"
#include "token/token_impl.h"

enum { MAX_PROMPT = HD_TOKEN_MAX_TEXT };

/* --- which form ------------------------------------------------------------------------------- */

static bool has(const struct hd_tokenizer *tok, const char *special)
{
    return hd_tokenizer_special(tok, special) >= 0;
}

static bool template_has(const struct hd_tokenizer *tok, const char *text)
{
    return tok->chat_template && strstr(tok->chat_template, text);
}

/* The 671B's template joins several system messages (its variable is_first_sp); the distills keep
 * the last one. A distill is also known by the Qwen or Llama tokens that its vocabulary kept. */
static enum hd_chat_form deepseek_form(const struct hd_tokenizer *tok)
{
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
    static const char open[] = "<|im_start|>system\\n", close[] = "<|im_end|>";
    for (const char *at = tok->chat_template; at && (at = strstr(at, open));) {
        at += sizeof open - 1;
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

enum hd_err hd_token__chat_detect(struct hd_tokenizer *tok)
{
    if (has(tok, "<｜User｜>") && has(tok, "<｜Assistant｜>") &&
        has(tok, "<｜end▁of▁sentence｜>")) {
        tok->form = deepseek_form(tok);
    } else if (has(tok, "<|start_header_id|>") && has(tok, "<|end_header_id|>") &&
               has(tok, "<|eot_id|>")) {
        tok->form = HD_CHAT_LLAMA3;
    } else if (has(tok, "<|im_start|>") && has(tok, "<|im_end|>")) {
        tok->form = HD_CHAT_CHATML;
        return read_default_system(tok);
    }
    return HD_OK;
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
    case HD_CHAT_CHATML:
        return "chatml";
    case HD_CHAT_LLAMA3:
        return "llama3";
    case HD_CHAT_NONE:
        break;
    }
    return "none";
}

bool hd_chat_form_thinks(enum hd_chat_form form)
{
    return form == HD_CHAT_DEEPSEEK_R1 || form == HD_CHAT_DEEPSEEK_R1_DISTILL;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Plain text gathers until a special token: words may reach across a content's edge, exactly as
 * when the rendered template is tokenised. The first failure stays in err. */
struct prompt {
    const struct hd_tokenizer *tok;
    struct hd_ids *out;
    struct hd_buf text;
    enum hd_err err;
};

static void put_text(struct prompt *prompt, const char *text, size_t len)
{
    if (!prompt->err)
        prompt->err = hd_buf_append(&prompt->text, text, len);
}

static void put(struct prompt *prompt, const char *text)
{
    put_text(prompt, text, strlen(text));
}

static void flush(struct prompt *prompt)
{
    if (!prompt->err && prompt->text.len)
        prompt->err = hd_tokenizer_encode(prompt->tok, prompt->out, prompt->text.data,
                                          prompt->text.len, false);
    hd_buf_clear(&prompt->text);
}

/* A token of the form; as plain text where the vocabulary lacks it (<think> in old files). */
static void put_special(struct prompt *prompt, const char *name)
{
    int32_t id = hd_tokenizer_special(prompt->tok, name);
    if (id < 0) {
        put(prompt, name);
        return;
    }
    flush(prompt);
    if (!prompt->err)
        prompt->err = hd_ids_push(prompt->out, id);
}

static bool is(const struct hd_chat_message *message, const char *role)
{
    return !strcmp(message->role, role);
}

/* --- the forms -------------------------------------------------------------------------------- */

static void put_r1_system(struct prompt *prompt, const struct hd_chat_message *messages, size_t n)
{
    bool joins = prompt->tok->form == HD_CHAT_DEEPSEEK_R1;
    const char *last = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!is(&messages[i], "system"))
            continue;
        if (joins && last)
            put(prompt, "\n\n");
        if (joins)
            put(prompt, messages[i].content);
        last = messages[i].content;
    }
    if (!joins && last)
        put(prompt, last);
}

/* Thoughts of earlier turns are not shown to the model again. */
static const char *after_thought(const char *content)
{
    static const char close[] = "</think>";
    for (const char *at; (at = strstr(content, close));)
        content = at + sizeof close - 1;
    return content;
}

static void render_r1(struct prompt *prompt, const struct hd_chat_message *messages, size_t n,
                      bool no_think)
{
    put_special(prompt, "<｜begin▁of▁sentence｜>");
    put_r1_system(prompt, messages, n);
    for (size_t i = 0; i < n; i++) {
        if (is(&messages[i], "user")) {
            put_special(prompt, "<｜User｜>");
            put(prompt, messages[i].content);
        } else if (is(&messages[i], "assistant")) {
            put_special(prompt, "<｜Assistant｜>");
            put(prompt, after_thought(messages[i].content));
            put_special(prompt, "<｜end▁of▁sentence｜>");
        }
    }
    put_special(prompt, "<｜Assistant｜>");
    put_special(prompt, "<think>");
    put(prompt, "\n");
    if (no_think)
        put_special(prompt, "</think>");
}

static void put_chatml_turn(struct prompt *prompt, const char *role, const char *content)
{
    put_special(prompt, "<|im_start|>");
    put(prompt, role);
    put(prompt, "\n");
    put(prompt, content);
    put_special(prompt, "<|im_end|>");
    put(prompt, "\n");
}

static void render_chatml(struct prompt *prompt, const struct hd_chat_message *messages, size_t n)
{
    if (prompt->tok->default_system && !(n && is(&messages[0], "system")))
        put_chatml_turn(prompt, "system", prompt->tok->default_system);
    for (size_t i = 0; i < n; i++)
        put_chatml_turn(prompt, messages[i].role, messages[i].content);
    put_special(prompt, "<|im_start|>");
    put(prompt, "assistant\n");
}

/* Whitespace as Python's str.strip sees it. */
static bool is_space(unsigned c)
{
    return u_isUWhiteSpace((UChar32)c) || (c >= 0x1c && c <= 0x1f);
}

static void put_trimmed(struct prompt *prompt, const char *text)
{
    size_t len = strlen(text), begin = 0, end = 0;
    bool inside = false;
    for (size_t i = 0; i < len;) {
        unsigned c = 0;
        size_t step = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!step || !is_space(c)) {
            if (!inside)
                begin = i;
            inside = true;
            end = i + (step ? step : 1);
        }
        i += step ? step : 1;
    }
    put_text(prompt, text + begin, end - begin);
}

static void put_llama3_header(struct prompt *prompt, const char *role)
{
    put_special(prompt, "<|start_header_id|>");
    put(prompt, role);
    put_special(prompt, "<|end_header_id|>");
    put(prompt, "\n\n");
}

static void render_llama3(struct prompt *prompt, const struct hd_chat_message *messages, size_t n)
{
    bool trims = !prompt->tok->chat_template || template_has(prompt->tok, "trim");
    put_special(prompt, "<|begin_of_text|>");
    for (size_t i = 0; i < n; i++) {
        put_llama3_header(prompt, messages[i].role);
        if (trims)
            put_trimmed(prompt, messages[i].content);
        else
            put(prompt, messages[i].content);
        put_special(prompt, "<|eot_id|>");
    }
    put_llama3_header(prompt, "assistant");
}

static enum hd_err check_messages(const struct hd_chat_message *messages, size_t n,
                                  struct hd_errmsg *msg)
{
    for (size_t i = 0; i < n; i++) {
        const char *role = messages[i].role ? messages[i].role : "";
        if (strcmp(role, "system") && strcmp(role, "user") && strcmp(role, "assistant"))
            return hd_fail(msg, HD_ERR_INVALID,
                           "messages[%zu].role: \"%.32s\" (system, user or assistant is due)", i,
                           role);
        if (!messages[i].content)
            return hd_fail(msg, HD_ERR_INVALID, "messages[%zu].content: missing", i);
    }
    return HD_OK;
}

enum hd_err hd_chat_render(const struct hd_tokenizer *tok, struct hd_ids *out,
                           const struct hd_chat_message *messages, size_t n,
                           const struct hd_chat_options *options, struct hd_errmsg *msg)
{
    struct prompt prompt = {.tok = tok, .out = out};
    enum hd_err err = check_messages(messages, n, msg);
    if (err)
        return err;
    hd_buf_init(&prompt.text, MAX_PROMPT);
    switch (tok->form) {
    case HD_CHAT_NONE:
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "chat: the model has no chat form that we know (use generate --raw)");
    case HD_CHAT_DEEPSEEK_R1:
    case HD_CHAT_DEEPSEEK_R1_DISTILL:
        render_r1(&prompt, messages, n, options && options->no_think);
        break;
    case HD_CHAT_CHATML:
        render_chatml(&prompt, messages, n);
        break;
    case HD_CHAT_LLAMA3:
        render_llama3(&prompt, messages, n);
        break;
    }
    flush(&prompt);
    hd_buf_dispose(&prompt.text);
    return prompt.err ? hd_fail(msg, prompt.err, "chat: %s", hd_err_text(prompt.err)) : HD_OK;
}
