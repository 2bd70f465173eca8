/* Inside the token room: the tokenizer's parts.
 *
 *   text ─ valid UTF-8 ─ [added tokens] ─ normalise ─ [added tokens] ─ split by regexes ─ BPE ─ ids
 *
 * All parts are built once by the loaders (vocab_json.c, vocab_gguf.c) and immutable afterwards;
 * what a call needs to write lies in struct hd_token__work on its own stack. */
#ifndef HD_TOKEN_TOKEN_IMPL_H
#define HD_TOKEN_TOKEN_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <unicode/unorm2.h>

#include "token/token.h"

enum {
    HD_TOKEN_MAX_VOCAB = 1 << 21,    /* the largest real vocabulary has 262,144 */
    HD_TOKEN_MAX_STAGES = 16,        /* regexes in sequence; DeepSeek-V3 has 3 */
    HD_TOKEN_MAX_NORMALIZERS = 4,    /* NFC and its kin */
    HD_TOKEN_MAX_END = 32,           /* ids that end generation */
    HD_TOKEN_MAX_TEXT = 1 << 30,     /* bytes per call */
    HD_TOKEN_MAX_TEMPLATE = 1 << 20, /* bytes of a chat template */
};

/* --- vocab.c: ids ⇄ bytes --------------------------------------------------------------------- */

enum hd_token__flag {
    HD_TOKEN_ABSENT = 0,
    HD_TOKEN_NORMAL = 1,  /* made by merges; its bytes are text */
    HD_TOKEN_ADDED = 2,   /* added_tokens, user-defined: recognised only with `special` */
    HD_TOKEN_CONTROL = 4, /* an added token that is markup: shown only with `special` */
    HD_TOKEN_RAW = 8,     /* not in GPT-2's alphabet: shown as it is, made by no merge */
};

struct hd_token__entry {
    uint32_t at, len; /* bytes in the blob */
    uint8_t flags;
};

struct hd_token__vocab {
    struct hd_token__entry *entry; /* [n] */
    size_t n, cap;
    struct hd_buf blob;
    uint64_t *slot; /* normal tokens by bytes: hash's upper half | id + 1; 0 = empty */
    size_t mask;
    uint64_t seed;
};
void hd_token__vocab_init(struct hd_token__vocab *vocab);
void hd_token__vocab_dispose(struct hd_token__vocab *vocab);
/* Sets the token of an id; bytes are copied. A second call for an id replaces the first. */
enum hd_err hd_token__vocab_set(struct hd_token__vocab *vocab, size_t id, const char *bytes,
                                size_t len, unsigned flags);
/* Builds the table of normal tokens, after all were set. */
enum hd_err hd_token__vocab_index(struct hd_token__vocab *vocab);
/* The normal token of exactly these bytes, or -1. */
int32_t hd_token__vocab_find(const struct hd_token__vocab *vocab, const char *bytes, size_t len);

/* The same for a token as a file writes it, in GPT-2's alphabet. */
enum hd_err hd_token__vocab_set_normal(struct hd_token__vocab *vocab, size_t id, const char *text,
                                       size_t len);
/* GPT-2 writes each byte as a printable character. Back to bytes: returns how many were written
 * (at most len), or SIZE_MAX where a character is none of the 256. out may be text. */
size_t hd_token__from_alphabet(char *out, const char *text, size_t len);

/* --- bpe.c: merging --------------------------------------------------------------------------- */

struct hd_token__merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX = empty */
    uint32_t rank;
    int32_t id; /* what they become */
};

struct hd_token__merges {
    struct hd_token__merge *slot;
    size_t mask, n;
};
enum hd_err hd_token__merges_init(struct hd_token__merges *merges, size_t n);
void hd_token__merges_dispose(struct hd_token__merges *merges);
/* Adds "left right" as the file writes it (in GPT-2's alphabet) with the next rank. NOTFOUND where
 * the vocabulary lacks a part or the whole; FORMAT where it is no such pair. */
enum hd_err hd_token__merges_add(struct hd_tokenizer *tok, const char *left, size_t n_left,
                                 const char *right, size_t n_right);

/* Words seen earlier in the same call: their ids are copied instead of merged again. */
struct hd_token__seen {
    uint64_t hash;
    const char *word;
    uint32_t len, n;
    size_t at; /* first id in the output */
};

/* What one call of encode writes to; owned by that call. */
struct hd_token__work {
    const struct hd_tokenizer *tok;
    struct hd_ids *out;
    pcre2_match_data *match[HD_TOKEN_MAX_STAGES];
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    struct hd_token__seen *seen; /* [HD_TOKEN_SEEN] or NULL for short texts */
    /* Long words: symbols as a doubly linked list over byte positions, and a heap of pairs. */
    int32_t *id;
    uint32_t *prev, *next, *rank;
    size_t cap;
    uint64_t *heap; /* rank << 32 | position */
    size_t n_heap, cap_heap;
};
enum { HD_TOKEN_SEEN = 4096 };
enum hd_err hd_token__bpe(struct hd_token__work *work, const char *word, size_t len);

