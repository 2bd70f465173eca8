/* Asking for a thought: the prompt form of models that think only when they are told to.
 *
 * The system message (the model's default one where the conversation brings none) says in the
 * language of the last question what is expected, and the assistant's turn begins with "<think>".
 * So the conversation's beginning stays the same from turn to turn, which the prefix cache likes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "token/token_impl.h"

static const char ask_en[] =
    "Think first, then answer. Think step by step about the question between <think> and "
    "</think>, once and briefly. After </think>, write the complete final answer for the user.";
static const char ask_zh[] =
    "请先思考，再回答。先在<think>和</think>之间一步一步地简短思考，只思考一次。"
    "在</think>之后，为用户写出完整的最终答案。";

static bool is_chinese(const char *text)
{
    size_t len = text ? strlen(text) : 0, step, need;
    for (size_t i = 0; i < len; i += step ? step : 1) {
        unsigned c = 0;
        step = hd_utf8_decode(&c, text + i, len - i, &need);
        if (step && c >= 0x4e00 && c <= 0x9fff)
            return true;
    }
    return false;
}

static const struct hd_chat_message *last_question(const struct hd_chat_message *messages, size_t n)
{
    while (n-- > 0)
        if (messages[n].role && !strcmp(messages[n].role, "user"))
            return &messages[n];
    return NULL;
}

enum hd_err hd_token__ask(struct hd_token__asked *out, const struct hd_tokenizer *tok,
                          const struct hd_chat_message *messages, size_t n, bool in_question,
                          struct hd_errmsg *msg)
{
    const struct hd_chat_message *question = last_question(messages, n);
    const char *ask = question && is_chinese(question->content) ? ask_zh : ask_en;
    bool has_system = n && messages[0].role && !strcmp(messages[0].role, "system");
    struct hd_buf text;
    size_t at = in_question && question ? (size_t)(question - messages) : 0;
    bool insert = !has_system && !(in_question && question);
    *out = (struct hd_token__asked){.message = calloc(n + 1, sizeof *out->message)};
    if (!out->message)
        return hd_fail(msg, HD_ERR_NOMEM, "messages: out of memory");
    if (n)
        memcpy(out->message + insert, messages, n * sizeof *messages);
    out->n = n + insert;
    const char *before = insert ? tok->default_system : messages[at].content;
    hd_buf_init(&text, HD_TOKEN_MAX_TEXT);
    hd_buf_puts(&text, before ? before : "");
    hd_buf_puts(&text, text.len ? "\n\n" : "");
    hd_buf_puts(&text, ask);
    out->text = text.err ? NULL : hd_buf_take(&text);
    hd_buf_dispose(&text);
    if (!out->text)
        return hd_fail(msg, HD_ERR_NOMEM, "messages: out of memory");
    if (insert)
        out->message[0].role = "system";
    out->message[at].content = out->text;
    return HD_OK;
}

void hd_token__asked_dispose(struct hd_token__asked *asked)
{
    free(asked->message);
    free(asked->text);
    *asked = (struct hd_token__asked){0};
}
