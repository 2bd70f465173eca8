/* The answers of POST /v1/chat/completions and /v1/completions; params.c reads their requests. */
#include <stdlib.h>
#include <string.h>

#include "api/surface.h"

#include <math.h>

#include "base/utf8.h"

static const char *finish_reason(const struct hd_api__gen *gen)
{
    static const char *const names[] = {"stop", "length", "tool_calls"};
    return names[hd_api__finish_of(gen)];
}

/* What OpenAI's finish_reason has no word for, or NULL. */
static const char *stop_reason(const struct hd_api__gen *gen)
{
    const struct hd_result *r = &gen->c->result;
    if (!gen->c->has_result || r->finish != HD_FINISH_LENGTH)
        return NULL;
    return r->answer_loops ? "loop" : r->context_full ? "context" : NULL;
}

static json_t *usage_json(const struct hd_result *r)
{
    return json_pack("{s:i,s:i,s:i,s:{s:i},s:{s:i}}", "prompt_tokens", r->n_prompt,
                     "completion_tokens", r->n_generated, "total_tokens",
                     r->n_prompt + r->n_generated, "prompt_tokens_details", "cached_tokens",
                     r->n_cached, "completion_tokens_details", "reasoning_tokens", r->n_reasoning);
}

/* --- log-probabilities ---------------------------------------------------------------------------
 */

/* A token that is part of a character is written as OpenAI's completions do: bytes:\xe4\xb8. */
static void put_token(struct hd_buf *out, const struct hd_token_chance *token)
{
    if (hd_utf8_valid(token->bytes, token->n_bytes)) {
        hd_api__put_json(out, token->bytes, token->n_bytes);
        return;
    }
    hd_buf_puts(out, "\"bytes:");
    for (size_t i = 0; i < token->n_bytes; i++)
        hd_buf_printf(out, "\\\\x%02x", (unsigned char)token->bytes[i]);
    hd_buf_putc(out, '"');
}

static void put_logprob(struct hd_buf *out, const struct hd_token_chance *token)
{
    hd_buf_printf(out, "%.7g", isfinite(token->logprob) ? (double)token->logprob : -9999.0);
}

static void put_chat_token(struct hd_buf *out, const struct hd_token_chance *token)
{
    hd_buf_puts(out, "{\"token\":");
    put_token(out, token);
    hd_buf_puts(out, ",\"logprob\":");
    put_logprob(out, token);
    hd_buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < token->n_bytes; i++)
        hd_buf_printf(out, "%s%u", i ? "," : "", (unsigned char)token->bytes[i]);
    hd_buf_putc(out, ']');
}

static void chat_logprobs(struct hd_api__gen *gen, const struct hd_token_report *report)
{
    struct hd_buf *out = &gen->c->logprobs[0];
    hd_buf_puts(out, out->len ? "," : "");
    put_chat_token(out, &report->token);
    hd_buf_puts(out, ",\"top_logprobs\":[");
    for (int i = 0; i < report->n_top; i++) {
        hd_buf_puts(out, i ? "," : "");
        put_chat_token(out, &report->top[i]);
        hd_buf_putc(out, '}');
    }
    hd_buf_puts(out, "]}");
}

/* tokens, token_logprobs, top_logprobs, text_offset: one list each. */
static void completion_logprobs(struct hd_api__gen *gen, const struct hd_token_report *report)
{
    struct hd_buf *list = gen->c->logprobs;
    for (size_t i = 0; i < 4; i++)
        hd_buf_puts(&list[i], list[0].len && (i || list[1].len) ? "," : "");
    put_token(&list[0], &report->token);
    put_logprob(&list[1], &report->token);
    hd_buf_puts(&list[2], report->n_top ? "{" : "null");
    for (int i = 0; i < report->n_top; i++) {
        hd_buf_puts(&list[2], i ? "," : "");
        put_token(&list[2], &report->top[i]);
        hd_buf_putc(&list[2], ':');
        put_logprob(&list[2], &report->top[i]);
    }
    hd_buf_puts(&list[2], report->n_top ? "}" : "");
    hd_buf_printf(&list[3], "%zu", gen->c->n_char);
    for (size_t i = 0; i < report->token.n_bytes; i++) /* beginnings of characters */
        gen->c->n_char += ((unsigned char)report->token.bytes[i] & 0xc0) != 0x80;
}

