/* Grammars: which token may come next, where an answer is constrained.
 *
 *   JSON schema ─ schema.c ─► GBNF text ─ gbnf.c ─► program ─ states.c ─► states ─ mask.c ─► tokens
 *
 * GBNF is the notation that llama.cpp publishes (grammars/README.md there): rules `name ::= …`, the
 * first symbol `root`; literals, classes, `.`, groups, `|`, `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`,
 * comments, and `<name>` or `<[id]>` for one token. A match is made byte by byte; a class means
 * whole UTF-8 characters.
 *
 * A program is a set of rules. A state is a set of places in it, each with the rules to return to;
 * states and the steps between them are made when first needed and kept, and so is the mask of a
 * state: what tokens may follow. All has a limit, and a grammar that passes one is refused.
 *
 * A vocabulary is immutable. A grammar and its runs belong to one thread at a time, except that ref
 * and unref may be called from any. */
#ifndef HD_TOKEN_GRAMMAR_H
#define HD_TOKEN_GRAMMAR_H

#include "token/token.h"

struct hd_grammar;
struct hd_grammar_vocab;
struct hd_grammar_run;

/* The tokens by their bytes. n_vocab: rows of the model's output, maybe more than tokens. Control
 * tokens and tokens longer than 255 bytes are not among them. */
enum hd_err hd_grammar_vocab_new(struct hd_grammar_vocab **out, const struct hd_tokenizer *tok,
                                 size_t n_vocab);
void hd_grammar_vocab_free(struct hd_grammar_vocab *vocab);

/* Compiles. tok finds tokens that the grammar names; NULL: none can be named. after_thought: at
 * most two line feeds may precede the text, as models write them behind </think>. INVALID with line
 * and reason for what is no grammar; LIMIT where it is too large. */
enum hd_err hd_grammar_new(struct hd_grammar **out, const char *gbnf, size_t len,
                           const struct hd_tokenizer *tok, bool after_thought,
                           struct hd_errmsg *msg);
struct hd_grammar *hd_grammar_ref(struct hd_grammar *grammar);
void hd_grammar_unref(struct hd_grammar *grammar); /* NULL is fine */

/* One generation. Holds a reference to the grammar; the vocabulary is borrowed and must be the same
 * for all runs of a grammar. vocab NULL: only accept_bytes and ended work. */
enum hd_err hd_grammar_run_new(struct hd_grammar_run **out, struct hd_grammar *grammar,
                               const struct hd_grammar_vocab *vocab);
void hd_grammar_run_free(struct hd_grammar_run *run);
/* Bit i of mask[i / 64]: token i may come. [(n_vocab + 63) / 64], borrowed until the next call of
 * anything on this grammar. Where the text may end here, the tokens that end generation are among
 * them. *n (may be NULL): whether any may come. LIMIT where the grammar has too many states. */
enum hd_err hd_grammar_run_mask(struct hd_grammar_run *run, const uint64_t **mask, bool *any);
/* Goes on by a token, or by bytes. INVALID, and the run unchanged, where it may not come. */
enum hd_err hd_grammar_run_accept(struct hd_grammar_run *run, int32_t id);
enum hd_err hd_grammar_run_accept_bytes(struct hd_grammar_run *run, const char *bytes, size_t len);
/* Whether the text may end here; and whether nothing else can follow. */
bool hd_grammar_run_may_end(struct hd_grammar_run *run);
bool hd_grammar_run_must_end(struct hd_grammar_run *run);

/* The grammar of JSON texts that a schema allows: those written in a plain way (members in the
 * schema's order, little white space, numbers of at most 16 digits). Every text of the grammar is
 * valid; not every valid text is in the grammar. Appends GBNF text. schema: a JSON text;
 * docs/api.md lists the keywords. UNSUPPORTED naming the keyword and its place; INVALID for what is
 * no schema. */
enum hd_err hd_grammar_from_schema(struct hd_buf *out, const char *schema, size_t len,
                                   struct hd_errmsg *msg);
/* The grammar of any JSON object. */
extern const char hd_grammar_json_object[];
/* The grammar of calls of functions in the form that the model's family writes and the splitter
 * reads. tools: JSON list as in OpenAI's API; name: the one that must be called, or NULL for any;
 * parallel: more than one call may come. Appends GBNF text. */
enum hd_err hd_grammar_from_tools(struct hd_buf *out, const struct hd_tokenizer *tok,
                                  const char *tools, const char *name, bool parallel,
                                  struct hd_errmsg *msg);

#endif
