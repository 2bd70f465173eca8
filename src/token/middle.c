/* Filling in the middle: prompts for the text between two others. */
#include <string.h>

#include "token/token_impl.h"

/* Each family's tokens in the order of its prompt: prefix, suffix, then the model writes. */
static const struct {
    const char *before_prefix, *before_suffix, *before_middle;
    const char *end[6]; /* which models write behind the middle */
} families[] = {
    {"<|fim_prefix|>",
     "<|fim_suffix|>",
     "<|fim_middle|>",
     {"<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_prefix|>", "<|fim_suffix|>",
      "<|fim_middle|>"}},                                             /* Qwen2.5-Coder */
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", {NULL}},   /* DeepSeek */
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", {"<file_sep>"}}, /* StarCoder, SmolLM */
};
enum { N_FAMILY = sizeof families / sizeof *families };

static size_t family(const struct hd_tokenizer *tok)
{
    size_t i = 0;
    while (i < N_FAMILY && (hd_tokenizer_special(tok, families[i].before_prefix) < 0 ||
                            hd_tokenizer_special(tok, families[i].before_suffix) < 0 ||
                            hd_tokenizer_special(tok, families[i].before_middle) < 0))
        i++;
    return i;
}

enum hd_err hd_tokenizer_encode_middle(const struct hd_tokenizer *tok, struct hd_ids *out,
                                       const char *prefix, const char *suffix)
{
    size_t i = family(tok);
    if (i == N_FAMILY)
        return HD_ERR_UNSUPPORTED;
    hd_ids_push(out, hd_tokenizer_special(tok, families[i].before_prefix));
    enum hd_err err = hd_tokenizer_encode(tok, out, prefix, strlen(prefix), false);
    hd_ids_push(out, hd_tokenizer_special(tok, families[i].before_suffix));
    if (!err)
        err = hd_tokenizer_encode(tok, out, suffix, strlen(suffix), false);
    hd_ids_push(out, hd_tokenizer_special(tok, families[i].before_middle));
    return err ? err : out->err;
}

int32_t hd_tokenizer_middle_end(const struct hd_tokenizer *tok, size_t i)
{
    size_t at = family(tok);
    return at < N_FAMILY && i < 6 && families[at].end[i]
               ? hd_tokenizer_special(tok, families[at].end[i])
               : -1;
}