/* The value of "logprobs" of what has been gathered, which is then forgotten. */
static void put_logprobs(struct hd_api__gen *gen, struct hd_buf *out)
{
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    struct hd_buf *list = gen->c->logprobs;
    if (!gen->params.logprobs) {
        hd_buf_puts(out, "null");
        return;
    }
    if (hd_api__is_chat(gen))
        hd_buf_printf(out, "{\"content\":[%s],\"refusal\":null}", hd_buf_str(&list[0]));
    for (size_t i = 0; !hd_api__is_chat(gen) && i < 4; i++)
        hd_buf_printf(out, "%s\"%s\":[%s]%s", i ? "," : "{", names[i], hd_buf_str(&list[i]),
                      i == 3 ? "}" : "");
    for (size_t i = 0; i < 4; i++)
        hd_buf_clear(&list[i]);
}

/* A member of a streamed choice, where asked for. */
static void append_logprobs(struct hd_api__gen *gen, struct hd_buf *out)
{
    if (!gen->params.logprobs)
        return;
    hd_buf_puts(out, ",\"logprobs\":");
    put_logprobs(gen, out);
}

/* --- streaming
 * ------------------------------------------------------------------------------------ */

/* Begins an event: id, and the fields that every chunk has. */
static void chunk_open(struct hd_api__gen *gen, struct hd_buf *out)
{
    hd_api__event_open(gen, out, NULL);
    hd_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", gen->id,
                  hd_api__is_chat(gen) ? "chat.completion.chunk" : "text_completion",
                  (long long)gen->created);
    hd_api__put_json(out, gen->model, strlen(gen->model));
}

static void chunk_close(struct hd_buf *out)
{
    hd_buf_puts(out, "}\n\n");
}

static void put_text(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                     const char *text, size_t len)
{
    bool chat = hd_api__is_chat(gen);
    chunk_open(gen, out);
    hd_buf_printf(out, ",\"choices\":[{\"index\":%d,", gen->c->index);
    if (!chat)
        hd_buf_puts(out, "\"text\":");
    else
        hd_buf_printf(
            out, "\"delta\":{\"%s\":", kind == HD_TEXT_REASONING ? "reasoning_content" : "content");
    hd_api__put_json(out, text, len);
    hd_buf_puts(out, chat ? "}" : "");
    if (kind != HD_TEXT_REASONING)
        append_logprobs(gen, out);
    hd_buf_puts(out, ",\"finish_reason\":null}]");
    chunk_close(out);
}

static void begin(struct hd_api__gen *gen, struct hd_buf *out)
{
    if (!hd_api__is_chat(gen) && gen->params.echo)
        put_text(gen, out, HD_TEXT_ANSWER, gen->params.prompt, strlen(gen->params.prompt));
    if (!hd_api__is_chat(gen))
        return;
    chunk_open(gen, out);
    hd_buf_printf(out,
                  ",\"choices\":[{\"index\":%d,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"
                  ",\"finish_reason\":null}]",
                  gen->c->index);
    chunk_close(out);
}

static void put_call(struct hd_api__gen *gen, struct hd_buf *out,
                     const struct hd_api__tool_call *call)
{
    chunk_open(gen, out);
    hd_buf_printf(out, ",\"choices\":[{\"index\":%d,\"delta\":{\"tool_calls\":[", gen->c->index);
    hd_api__put_dump(out, json_pack("{s:s,s:s,s:O,s:I}", "id", call->id, "type", "function",
                                    "function", call->function, "index", (json_int_t)call->index));
    hd_buf_puts(out, "]},\"finish_reason\":null}]");
    chunk_close(out);
}

static void append_member(struct hd_buf *out, const char *name, json_t *value)
{
    hd_buf_printf(out, ",\"%s\":", name);
    hd_api__put_dump(out, value);
}

/* Begins the chunk that ends an answer. */
static void end_open(struct hd_api__gen *gen, struct hd_buf *out)
{
    chunk_open(gen, out);
    hd_buf_printf(out, ",\"choices\":[{\"index\":%d,%s", gen->c->index,
                  hd_api__is_chat(gen) ? "\"delta\":{}" : "\"text\":\"\"");
    append_logprobs(gen, out);
    hd_buf_printf(out, ",\"finish_reason\":\"%s\"", finish_reason(gen));
    if (stop_reason(gen))
        hd_buf_printf(out, ",\"stop_reason\":\"%s\"", stop_reason(gen));
    if (hd_api__reasoning_stop(gen))
        hd_buf_printf(out, ",\"reasoning_stop\":\"%s\"", hd_api__reasoning_stop(gen));
    hd_buf_puts(out, "}]");
}

static void end(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds)
{
    const char *key;
    json_t *value;
    end_open(gen, out);
    if (gen->c->result.n_dropped)
        hd_buf_printf(out, ",\"dropped_messages\":%d", gen->c->result.n_dropped);
    json_object_foreach(grounds, key, value) append_member(out, key, json_incref(value));
    chunk_close(out);
    if (gen->params.include_usage) {
        chunk_open(gen, out);
        hd_buf_puts(out, ",\"choices\":[]");
        append_member(out, "usage", usage_json(&gen->c->result));
        chunk_close(out);
    }
    hd_buf_puts(out, "data: [DONE]\n\n");
}

