/* Text ⇄ token ids: byte-level BPE, WordPiece and Unigram; what encoders read; chat forms; and the
 * streaming splitter.
 *
 * A tokenizer is immutable after loading and may be used from any thread. */
#ifndef HD_TOKEN_TOKEN_H
#define HD_TOKEN_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "store/store.h"

struct hd_tokenizer;

/* A growable list of ids with a maximum; after a failure err stays set (see base/buf.h). */
struct hd_ids {
    int32_t *id;
    size_t n, cap, max;
    enum hd_err err;
};
void hd_ids_init(struct hd_ids *ids, size_t max);
void hd_ids_dispose(struct hd_ids *ids);
enum hd_err hd_ids_push(struct hd_ids *ids, int32_t id);

/* From a GGUF's own vocabulary, or tokenizer.json (+ tokenizer_config.json) of a folder.
 * NOTFOUND where the model carries no tokenizer. */
enum hd_err hd_tokenizer_new(struct hd_tokenizer **out, const struct hd_store *store,
                             struct hd_errmsg *msg);
void hd_tokenizer_free(struct hd_tokenizer *tok);

size_t hd_tokenizer_n_vocab(const struct hd_tokenizer *tok);
int32_t hd_tokenizer_bos(const struct hd_tokenizer *tok); /* -1 where there is none */
/* Whether generation ends at this id (eos, <|im_end|>, <|eot_id|>, …: all that the model names). */
bool hd_tokenizer_is_end(const struct hd_tokenizer *tok, int32_t id);
/* The id of a special token by its exact text, or -1. */
int32_t hd_tokenizer_special(const struct hd_tokenizer *tok, const char *text);

/* Appends the ids of text. special: added tokens are recognised inside; otherwise everything is
 * plain text (all user, tool and document text). Bytes that are not UTF-8 become U+FFFD first. */
enum hd_err hd_tokenizer_encode(const struct hd_tokenizer *tok, struct hd_ids *out,
                                const char *text, size_t len, bool special);
/* Appends a prompt for the text between prefix and suffix, in the model's own tokens for that.
 * UNSUPPORTED where it has none. */
enum hd_err hd_tokenizer_encode_middle(const struct hd_tokenizer *tok, struct hd_ids *out,
                                       const char *prefix, const char *suffix);
/* The i-th of the tokens that end such a text beside the usual ones, or -1. */
int32_t hd_tokenizer_middle_end(const struct hd_tokenizer *tok, size_t i);
/* Appends the bytes of one token (may be part of a character). Unknown ids append nothing;
 * control tokens append their text only if `special`. */
enum hd_err hd_tokenizer_piece(const struct hd_tokenizer *tok, struct hd_buf *out, int32_t id,
                               bool special);

/* Appends the text of n ids; what is not UTF-8 then becomes U+FFFD. INVALID for an id outside the
 * vocabulary. */
enum hd_err hd_tokenizer_decode(const struct hd_tokenizer *tok, struct hd_buf *out,
                                const int32_t *ids, size_t n, bool special, struct hd_errmsg *msg);

/* Whether the id is markup ([CLS], </s>, <unk>, <pad>, …) instead of text. */
bool hd_tokenizer_is_control(const struct hd_tokenizer *tok, int32_t id);

/* --- what an encoder reads -------------------------------------------------------------------- */

/* One text, or a pair of them (a reranker's query and document), plain text both. */
struct hd_token_input {
    const char *text;
    size_t len;
    const char *pair; /* NULL: one text */
    size_t pair_len;
    size_t max; /* ids at most, special tokens included; 0: all. A pair loses ids at the end of the
                 * longer text first, as the tokenizers library's longest_first does */
};
/* Appends the ids of the model's template: [CLS] A [SEP], <s> A </s>, [CLS] A [SEP] B [SEP], … A
 * model without one gets the text after its BOS, if it has that. types (may be NULL) receives 0 or
 * 1 for each id; *n_cut (may be NULL) how many ids of the texts did not fit. UNSUPPORTED for a pair
 * where the model has no template for pairs; INVALID where max has no room for the template. */
enum hd_err hd_tokenizer_encode_input(const struct hd_tokenizer *tok, struct hd_ids *out,
                                      struct hd_ids *types, const struct hd_token_input *input,
                                      size_t *n_cut);
bool hd_tokenizer_has_pairs(const struct hd_tokenizer *tok);

/* --- chat forms ------------------------------------------------------------------------------- */

enum hd_chat_form {
    HD_CHAT_NONE,
    HD_CHAT_DEEPSEEK_R1,
    HD_CHAT_DEEPSEEK_R1_DISTILL,
    HD_CHAT_DEEPSEEK_V3, /* as R1, without thoughts */
    HD_CHAT_CHATML,
    HD_CHAT_LLAMA3,
    HD_CHAT_TEMPLATE /* none of these, but the checkpoint's own template works */
};

