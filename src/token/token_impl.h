/* Inside the token room: the tokenizer's parts.
 *
 *   text ─ valid UTF-8 ─ [added tokens] ─ normalise ─ [added tokens] ─ split ─ model ─ ids
 *
 * The model is byte-level BPE (pretokenize.c, bpe.c), WordPiece (wordpiece.c) or Unigram
 * (unigram.c); template.c puts an encoder's special tokens around the ids.
 *
 * All parts are built once by the loaders (vocab_json.c, vocab_gguf.c) and immutable afterwards;
 * what a call needs to write lies in struct hd_token__work on its own stack. */
#ifndef HD_TOKEN_TOKEN_IMPL_H
#define HD_TOKEN_TOKEN_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <unicode/unorm2.h>

#include "token/jinja/jinja.h"
#include "token/token.h"

enum {
    HD_TOKEN_MAX_VOCAB = 1 << 21,    /* the largest real vocabulary has 262,144 */
    HD_TOKEN_MAX_STAGES = 16,        /* regexes in sequence; DeepSeek-V3 has 3 */
    HD_TOKEN_MAX_NORMALIZERS = 8,    /* steps in sequence; the longest real list has 4 */
    HD_TOKEN_MAX_PIECE = 4096,       /* bytes of a piece of WordPiece or Unigram; real ones: 48 */
    HD_TOKEN_MAX_CHARSMAP = 1 << 24, /* bytes of a precompiled_charsmap; XLM-R's has 233,488 */
    HD_TOKEN_MAX_PARTS = 16,         /* of a template */
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

/* The same in steps: hash, fetch what its look-up will read (twice, in turn), look up. */
uint64_t hd_token__vocab_hash(const struct hd_token__vocab *vocab, const char *bytes, size_t len);
void hd_token__vocab_fetch_slot(const struct hd_token__vocab *vocab, uint64_t hash);
void hd_token__vocab_fetch_entry(const struct hd_token__vocab *vocab, uint64_t hash);
int32_t hd_token__vocab_find_hashed(const struct hd_token__vocab *vocab, const char *bytes,
                                    size_t len, uint64_t hash);

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

/* Several merges at once, so that the memory that one needs is fetched while others are looked up:
 * a vocabulary of 150,000 loads twice as fast. put: as merges_add, FORMAT alone; add: returns how
 * many lacked a token. */
enum { HD_TOKEN_BATCH = 32, HD_TOKEN_MAX_PAIR = 1024 };
struct hd_token__merge_batch {
    size_t n, used;
    struct {
        size_t at;
        uint16_t a, b; /* bytes of the left and of the right token */
        uint64_t hash[3];
    } pair[HD_TOKEN_BATCH];
    char bytes[HD_TOKEN_BATCH * HD_TOKEN_MAX_PAIR];
};
enum hd_err hd_token__batch_put(struct hd_token__merge_batch *batch, const struct hd_tokenizer *tok,
                                const char *left, size_t n_left, const char *right, size_t n_right);
size_t hd_token__batch_add(struct hd_token__merge_batch *batch, struct hd_tokenizer *tok);

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
/* A regex in Oniguruma's syntax, compiled; NULL with a sentence. */
pcre2_code *hd_token__regex(const char *regex, struct hd_errmsg *msg);
/* Bounds on what one match may cost; NULL when out of memory. */
pcre2_match_context *hd_token__match_context(void);
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

enum hd_token__norm_kind {
    HD_NORM_FORM,          /* NFC and its kin */
    HD_NORM_LOWERCASE,     /* character by character, as Rust's to_lowercase */
    HD_NORM_STRIP,         /* white space at the ends */
    HD_NORM_STRIP_ACCENTS, /* combining marks go */
    HD_NORM_REPLACE,       /* every match of a pattern */
    HD_NORM_PREPEND,       /* in front of a text that is not empty */
    HD_NORM_CHARSMAP,      /* the tokenizer's charsmap, as the tokenizers library applies it */
    HD_NORM_SENTENCEPIECE, /* charsmap, spaces and prefix, as sentencepiece and llama.cpp do */
    HD_NORM_BERT,          /* BERT's basic tokenizer */
};

struct hd_token__norm {
    enum hd_token__norm_kind kind;
    const UNormalizer2 *form; /* FORM */
    pcre2_code *code;         /* REPLACE; owned */
    char *text;               /* REPLACE: what takes the match's place; PREPEND; owned */
    bool left, right;         /* STRIP */
    bool prefix, merge;       /* SENTENCEPIECE: add_space_prefix, remove_extra_whitespaces */
    bool clean, chinese, accents, lower; /* BERT; accents: they are stripped */
};
void hd_token__norm_dispose(struct hd_token__norm *norm);
/* Takes over what norm owns, also on failure; LIMIT where there are too many steps. */
enum hd_err hd_token__norm_push(struct hd_tokenizer *tok, const struct hd_token__norm *norm);
/* "NFC", "NFD", "NFKC", "NFKD"; UNSUPPORTED otherwise. */
enum hd_err hd_token__normalizer_add(struct hd_tokenizer *tok, const char *type);
/* wordpiece.c: one step of kind BERT, appended to out. */
enum hd_err hd_token__bert_normalize(const struct hd_token__norm *norm, struct hd_buf *out,
                                     const char *text, size_t len);

/* --- charsmap.c: sentencepiece's precompiled_charsmap ----------------------------------------- */

/* u32 bytes of the trie | a Darts double array of u32 units | NUL-terminated replacements. */
struct hd_token__charsmap {
    uint32_t *unit; /* [n_unit]; owned */
    size_t n_unit;
    char *text; /* [n_text], valid UTF-8 with a NUL at the end; owned */
    size_t n_text;
};
/* FORMAT where the sizes do not fit or the replacements are not UTF-8. */
enum hd_err hd_token__charsmap_init(struct hd_token__charsmap *map, const void *bytes, size_t len);
enum hd_err hd_token__charsmap_init_base64(struct hd_token__charsmap *map, const char *text);
void hd_token__charsmap_dispose(struct hd_token__charsmap *map);
/* Bytes of the longest (or, with shortest, the shortest) key that text begins with, whole
 * characters only; *to is its replacement. 0: none. */
size_t hd_token__charsmap_find(const struct hd_token__charsmap *map, const char *text, size_t len,
                               bool shortest, const char **to);
/* The step SENTENCEPIECE (norm) or CHARSMAP, appended to out. */
enum hd_err hd_token__sentencepiece(const struct hd_token__charsmap *map,
                                    const struct hd_token__norm *norm, struct hd_buf *out,
                                    const char *text, size_t len);
enum hd_err hd_token__charsmap_apply(const struct hd_token__charsmap *map, struct hd_buf *out,
                                     const char *text, size_t len);

/* --- trie.c: pieces by their bytes ------------------------------------------------------------ */

/* One open-addressed table of edges, node << 8 | byte → child; node 0 is the root. */
struct hd_token__edge {
    uint32_t key, child; /* child 0: empty */
};
struct hd_token__trie {
    struct hd_token__edge *slot;
    size_t mask;
    unsigned shift;
    uint64_t factor; /* random and odd: no vocabulary can aim at collisions */
    int32_t *id;     /* [n] the piece that ends at a node, or -1 */
    size_t n, cap;
};
enum hd_err hd_token__trie_init(struct hd_token__trie *trie);
void hd_token__trie_dispose(struct hd_token__trie *trie);
/* A second id for the same bytes replaces the first. lead ≥ 0: a byte put in front. */
enum hd_err hd_token__trie_add(struct hd_token__trie *trie, int lead, const char *bytes, size_t len,
                               int32_t id);
static inline uint32_t hd_token__trie_child(const struct hd_token__trie *trie, uint32_t node,
                                            uint8_t byte)
{
    uint32_t key = node << 8 | byte;
    size_t i = (size_t)(key * trie->factor >> trie->shift);
    for (; trie->slot[i].child; i = (i + 1) & trie->mask)
        if (trie->slot[i].key == key)
            return trie->slot[i].child;
    return 0;
}

/* --- wordpiece.c ------------------------------------------------------------------------------ */

struct hd_token__wordpiece {
    uint32_t first, later; /* trie nodes where pieces that begin and that continue words start */
    int32_t unk;
    size_t max_chars; /* longer words are unknown */
    bool bert_split;  /* punctuation apart (BertPreTokenizer); else white space alone separates */
};
/* Sets the piece of an id. later: it continues a word. */
enum hd_err hd_token__wordpiece_set(struct hd_tokenizer *tok, size_t id, const char *piece,
                                    size_t len, bool later);
/* Builds the trie, after all pieces and added tokens were set. */
enum hd_err hd_token__wordpiece_finish(struct hd_tokenizer *tok);
enum hd_err hd_token__wordpiece(const struct hd_tokenizer *tok, struct hd_ids *out,
                                const char *text, size_t len);

/* --- unigram.c -------------------------------------------------------------------------------- */

enum hd_token__prepend { HD_PREPEND_ALWAYS, HD_PREPEND_FIRST, HD_PREPEND_NEVER };

struct hd_token__unigram {
    float *score; /* [vocab.n]; owned */
    size_t cap;
    double unk_score;
    int32_t unk;
    int32_t byte[256]; /* ids of <0x00> …; -1 without byte fallback */
    bool byte_fallback;
    size_t max_piece;
    /* Splitting before the lattice: at white space, and before each ▁; with whole_text, as
     * sentencepiece, only where no piece has a ▁ inside, so that it changes nothing but time. */
    bool white_split, meta_split, whole_text;
    enum hd_token__prepend prepend;
};
enum hd_err hd_token__unigram_set(struct hd_tokenizer *tok, size_t id, const char *piece,
                                  size_t len, double score, unsigned flags);
enum hd_err hd_token__unigram_finish(struct hd_tokenizer *tok);
enum hd_err hd_token__unigram(const struct hd_tokenizer *tok, struct hd_ids *out, const char *text,
                              size_t len);

/* --- template.c: special tokens around texts -------------------------------------------------- */

enum hd_token__part_kind { HD_PART_SPECIAL, HD_PART_A, HD_PART_B };
struct hd_token__part {
    enum hd_token__part_kind kind;
    int32_t id;
    uint8_t type; /* 0 or 1 */
};
struct hd_token__template {
    struct hd_token__part part[HD_TOKEN_MAX_PARTS];
    size_t n; /* 0: there is none */
};
/* post_processor of tokenizer.json; NULL is fine. UNSUPPORTED for what cannot be done exactly. */
enum hd_err hd_token__template_json(struct hd_tokenizer *tok, json_t *post, struct hd_errmsg *msg);
/* first A last, and first A last [middle] B last; -1 leaves one out. The second text has `type`. */
void hd_token__template_ids(struct hd_tokenizer *tok, int32_t first, int32_t last, int32_t middle,
                            uint8_t type);

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

enum hd_token__model { HD_MODEL_BPE, HD_MODEL_WORDPIECE, HD_MODEL_UNIGRAM };

/* Special tokens that templates print by name. */
enum hd_token__special {
    HD_TOKEN_BOS,
    HD_TOKEN_EOS,
    HD_TOKEN_PAD,
    HD_TOKEN_UNK,
    HD_TOKEN_N_SPECIAL
};

struct hd_tokenizer {
    enum hd_token__model model;
    struct hd_token__vocab vocab;
    /* WordPiece and Unigram */
    struct hd_token__trie trie;
    struct hd_token__charsmap charsmap;
    struct hd_token__wordpiece wordpiece;
    struct hd_token__unigram unigram;
    struct hd_token__template single, pair;
    /* BPE */
    struct hd_token__merges merges;
    int32_t byte_id[256]; /* -1 where the vocabulary lacks the byte */
    bool ignore_merges;   /* a word that is a token is that token (Llama 3) */
    struct hd_token__pretok pretok;
    struct hd_token__norm norm[HD_TOKEN_MAX_NORMALIZERS];
    size_t n_norm;
    /* Those sought in the text as given, and those sought after normalising. */
    struct hd_token__added_set raw, normalized;
    int32_t bos;
    int32_t end[HD_TOKEN_MAX_END];
    size_t n_end;
    char *special_text[HD_TOKEN_N_SPECIAL]; /* as templates print them; each may be NULL */
    /* chat.c */
    char *chat_template, *tool_template;   /* Jinja, or NULL; the latter where tools are given */
    struct hd_jinja *own, *own_with_tools; /* those compiled, or NULL where they do not work */
    struct hd_jinja *builtin;              /* ours for this form, or NULL */
    bool plain_calls;                      /* DeepSeek V3.1: without type and fence */
    bool own_calls;   /* the checkpoint's template shows calls and results right */
    bool own_tools;   /* and the tools; else they are told in the system message (tool_prompt) */
    bool empty_calls; /* it wants "" where there is no text beside calls, not none */
    struct hd_jinja *tool_prompt; /* or NULL */
    enum hd_chat_form form;
    bool thinks;
    char *default_system; /* ChatML: system message where the conversation has none; or NULL */
};

enum hd_err hd_token__load_json(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg);
/* json_encoder.c: normaliser, pre-tokenizer and vocabulary of the models that are not byte-level.
 */
enum hd_err hd_token__json_normalizer(struct hd_tokenizer *tok, json_t *normalizer, int depth,
                                      struct hd_errmsg *msg);
enum hd_err hd_token__json_encoder(struct hd_tokenizer *tok, json_t *root, struct hd_errmsg *msg);
enum hd_err hd_token__json_unsupported(struct hd_errmsg *msg, const char *what, const char *name);
/* "Regex" or "String" as one regex for PCRE2, owned; NULL with a sentence where it is neither. */
char *hd_token__json_pattern(json_t *pattern, struct hd_errmsg *msg);
enum hd_err hd_token__load_gguf(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg);
/* Adds an id to those that end generation; ignores -1, repetitions and more than fit. */
void hd_token__add_end(struct hd_tokenizer *tok, int64_t id);
/* Sets special_text from a token's id (-1: none). */
enum hd_err hd_token__set_special(struct hd_tokenizer *tok, enum hd_token__special which,
                                  int32_t id);

/* --- chat.c, chat_prompt.c, chat_builtin.c ---------------------------------------------------- */

/* Recognises the chat form from special tokens and template, and tries the template. */
enum hd_err hd_token__chat_detect(struct hd_tokenizer *tok);
void hd_token__chat_dispose(struct hd_tokenizer *tok);
bool hd_token__is_deepseek(enum hd_chat_form form);
/* NULL where we have none. */
const char *hd_token__builtin_template(enum hd_chat_form form);
/* What DeepSeek's models are told of tools, after the system message; its variables are `system`,
 * `tools`, and `plain`: calls of V3.1, without type and fence. */
extern const char hd_token__deepseek_tool_prompt[];

/* A call of a message, its arguments parsed where they are a JSON object. */
struct hd_token__call {
    const char *id, *name, *arguments; /* in the turn's json; arguments NULL: given as an object */
    json_t *object;                    /* owned; or NULL */
};
struct hd_token__turn {
    const struct hd_chat_message *message;
    json_t *json; /* its tool calls */
    struct hd_token__call *call;
    size_t n_call;
};
struct hd_token__conversation {
    struct hd_token__turn *turn;
    size_t n_turn;
    json_t *tools;                 /* NULL where there are none */
    struct hd_buf system_text;     /* all system messages, where the tools are told behind them */
    struct hd_jinja_output system; /* that with the tools; text NULL where it is not used */
    bool no_think, ask_think;
    int64_t now;
};
/* A conversation that asks for a thought (chat_ask.c). */
struct hd_token__asked {
    struct hd_chat_message *message; /* [n]; all but one are the caller's */
    size_t n;
    char *text; /* of the one that is not */
};
/* in_question: the last question says it, instead of the system message. To be disposed of also
 * after a failure. */
enum hd_err hd_token__ask(struct hd_token__asked *out, const struct hd_tokenizer *tok,
                          const struct hd_chat_message *messages, size_t n, bool in_question,
                          struct hd_errmsg *msg);
void hd_token__asked_dispose(struct hd_token__asked *asked);
/* Checks and parses; borrows the messages. To be disposed of also after a failure. */
enum hd_err hd_token__conversation(struct hd_token__conversation *out,
                                   const struct hd_chat_message *messages, size_t n,
                                   const struct hd_chat_options *options, struct hd_errmsg *msg);
void hd_token__conversation_dispose(struct hd_token__conversation *talk);
/* For a template that shows calls but no tools: a system message that tells of them, as the
 * template will join it. It lives as long as *run. */
enum hd_err hd_token__tell_tools(struct hd_jinja_run **run, const struct hd_tokenizer *tok,
                                 struct hd_token__conversation *talk, bool plain,
                                 struct hd_errmsg *msg);
/* The text that a template gives; it lives as long as *run. */
enum hd_err hd_token__render(struct hd_jinja_run **run, struct hd_jinja_output *out,
                             const struct hd_tokenizer *tok, const struct hd_jinja *jinja,
                             const struct hd_token__conversation *talk, struct hd_errmsg *msg);
/* The text's ids; for models that think, the thought's beginning (and end) where they lack. */
enum hd_err hd_token__prompt(const struct hd_tokenizer *tok, struct hd_ids *out,
                             const struct hd_jinja_output *text, bool no_think, bool ask_think);

/* --- tool_calls.c ----------------------------------------------------------------------------- */

/* Texts that begin a call: number i, or NULL past the last. In a thought only DeepSeek's count, of
 * which models write no others. */
const char *hd_token__call_mark(size_t i, bool in_answer);
/* Tokens that calls are made of, whose text must not be lost though they may be control tokens. */
const char *hd_token__call_token(size_t i);
/* Length of the block that begins with this mark, its end mark included; 0 where that is not there.
 */
size_t hd_token__call_block(const char *mark, const char *text, size_t len);
/* The calls of a block, [{"name", "arguments"}] with the arguments as text; NULL where it is not
 * exactly calls. */
json_t *hd_token__parse_calls(const char *mark, const char *text, size_t len);
/* The same for a whole answer without marks; known: an object with the functions' names. */
json_t *hd_token__parse_bare(const char *text, size_t len, const json_t *known);
/* Whether an answer that begins so may become one of the two. */
bool hd_token__may_be_call(const char *text, size_t len);

#endif
