/* Which fields each route's body may have: what share/openapi.json is checked against. */
#include "api/api_impl.h"

#include <string.h>

static const struct {
    const char *method, *pattern;
    const struct hd_api__schema *schema;
} bodies[] = {
    {"POST", "/v1/chat/completions", &hd_api__chat_schema},
    {"POST", "/v1/completions", &hd_api__completion_schema},
    {"POST", "/v1/responses", &hd_api__responses_schema},
    {"POST", "/v1/messages", &hd_api__anthropic_schema},
    {"POST", "/v1/messages/count_tokens", &hd_api__anthropic_count_schema},
    {"POST", "/api/chat", &hd_api__ollama_chat_schema},
    {"POST", "/api/generate", &hd_api__ollama_generate_schema},
    {"POST", "/api/embed", &hd_api__ollama_embed_schema},
    {"POST", "/api/show", &hd_api__ollama_show_schema},
    {"POST", "/v1/embeddings", &hd_api__embeddings_schema},
    {"POST", "/v1/rerank", &hd_api__rerank_schema},
    {"POST", "/tokenize", &hd_api__tokenize_schema},
    {"POST", "/detokenize", &hd_api__detokenize_schema},
    {"POST", "/v1/knowledge_bases", &hd_api__kb_create_schema},
    {"POST", "/v1/knowledge_bases/{kb}/documents", &hd_api__kb_add_schema},
    {"POST", "/v1/knowledge_bases/{kb}/search", &hd_api__kb_search_schema},
};

const struct hd_api__schema *hd_api__body_schema(const char *method, const char *pattern)
{
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        if (!strcmp(bodies[i].method, method) && !strcmp(bodies[i].pattern, pattern))
            return bodies[i].schema;
    return NULL;
}