static void fail(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault)
{
    hd_api__event_open(gen, out, "error");
    hd_api__put_error(out, NULL, fault->status, fault->code, fault->param, fault->msg.text);
    hd_buf_puts(out, "\n\ndata: [DONE]\n\n");
}

/* --- at once
 * -------------------------------------------------------------------------------------- */

static json_t *logprobs_json(struct hd_api__gen *gen)
{
    struct hd_buf text;
    hd_buf_init(&text, (size_t)1 << 28);
    put_logprobs(gen, &text);
    json_t *value = json_loadb(hd_buf_str(&text), text.len, JSON_DECODE_ANY, NULL);
    hd_buf_dispose(&text);
    return value;
}

static json_t *text_json(const struct hd_api__gen *gen)
{
    const struct hd_api__params *p = &gen->params;
    if (gen->c->n_call && !gen->c->answer.len)
        return json_null();
    if (!p->echo)
        return json_stringn(hd_buf_str(&gen->c->answer), gen->c->answer.len);
    return json_pack("s+", p->prompt, hd_buf_str(&gen->c->answer));
}

static json_t *choice_json(struct hd_api__gen *gen)
{
    bool chat = hd_api__is_chat(gen);
    json_t *choice = json_object(), *text = text_json(gen);
    json_object_set_new(choice, "index", json_integer(gen->c->index));
    if (chat) {
        json_t *message = json_pack("{s:s,s:o}", "role", "assistant", "content", text);
        if (gen->c->reasoning.len)
            json_object_set_new(message, "reasoning_content",
                                json_stringn(gen->c->reasoning.data, gen->c->reasoning.len));
        if (gen->c->calls)
            json_object_set(message, "tool_calls", gen->c->calls);
        json_object_set_new(choice, "message", message);
    } else {
        json_object_set_new(choice, "text", text);
    }
    json_object_set_new(choice, "logprobs", logprobs_json(gen));
    json_object_set_new(choice, "finish_reason", json_string(finish_reason(gen)));
    if (stop_reason(gen))
        json_object_set_new(choice, "stop_reason", json_string(stop_reason(gen)));
    if (hd_api__reasoning_stop(gen))
        json_object_set_new(choice, "reasoning_stop", json_string(hd_api__reasoning_stop(gen)));
    return choice;
}

/* An answer that is not the last: written out, or kept for whole(). */
static void next(struct hd_api__gen *gen, struct hd_buf *out)
{
    if (gen->params.stream) {
        end_open(gen, out);
        chunk_close(out);
        return;
    }
    if (!gen->choices)
        gen->choices = json_array();
    json_array_append_new(gen->choices, choice_json(gen));
}

static json_t *whole(struct hd_api__gen *gen, json_t *grounds)
{
    bool chat = hd_api__is_chat(gen);
    json_t *body = json_object(), *choices = gen->choices ? gen->choices : json_array();
    gen->choices = NULL;
    json_array_append_new(choices, choice_json(gen));
    if (gen->c->result.n_dropped)
        json_object_set_new(body, "dropped_messages", json_integer(gen->c->result.n_dropped));
    json_object_set_new(body, "id", json_string(gen->id));
    json_object_set_new(body, "object", json_string(chat ? "chat.completion" : "text_completion"));
    json_object_set_new(body, "created", json_integer(gen->created));
    json_object_set_new(body, "model", json_string(gen->model));
    json_object_set_new(body, "choices", choices);
    if (grounds)
        json_object_update(body, grounds);
    json_object_set_new(body, "usage", usage_json(&gen->c->result));
    return body;
}

const struct hd_api__surface hd_api__chat_completions = {
    .pattern = "/v1/chat/completions",
    .id_prefix = "chatcmpl-",
    .call_prefix = "call_",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = hd_api__params_chat,
    .begin = begin,
    .text = put_text,
    .logprobs = chat_logprobs,
    .call = put_call,
    .next = next,
    .end = end,
    .fail = fail,
    .whole = whole,
};

const struct hd_api__surface hd_api__completions = {
    .pattern = "/v1/completions",
    .id_prefix = "cmpl-",
    .call_prefix = "call_",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = hd_api__params_completion,
    .begin = begin,
    .text = put_text,
    .logprobs = completion_logprobs,
    .call = put_call,
    .next = next,
    .end = end,
    .fail = fail,
    .whole = whole,
};
