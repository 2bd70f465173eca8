/* Which surface answers which route, and what their translations have in common. */
#include "api/surface.h"

#include <stdio.h>
#include <string.h>

const struct hd_api__surface *hd_api__surface_find(const char *pattern)
{
    static const struct hd_api__surface *const all[] = {
        &hd_api__chat_completions,   &hd_api__completions, &hd_api__responses,
        &hd_api__anthropic_messages, &hd_api__ollama_chat, &hd_api__ollama_generate,
    };
    for (size_t i = 0; pattern && i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->pattern, pattern))
            return all[i];
    return NULL;
}

const char *hd_api__reasoning_stop(const struct hd_api__gen *gen)
{
    bool any = hd_api__is_chat(gen) && gen->c->has_result && gen->c->result.reasoning_stop;
    return any ? hd_reasoning_stop_name(gen->c->result.reasoning_stop) : NULL;
}

void hd_api__add_reasoning_stop(const struct hd_api__gen *gen, json_t *to)
{
    if (hd_api__reasoning_stop(gen))
        json_object_set_new(to, "reasoning_stop", json_string(hd_api__reasoning_stop(gen)));
}

bool hd_api__is_chat(const struct hd_api__gen *gen)
{
    return gen->params.n_message > 0;
}

void hd_api__copy(json_t *to, const char *as, const json_t *from, const char *name)
{
    json_t *value = json_object_get(from, name);
    if (value && !json_is_null(value))
        json_object_set(to, as ? as : name, value);
}

bool hd_api__is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && !strcmp(json_string_value(value), word);
}

static void replace(char *text, size_t size, const struct hd_api__word *word)
{
    char rest[sizeof(struct hd_errmsg)];
    char *at = strstr(text, word->ours);
    if (!at)
        return;
    snprintf(rest, sizeof rest, "%s", at + strlen(word->ours));
    snprintf(at, size - (size_t)(at - text), "%s%s", word->theirs, rest);
}

int hd_api__read_fields(void *fields, json_t **root, const char *body, size_t len,
                        const struct hd_api__schema *schema, struct hd_api__fault *fault)
{
    int rc = hd_api__parse(root, body, len, fault);
    return rc ? rc : hd_api__fields(*root, schema->fields, schema->n, fields, "", fault);
}

int hd_api__params_translated(struct hd_api__params *out, int rc, json_t *original, json_t *request,
                              bool chat, const struct hd_api__word *words, size_t n_word,
                              struct hd_api__fault *fault)
{
    if (rc) {
        json_decref(request);
        json_decref(original);
        return rc;
    }
    if (!request) {
        json_decref(original);
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    }
    rc = chat ? hd_api__params_chat_json(out, request, fault)
              : hd_api__params_completion_json(out, request, fault);
    out->original = original;
    for (size_t i = 0; rc && i < n_word; i++) {
        if (!strstr(fault->param, words[i].ours))
            continue;
        replace(fault->param, sizeof fault->param, &words[i]);
        replace(fault->msg.text, sizeof fault->msg.text, &words[i]);
    }
    return rc;
}
