/* Thinking under control: budgets, loops, and an answer that always comes.
 *
 * A session that answers a conversation has one of these. It watches what is generated and steers
 * it in two ways: ids that the model does not choose ("forced": a nudge near the budget's end, the
 * end of the thought) and logits that are ruled out (tags in the answer; the end of the turn while
 * nothing was answered yet).
 *
 *   thought ── closes itself ─────────────────────────────────────────▶ answer
 *      │  near the budget: nudge, once                                  no <think>, </think>
 *      └─ budget, loop, end of turn, too little room ─ forced </think> ─▶ never blank
 *
 * Replay. Forced ids stand in the session's sequence like all others, and whatever steers is a
 * function of that sequence and the request; a session that was pre-empted computes its rows again
 * without asking here, so its text is the same as without the interruption.
 *
 * Belongs to its session; only the lexicon is shared. */
#ifndef HD_ENGINE_THINKING_H
#define HD_ENGINE_THINKING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "holdfast/holdfast.h"
#include "token/token.h"

struct hd_thinking;
struct hd_think_lexicon;

/* What a vocabulary says of tags, blanks, and the texts that are forced. Made once per model;
 * immutable. */
enum hd_err hd_think_lexicon_new(struct hd_think_lexicon **out, const struct hd_tokenizer *tok);
void hd_think_lexicon_free(struct hd_think_lexicon *lexicon); /* NULL is fine */

struct hd_thinking_options {
    const struct hd_think_lexicon *lexicon; /* NULL: no thoughts, only loops are looked for */
    bool starts_in_thought;
    bool asked;                  /* the model thinks because it is asked to: it may begin its answer
                                  * with tags of its own invention */
    bool may_open;               /* the model may begin a thought by itself */
    int n_max;                   /* ids that may be generated */
    int budget;                  /* of the thought, its end included; 0: as n_max allows */
    bool any_loops;              /* loops are left alone */
    enum hd_reasoning_stop stop; /* why there is no thought, where one was due */
};
enum hd_err hd_thinking_new(struct hd_thinking **out, const struct hd_tokenizer *tok,
                            const struct hd_thinking_options *options);
void hd_thinking_free(struct hd_thinking *thinking); /* NULL is fine */

/* Ids of n_max that are kept for the answer; whether what is left is enough for a thought. */
int hd_thinking_reserve(int n_max);
bool hd_thinking_fits(const struct hd_think_lexicon *lexicon, int n_max, int budget);

/* The id that comes next whatever the logits are, or -1. It counts as taken. */
int32_t hd_thinking_forced(struct hd_thinking *thinking);
/* Rules out logits; holds_text: the splitter has text that may belong to the answer. */
void hd_thinking_mask(const struct hd_thinking *thinking, float *logits, int n_vocab,
                      bool holds_text);
/* The model ends its turn: true where the thought's end comes first; take forced ids then. */
bool hd_thinking_end_of_turn(struct hd_thinking *thinking);

/* Text that was given out. */
void hd_thinking_text(struct hd_thinking *thinking, enum hd_text_kind kind, const char *text,
                      size_t len);
/* After every generated id: what it belonged to, what comes next, and whether a character is
 * unfinished. True: the answer goes round and ends here. */
bool hd_thinking_token(struct hd_thinking *thinking, int32_t id, bool was_thought, bool in_thought,
                       bool in_character);
/* Why the thought ended. */
enum hd_reasoning_stop hd_thinking_stop(const struct hd_thinking *thinking);

#endif
