// room: token
/* A chat template, a NUL, and a JSON object of variables: it compiles and renders within its
 * limits or is refused with a line. The same text then goes through the search for calls, whose
 * result must be calls or nothing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/jinja/jinja.h"
#include "token/token_impl.h"

static void render(const struct hd_jinja *jinja, json_t *context)
{
    static const struct hd_jinja_limits limits = {
        .max_steps = 200000, .max_memory = 8 << 20, .max_output = 1 << 20};
    struct hd_jinja_run *run;
    struct hd_jinja_output out;
    struct hd_errmsg msg = {0};
    const char *key;
    json_t *value;
    if (hd_jinja_run_new(&run, jinja, &limits, 1700000000))
        return;
    json_object_foreach(context, key, value)
    {
        hd_jinja_set(run, key, hd_jinja_json(run, value, true));
    }
    enum hd_err err = hd_jinja_render(run, &out, &msg);
    if (err ? strncmp(msg.text, "line ", 5) != 0 : out.len > limits.max_output)
        abort();
    if (!err && out.len) { /* every byte and mark can be read */
        char *copy = malloc(out.len);
        memcpy(copy, out.text, out.len);
        if (out.mask)
            memcpy(copy, out.mask, out.len);
        free(copy);
    }
    hd_jinja_run_free(run);
}

static void find_calls(const char *text, size_t len)
{
    const char *mark;
    json_t *known = json_pack("{s:b}", "f", 1);
    for (size_t i = 0; (mark = hd_token__call_mark(i, true)); i++) {
        if (len < strlen(mark) || memcmp(text, mark, strlen(mark)) != 0)
            continue;
        size_t block = hd_token__call_block(mark, text, len);
        if (block > len)
            abort();
        json_decref(hd_token__parse_calls(mark, text, block ? block : len));
    }
    hd_token__may_be_call(text, len);
    json_t *calls = hd_token__parse_bare(text, len, known), *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        json_t *arguments =
            json_loads(json_string_value(json_object_get(call, "arguments")), 0, NULL);
        if (!json_is_object(arguments))
            abort();
        json_decref(arguments);
    }
    json_decref(calls);
    json_decref(known);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    struct hd_errmsg msg = {0};
    struct hd_jinja *jinja;
    json_t *context =
        nul ? json_loadb((const char *)nul + 1, size - len - 1, JSON_REJECT_DUPLICATES, NULL)
            : NULL;
    enum hd_err err = hd_jinja_compile(&jinja, (const char *)data, len, &msg);
    if (err && strncmp(msg.text, "line ", 5) != 0)
        abort();
    if (!err) {
        hd_jinja_reads(jinja, "messages");
        render(jinja, context);
        hd_jinja_free(jinja);
    }
    json_decref(context);
    find_calls((const char *)data, len);
    return 0;
}