/* --- pretokenize.c: regexes in sequence ------------------------------------------------------- */

struct hd_token__stage {
    pcre2_code *code;
    bool removes; /* matches (with `inverted`: the rest) are dropped */
    bool inverted;
};

struct hd_token__pretok {
    struct hd_token__stage stage[HD_TOKEN_MAX_STAGES];
    size_t n;
};
void hd_token__pretok_dispose(struct hd_token__pretok *pretok);
/* A regex as the tokenizers library writes it (Oniguruma's syntax). */
enum hd_err hd_token__pretok_add(struct hd_token__pretok *pretok, const char *regex, bool removes,
                                 bool inverted, struct hd_errmsg *msg);
/* The sequence that GGUF calls by this name; UNSUPPORTED where we do not know it. */
enum hd_err hd_token__pretok_named(struct hd_tokenizer *tok, const char *name, size_t len,
                                   struct hd_errmsg *msg);
extern const char hd_token__gpt2_regex[]; /* what ByteLevel's use_regex means */
/* Splits valid UTF-8 and appends the ids of all its words. */
enum hd_err hd_token__pretokenize(struct hd_token__work *work, const char *text, size_t len);
enum hd_err hd_token__work_init(struct hd_token__work *work, const struct hd_tokenizer *tok,
                                struct hd_ids *out, size_t len);
void hd_token__work_dispose(struct hd_token__work *work);

/* --- normalize.c ------------------------------------------------------------------------------ */

/* Length of the longest prefix of a broken sequence that could have become a character: one
 * U+FFFD stands for it (Unicode 15, section 3.9, "maximal subpart"). */
size_t hd_token__broken_len(const char *s, size_t len);
/* The text with broken bytes replaced and normalised. *text and *len change where they must;
 * *owned is what to free then. */
enum hd_err hd_token__repair(char **owned, const char **text, size_t *len);
enum hd_err hd_token__normalize(const struct hd_tokenizer *tok, char **owned, const char **text,
                                size_t *len);
/* "NFC", "NFD", "NFKC", "NFKD"; UNSUPPORTED otherwise. */
enum hd_err hd_token__normalizer_add(struct hd_tokenizer *tok, const char *type);

/* --- added_tokens.c --------------------------------------------------------------------------- */

struct hd_token__added {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized;
};

struct hd_token__added_set {
    struct hd_token__added *token; /* sorted by bytes */
    size_t n, cap;
    bool first[256]; /* whether one begins with this byte */
};
enum hd_err hd_token__added_push(struct hd_token__added_set *set,
                                 const struct hd_token__added *token);
void hd_token__added_sort(struct hd_tokenizer *tok);
/* Calls fn for each stretch of text in order: id -1 is text, else an added token of set. */
typedef enum hd_err (*hd_token__stretch_fn)(void *ud, int32_t id, const char *text, size_t len);
enum hd_err hd_token__added_split(const struct hd_tokenizer *tok,
                                  const struct hd_token__added_set *set, const char *text,
                                  size_t len, hd_token__stretch_fn fn, void *ud);

/* --- the handle ------------------------------------------------------------------------------- */

struct hd_tokenizer {
    struct hd_token__vocab vocab;
    struct hd_token__merges merges;
    int32_t byte_id[256]; /* -1 where the vocabulary lacks the byte */
    bool ignore_merges;   /* a word that is a token is that token (Llama 3) */
    struct hd_token__pretok pretok;
    const UNormalizer2 *normalizer[HD_TOKEN_MAX_NORMALIZERS];
    size_t n_normalizer;
    /* Those sought in the text as given, and those sought after normalising. */
    struct hd_token__added_set raw, normalized;
    int32_t bos;
    int32_t end[HD_TOKEN_MAX_END];
    size_t n_end;
    /* chat.c */
    char *chat_template; /* Jinja, or NULL; read only to recognise the form */
    enum hd_chat_form form;
    char *default_system; /* system message where the conversation has none; or NULL */
};

enum hd_err hd_token__load_json(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg);
enum hd_err hd_token__load_gguf(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg);
/* Adds an id to those that end generation; ignores -1, repetitions and more than fit. */
void hd_token__add_end(struct hd_tokenizer *tok, int64_t id);
/* Recognises the chat form from special tokens and template. */
enum hd_err hd_token__chat_detect(struct hd_tokenizer *tok);

#endif
