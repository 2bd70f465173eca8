/* Calls of functions as grammars, in the forms that tool_calls.c reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/grammar/grammar_impl.h"
#include "token/token_impl.h"

enum { MOST_CALLS = 8 };

/* A mark of a call: its token, or its text where the vocabulary has no such token. */
static void put_mark(struct hd_buf *out, const struct hd_tokenizer *tok, const char *mark)
{
    if (hd_tokenizer_special(tok, mark) >= 0)
        hd_buf_printf(out, " %s ", mark);
    else {
        hd_buf_putc(out, ' ');
        hd_grammar__put_literal(out, mark, strlen(mark));
        hd_buf_putc(out, ' ');
    }
}

static enum hd_err put_name(struct hd_buf *out, const char *before, const char *name,
                            const char *behind)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s%s%s", before, name, behind);
    if (n < 0 || (size_t)n >= sizeof text)
        return HD_ERR_LIMIT;
    hd_grammar__put_literal(out, text, (size_t)n);
    return hd_buf_putc(out, ' ');
}

/* What one call looks like, around the rule of its arguments. */
static enum hd_err put_call(struct hd_buf *out, const struct hd_tokenizer *tok, const char *name,
                            const char *arguments)
{
    enum hd_err err;
    if (hd_token__is_deepseek(tok->form)) {
        put_mark(out, tok, "<｜tool▁call▁begin｜>");
        if (!tok->plain_calls)
            hd_buf_puts(out, "\"function\"");
        else if ((err = put_name(out, "", name, "")))
            return err;
        put_mark(out, tok, "<｜tool▁sep｜>");
        if (!tok->plain_calls && (err = put_name(out, "", name, "\n```json\n")))
            return err;
        hd_buf_puts(out, arguments);
        if (!tok->plain_calls)
            hd_buf_puts(out, " \"\\n```\"");
        put_mark(out, tok, "<｜tool▁call▁end｜>");
        return out->err;
    }
    bool llama = tok->form == HD_CHAT_LLAMA3;
    if (!llama)
        put_mark(out, tok, "<tool_call>");
    err = put_name(out, llama ? "{\"name\": \"" : "\n{\"name\": \"", name,
                   llama ? "\", \"parameters\": " : "\", \"arguments\": ");
    hd_buf_printf(out, "%s \"}%s\"", arguments, llama ? "" : "\\n");
    if (!llama)
        put_mark(out, tok, "</tool_call>");
    return err ? err : out->err;
}

static void put_root(struct hd_buf *out, const struct hd_tokenizer *tok, bool parallel)
{
    hd_buf_puts(out, "root ::=");
    if (hd_token__is_deepseek(tok->form)) {
        put_mark(out, tok, "<｜tool▁calls▁begin｜>");
        hd_buf_puts(out, "call");
        if (parallel)
            hd_buf_printf(out, " (\"\\n\" call){0,%d}", MOST_CALLS - 1);
        put_mark(out, tok, "<｜tool▁calls▁end｜>");
    } else {
        hd_buf_puts(out, " call");
        if (parallel && tok->form != HD_CHAT_LLAMA3) /* which makes one at a time */
            hd_buf_printf(out, " (\"\\n\" call){0,%d}", MOST_CALLS - 1);
    }
    hd_buf_putc(out, '\n');
}

static enum hd_err put_function(struct hd_buf *rules, struct hd_buf *calls,
                                const struct hd_tokenizer *tok, json_t *tool, size_t i,
                                struct hd_errmsg *msg)
{
    char rule[32], prefix[32], where[64];
    json_t *function = json_object_get(tool, "function");
    function = function ? function : tool;
    const char *name = json_string_value(json_object_get(function, "name"));
    json_t *parameters = json_object_get(function, "parameters");
    enum hd_err err;
    snprintf(rule, sizeof rule, "args%zu", i);
    snprintf(prefix, sizeof prefix, "a%zu-", i);
    snprintf(where, sizeof where, "tools[%zu].function.parameters", i);
    if (!json_object_size(parameters)) {
        err = hd_buf_printf(rules, "%s ::= object\n", rule);
    } else {
        json_t *schema = json_copy(parameters); /* arguments are an object, said or not */
        if (!json_object_get(schema, "type"))
            json_object_set_new(schema, "type", json_string("object"));
        err = hd_grammar__schema(rules, rule, prefix, where, schema, msg);
        json_decref(schema);
    }
    if (!err)
        err = put_call(calls, tok, name, rule);
    return err;
}

enum hd_err hd_grammar_from_tools(struct hd_buf *out, const struct hd_tokenizer *tok,
                                  const char *tools, const char *name, bool parallel,
                                  struct hd_errmsg *msg)
{
    json_t *list = json_loads(tools, JSON_REJECT_DUPLICATES, NULL), *tool;
    struct hd_buf calls;
    size_t i, n = 0;
    enum hd_err err = json_is_array(list) ? HD_OK : HD_ERR_INVALID;
    if (msg)
        msg->text[0] = 0;
    hd_buf_init(&calls, HD_GRAMMAR_MAX_TEXT);
    put_root(out, tok, parallel);
    hd_buf_puts(&calls, "call ::= ");
    json_array_foreach(list, i, tool)
    {
        json_t *function = json_object_get(tool, "function");
        const char *its = json_string_value(json_object_get(function ? function : tool, "name"));
        if (err || !its || (name && strcmp(name, its)))
            continue;
        hd_buf_puts(&calls, n++ ? " | " : "");
        err = put_function(out, &calls, tok, tool, i, msg);
    }
    if (!err && !n)
        err = hd_fail(msg, HD_ERR_INVALID, "tool_choice: there is no function \"%.64s\" in tools",
                      name ? name : "");
    if (!err)
        err = calls.err;
    if (!err) {
        hd_buf_printf(out, "%s\n", hd_buf_str(&calls));
        err = hd_buf_puts(out, hd_grammar__json);
    }
    hd_buf_dispose(&calls);
    json_decref(list);
    return err && msg && msg->text[0] ? err
           : err                      ? hd_fail(msg, err, "tools: %s", hd_err_text(err))
                                      : HD_OK;
}