struct hd_chat_message {
    const char *role;                /* "system", "user", "assistant", "tool" */
    const char *content;             /* NUL-terminated UTF-8; NULL only beside tool_calls */
    const char *tool_calls;          /* assistant: JSON list as in OpenAI's API, or NULL */
    const char *tool_call_id, *name; /* tool, may be NULL */
};

/* Recognised from the special tokens and the checkpoint's template. */
enum hd_chat_form hd_chat_form(const struct hd_tokenizer *tok);
const char *hd_chat_form_name(enum hd_chat_form form);
/* Whose template renders: "checkpoint", "checkpoint, tools told by us" (it has a place for calls,
 * but none for tools: they stand in the system message), "checkpoint, tools built in" (its own is
 * wrong about calls or has no place for tools), "checkpoint, no tools", "built in", "none". */
const char *hd_chat_source(const struct hd_tokenizer *tok);
/* Whether the model writes its thoughts between <think> and </think>. */
bool hd_chat_thinks(const struct hd_tokenizer *tok);

struct hd_chat_options {
    bool no_think;     /* closes the thought at once, so that the answer starts directly */
    bool ask_think;    /* has a model that does not think by itself do so: see below */
    const char *tools; /* JSON list as in OpenAI's API, or NULL */
    int64_t now;       /* unix time that templates show; 0 = the clock's */
};
/* Appends the prompt ids up to where the assistant speaks, as the checkpoint's template renders the
 * conversation, or ours where it has none that works, or is wrong about tools. What messages and
 * tools hold is plain text to the tokenizer. Of the assistant's earlier turns R1 sees what follows
 * the last </think>, and its prompt ends with "<think>\n". With ask_think that of a model which
 * only thinks when asked does so too, and its system message says what is expected, in the language
 * of the last question. INVALID with a sentence for an unknown role, and for what the template
 * refuses. */
enum hd_err hd_chat_render(const struct hd_tokenizer *tok, struct hd_ids *out,
                           const struct hd_chat_message *messages, size_t n,
                           const struct hd_chat_options *options, struct hd_errmsg *msg);

/* --- the streaming splitter ------------------------------------------------------------------- */

/* Token ids in; whole characters out, as reasoning or answer. A thought may be opened by the prompt
 * (starts_in_think) or by the output; a missing </think> leaves everything in reasoning; markers
 * split over several tokens are recognised; markers never reach the output, nor do line breaks that
 * directly follow one. Stop strings end it: the text before them is emitted, the stop string is
 * not.
 *
 * Where tools are given, calls come out one by one, each when it is complete; text that may be the
 * beginning of one is held back, and what turns out to be none comes out as text. Calls have the
 * forms of DeepSeek (V3, R1-0528, V3.1), Qwen2.5 and Llama 3.1; see tool_calls.c. */
struct hd_splitter;
enum hd_split_kind {
    HD_SPLIT_REASONING,
    HD_SPLIT_ANSWER,
    HD_SPLIT_CALL /* a call of a function: {"name":…,"arguments":…}, the arguments as text */
};
typedef void (*hd_split_fn)(enum hd_split_kind kind, const char *text, size_t len, void *ud);

struct hd_split_options {
    bool starts_in_think;
    bool split_think;  /* false: everything is answer, <think> is text */
    bool plain_answer; /* an answer, once begun, opens and closes no thought: it follows a
                        * grammar */
    bool answer_tags;  /* <answer>, <final answer>, …: markers that never reach the output; an
                        * opening one also ends a thought (asked thinkers write them) */
    const char *const *stop; /* stop strings, looked for in the answer; borrowed */
    size_t n_stop;
    const char *tools; /* JSON list of functions that may be called, as in OpenAI's API, or NULL */
};
/* INVALID where a stop string is not UTF-8, or tools are no list. */
enum hd_err hd_splitter_new(struct hd_splitter **out, const struct hd_tokenizer *tok,
                            const struct hd_split_options *options);
void hd_splitter_free(struct hd_splitter *splitter);
/* Emits what is certain. *stopped becomes true at a stop string. */
enum hd_err hd_splitter_push(struct hd_splitter *splitter, int32_t id, hd_split_fn fn, void *ud,
                             bool *stopped);
/* 1 + index of the stop string that ended the text; 0 where none did. */
size_t hd_splitter_stopped_by(const struct hd_splitter *splitter);
/* What the next character belongs to; inside a character's bytes; whether text other than white
 * space is held back. */
enum hd_split_kind hd_splitter_kind(const struct hd_splitter *splitter);
bool hd_splitter_in_character(const struct hd_splitter *splitter);
bool hd_splitter_holds_text(const struct hd_splitter *splitter);
/* Emits what was held back; an unfinished character becomes U+FFFD. */
enum hd_err hd_splitter_finish(struct hd_splitter *splitter, hd_split_fn fn, void *ud);

#endif
