/* A knowledge base of one name, "handbook", for tests of the API. Its turn takes two requests of
 * the engine where there is one, and then answers with one citation. */
#ifndef TEST_API_FAKE_KB_H
#define TEST_API_FAKE_KB_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "kb/kb.h"

struct hd_kb {
    int unused;
};
struct hd_kb_turn {
    bool quote;
    int n_request;
    struct hd_message message;
    struct hd_request request;
    char question[256];
    hd_kb_text_fn on_text;
    void *ud;
};
static char fake_added_name[128];
static size_t fake_added_len;

enum hd_err hd_kb_open(struct hd_kb **out, const char *dir, const struct hd_principal *who,
                       const char *name, bool create, struct hd_errmsg *msg)
{
    *out = NULL;
    if (strcmp(name, "handbook"))
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: no such knowledge base", name);
    *out = calloc(1, sizeof **out);
    return HD_OK;
}

void hd_kb_close(struct hd_kb *kb)
{
    free(kb);
}

enum hd_err hd_kb_create(const char *dir, const struct hd_principal *who, const char *name,
                         struct hd_errmsg *msg)
{
    return hd_fail(msg, strcmp(name, "handbook") ? HD_ERR_INVALID : HD_ERR_EXISTS, "%s: no", name);
}

enum hd_err hd_kb_destroy(const char *dir, const struct hd_principal *who, const char *name,
                          struct hd_errmsg *msg)
{
    return strcmp(name, "handbook") ? hd_fail(msg, HD_ERR_NOTFOUND, "no such base") : HD_OK;
}

enum hd_err hd_kb_list_bases(struct hd_kb_names *out, const char *dir,
                             const struct hd_principal *who, struct hd_errmsg *msg)
{
    out->names = malloc(sizeof *out->names);
    out->names[0] = strdup("handbook");
    out->n = 1;
    return HD_OK;
}

void hd_kb_names_dispose(struct hd_kb_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->names[i]);
    free(names->names);
}

enum hd_err hd_kb_info(struct hd_kb *kb, const struct hd_principal *who, struct hd_kb_info *out,
                       struct hd_errmsg *msg)
{
    *out = (struct hd_kb_info){.version = 3, .n_document = 1, .n_chunk = 2};
    return HD_OK;
}

enum hd_err hd_kb_add_bytes(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                            const void *data, size_t len, const struct hd_kb_add_options *options,
                            int64_t *id, struct hd_errmsg *msg)
{
    snprintf(fake_added_name, sizeof fake_added_name, "%s", name);
    fake_added_len = len;
    *id = 7;
    return HD_OK;
}

enum hd_err hd_kb_remove_id(struct hd_kb *kb, const struct hd_principal *who, int64_t id,
                            struct hd_errmsg *msg)
{
    return id == 7 ? HD_OK : hd_fail(msg, HD_ERR_NOTFOUND, "no such document");
}

enum hd_err hd_kb_list(struct hd_kb *kb, const struct hd_principal *who,
                       struct hd_kb_documents *out, struct hd_errmsg *msg)
{
    return HD_OK;
}

void hd_kb_documents_dispose(struct hd_kb_documents *documents)
{
}

enum hd_err hd_kb_text(struct hd_kb *kb, const struct hd_principal *who, int64_t id, char **text,
                       struct hd_errmsg *msg)
{
    *text = strdup("the whole text");
    return HD_OK;
}

enum hd_err hd_kb_search(struct hd_kb *kb, const struct hd_principal *who, const char *query,
                         const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                         struct hd_errmsg *msg)
{
    return HD_OK;
}

void hd_kb_hits_dispose(struct hd_kb_hits *hits)
{
}

enum hd_err hd_kb_turn_new(struct hd_kb_turn **out, struct hd_kb *kb,
                           const struct hd_principal *who, const struct hd_kb_ask_options *options,
                           hd_kb_text_fn on_text, void *ud, struct hd_errmsg *msg)
{
    struct hd_kb_turn *turn = calloc(1, sizeof *turn);
    turn->quote = !options->engine;
    turn->on_text = on_text;
    turn->ud = ud;
    snprintf(turn->question, sizeof turn->question, "%s", options->question);
    turn->message = (struct hd_message){.role = "user", .content = turn->question};
    turn->request = (struct hd_request){
        .messages = &turn->message, .n_message = 1, .sampling = options->sampling, .n_max = 2};
    *out = turn;
    return HD_OK;
}

const struct hd_request *hd_kb_turn_request(const struct hd_kb_turn *turn)
{
    return turn->quote ? NULL : &turn->request;
}

void hd_kb_turn_feed(struct hd_kb_turn *turn, enum hd_text_kind kind, const char *text, size_t len)
{
}

const struct hd_request *hd_kb_turn_next(struct hd_kb_turn *turn, const struct hd_result *result)
{
    return ++turn->n_request < 2 && result->finish != HD_FINISH_ERROR ? &turn->request : NULL;
}

enum hd_err hd_kb_turn_finish(struct hd_kb_turn *turn, const struct hd_result *result,
                              struct hd_kb_answer *out, struct hd_errmsg *msg)
{
    static const char text[] = "二十天。[citation:1]";
    if (result && result->finish == HD_FINISH_ERROR)
        return hd_fail(msg, result->err, "%s", result->message.text);
    turn->on_text(turn->ud, HD_TEXT_ANSWER, text, sizeof text - 1);
    *out = (struct hd_kb_answer){.found = true,
                                 .quoted = turn->quote,
                                 .confidence = 0.9,
                                 .n_prompt = 30,
                                 .n_generated = turn->quote ? 0 : 4};
    return HD_OK;
}

void hd_kb_turn_free(struct hd_kb_turn *turn)
{
    free(turn);
}

void hd_kb_answer_dispose(struct hd_kb_answer *answer)
{
}

json_t *hd_kb_hits_json(const struct hd_kb_hits *hits)
{
    return json_pack("{s:i,s:[]}", "version", 3, "results");
}

json_t *hd_kb_documents_json(const struct hd_kb_documents *documents)
{
    return json_pack("{s:[]}", "documents");
}

json_t *hd_kb_citations_json(const struct hd_kb_answer *answer)
{
    return json_pack("[{s:i,s:s,s:s}]", "n", 1, "quote", "Twenty days.", "verdict", "supported");
}

json_t *hd_kb_nearest_json(const struct hd_kb_answer *answer)
{
    return json_array();
}

#endif
