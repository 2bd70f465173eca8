/* The contract's JSON forms. */
#include <jansson.h>

#include "kb/kb.h"

const char *hd_kb_verdict_name(enum hd_kb_verdict verdict)
{
    switch (verdict) {
    case HD_KB_SUPPORTED:
        return "supported";
    case HD_KB_REATTACHED:
        return "reattached";
    case HD_KB_UNSUPPORTED:
        break;
    }
    return "unsupported";
}

static json_t *source_json(const struct hd_kb_source *source)
{
    return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)source->id, "name",
                     source->name ? source->name : "", "revision",
                     source->revision ? source->revision : "");
}

/* Pages count from 1; null where the format has none. */
static json_t *page_json(int64_t page)
{
    return page > 0 ? json_integer(page) : json_null();
}

static json_t *hit_json(const struct hd_kb_hit *hit, size_t rank)
{
    return json_pack("{s:I, s:f, s:o, s:o, s:[I, I], s:s, s:s}", "rank", (json_int_t)rank, "score",
                     hit->score, "document", source_json(&hit->document), "page",
                     page_json(hit->page), "span", (json_int_t)hit->span[0],
                     (json_int_t)hit->span[1], "heading", hit->heading, "text", hit->text);
}

static json_t *hit_list_json(const struct hd_kb_hit *items, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n && list; i++) {
        if (json_array_append_new(list, hit_json(&items[i], i + 1))) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

json_t *hd_kb_hits_json(const struct hd_kb_hits *hits)
{
    return json_pack("{s:I, s:o}", "version", (json_int_t)hits->version, "results",
                     hit_list_json(hits->items, hits->n));
}

static json_t *groups_json(const char *groups)
{
    json_t *list = json_array();
    while (list && *groups) {
        size_t len = 0;
        while (groups[len] && groups[len] != '\n')
            len++;
        json_array_append_new(list, json_stringn(groups, len));
        groups += len + (groups[len] == '\n');
    }
    return list;
}

static json_t *document_json(const struct hd_kb_document *doc)
{
    return json_pack("{s:I, s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I}", "id", (json_int_t)doc->id,
                     "name", doc->name, "revision", doc->revision, "format", doc->format, "groups",
                     groups_json(doc->groups), "pages", page_json(doc->n_page), "passages",
                     (json_int_t)doc->n_chunk, "characters", (json_int_t)doc->n_codepoint, "added",
                     (json_int_t)doc->added);
}

json_t *hd_kb_documents_json(const struct hd_kb_documents *documents)
{
    json_t *list = json_array();
    for (size_t i = 0; i < documents->n && list; i++) {
        if (json_array_append_new(list, document_json(&documents->items[i]))) {
            json_decref(list);
            list = NULL;
        }
    }
    return json_pack("{s:I, s:o}", "version", (json_int_t)documents->version, "documents", list);
}

json_t *hd_kb_citations_json(const struct hd_kb_answer *answer)
{
    json_t *list = json_array();
    for (size_t i = 0; i < answer->n_citation && list; i++) {
        const struct hd_kb_citation *c = &answer->citations[i];
        json_t *item = json_pack("{s:i, s:o, s:o, s:[I, I], s:s, s:f, s:s}", "n", c->n, "document",
                                 source_json(&c->document), "page", page_json(c->page), "span",
                                 (json_int_t)c->span[0], (json_int_t)c->span[1], "quote",
                                 c->quote ? c->quote : "", "confidence", c->confidence, "verdict",
                                 hd_kb_verdict_name(c->verdict));
        if (json_array_append_new(list, item)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

json_t *hd_kb_nearest_json(const struct hd_kb_answer *answer)
{
    return hit_list_json(answer->nearest, answer->n_nearest);
}

json_t *hd_kb_answer_json(const struct hd_kb_answer *a)
{
    json_t *usage =
        json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i}}", "prompt_tokens", a->n_prompt,
                  "completion_tokens", a->n_generated, "total_tokens", a->n_prompt + a->n_generated,
                  "prompt_tokens_details", "cached_tokens", a->n_cached,
                  "completion_tokens_details", "reasoning_tokens", a->n_reasoning);
    json_t *timings = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "retrieve_s", a->retrieve_s,
                                "queue_s", a->queue_s, "prefill_s", a->prefill_s, "decode_s",
                                a->decode_s, "ttft_s", a->ttft_s, "total_s", a->total_s);
    return json_pack(
        "{s:s, s:s, s:b, s:f, s:o, s:o, s:o, s:o, s:b, s:o, s:I}", "answer",
        a->answer ? a->answer : "", "reasoning", a->reasoning ? a->reasoning : "", "found",
        a->found, "confidence", a->confidence, "citations", hd_kb_citations_json(a), "nearest",
        hd_kb_nearest_json(a), "usage", usage, "timings", timings, "quoted", a->quoted, "model",
        a->model[0] ? json_string(a->model) : json_null(), "version", (json_int_t)a->version);
}
