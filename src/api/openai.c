/* The answers of POST /v1/chat/completions and /v1/completions; params.c reads their requests. */
#include <stdlib.h>
#include <string.h>

#include "api/surface.h"

static const char *finish_reason(const struct hd_api__gen *gen)
{
    static const char *const names[] = {"stop", "length", "tool_calls"};
    return names[hd_api__finish_of(gen)];
}

static json_t *usage_json(const struct hd_result *r)
{
    return json_pack("{s:i,s:i,s:i,s:{s:i},s:{s:i}}", "prompt_tokens", r->n_prompt,
                     "completion_tokens", r->n_generated, "total_tokens",
                     r->n_prompt + r->n_generated, "prompt_tokens_details", "cached_tokens",
                     r->n_cached, "completion_tokens_details", "reasoning_tokens", r->n_reasoning);
}

/* --- streaming
 * ------------------------------------------------------------------------------------ */

/* Begins an event: id, and the fields that every chunk has. */
static void chunk_open(struct hd_api__gen *gen, struct hd_buf *out)
{
    hd_api__event_open(gen, out, NULL);
    hd_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", gen->id,
                  gen->surface->chat ? "chat.completion.chunk" : "text_completion",
                  (long long)gen->created);
    hd_api__put_json(out, gen->model, strlen(gen->model));
}

static void chunk_close(struct hd_buf *out)
{
    hd_buf_puts(out, "}\n\n");
}

static void begin(struct hd_api__gen *gen, struct hd_buf *out)
{
    if (!gen->surface->chat)
        return;
    chunk_open(gen, out);
    hd_buf_puts(out,
                ",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"
                ",\"finish_reason\":null}]");
    chunk_close(out);
}

static void put_text(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                     const char *text, size_t len)
{
    bool chat = gen->surface->chat;
    chunk_open(gen, out);
    hd_buf_puts(out, ",\"choices\":[{\"index\":0,");
    if (!chat)
        hd_buf_puts(out, "\"text\":");
    else
        hd_buf_printf(
            out, "\"delta\":{\"%s\":", kind == HD_TEXT_REASONING ? "reasoning_content" : "content");
    hd_api__put_json(out, text, len);
    hd_buf_printf(out, "%s,\"finish_reason\":null}]", chat ? "}" : "");
    chunk_close(out);
}

static void put_call(struct hd_api__gen *gen, struct hd_buf *out,
                     const struct hd_api__tool_call *call)
{
    chunk_open(gen, out);
    hd_buf_puts(out, ",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[");
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

static void end(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds)
{
    const char *key;
    json_t *value;
    chunk_open(gen, out);
    hd_buf_printf(out, ",\"choices\":[{\"index\":0,%s,\"finish_reason\":\"%s\"}]",
                  gen->surface->chat ? "\"delta\":{}" : "\"text\":\"\"", finish_reason(gen));
    json_object_foreach(grounds, key, value) append_member(out, key, json_incref(value));
    chunk_close(out);
    if (gen->params.include_usage) {
        chunk_open(gen, out);
        hd_buf_puts(out, ",\"choices\":[]");
        append_member(out, "usage", usage_json(&gen->result));
        chunk_close(out);
    }
    hd_buf_puts(out, "data: [DONE]\n\n");
}

static void fail(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault)
{
    hd_api__event_open(gen, out, "error");
    hd_api__put_error(out, fault->status, fault->code, fault->param, fault->msg.text);
    hd_buf_puts(out, "\n\ndata: [DONE]\n\n");
}

/* --- at once
 * -------------------------------------------------------------------------------------- */

static json_t *whole(struct hd_api__gen *gen, json_t *grounds)
{
    bool chat = gen->surface->chat;
    json_t *choice = json_object(), *body = json_object();
    json_object_set_new(choice, "index", json_integer(0));
    json_t *text = gen->n_call && !gen->answer.len
                       ? json_null()
                       : json_stringn(hd_buf_str(&gen->answer), gen->answer.len);
    if (chat) {
        json_t *message = json_pack("{s:s,s:o}", "role", "assistant", "content", text);
        if (gen->reasoning.len)
            json_object_set_new(message, "reasoning_content",
                                json_stringn(gen->reasoning.data, gen->reasoning.len));
        if (gen->calls)
            json_object_set(message, "tool_calls", gen->calls);
        json_object_set_new(choice, "message", message);
    } else {
        json_object_set_new(choice, "text", text);
    }
    json_object_set_new(choice, "logprobs", json_null());
    json_object_set_new(choice, "finish_reason", json_string(finish_reason(gen)));
    json_object_set_new(body, "id", json_string(gen->id));
    json_object_set_new(body, "object", json_string(chat ? "chat.completion" : "text_completion"));
    json_object_set_new(body, "created", json_integer(gen->created));
    json_object_set_new(body, "model", json_string(gen->model));
    json_object_set_new(body, "choices", json_pack("[o]", choice));
    if (grounds)
        json_object_update(body, grounds);
    json_object_set_new(body, "usage", usage_json(&gen->result));
    return body;
}

const struct hd_api__surface hd_api__chat_completions = {
    .pattern = "/v1/chat/completions",
    .chat = true,
    .id_prefix = "chatcmpl-",
    .call_prefix = "call_",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = hd_api__params_chat,
    .begin = begin,
    .text = put_text,
    .call = put_call,
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
    .call = put_call,
    .end = end,
    .fail = fail,
    .whole = whole,
};
