/* Tells whether generated text goes round in circles, from its ids alone.
 *
 * Two signs. A period: the last ids repeat what stood p ids before, for several rounds. Worn-out
 * phrases (thoughts only): nearly all of the last 256 groups of six ids have been written three
 * times before; this catches loops whose rounds differ in a word or two, as sampled ones do. Text
 * that is quoted once or twice, code that is written again, lists and tables pass.
 *
 * What it says depends on the ids pushed since the last reset and on nothing else. Pushing costs a
 * walk over HD_LOOP_PERIOD counters and allocates nothing. Belongs to one session. */
#ifndef HD_ENGINE_LOOP_GUARD_H
#define HD_ENGINE_LOOP_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { HD_LOOP_PERIOD = 256 }; /* longest round that is seen, in ids */

struct hd_loop_guard;

struct hd_loop_rule {
    int rounds;   /* a period counts from so many rounds on … */
    int span;     /* … that repeat at least so many ids */
    bool phrases; /* worn-out phrases count too */
};
#define HD_LOOP_IN_THOUGHT ((struct hd_loop_rule){.rounds = 4, .span = 48, .phrases = true})
/* Answers may have good reasons to repeat themselves; nothing but a cut follows from this sign. */
#define HD_LOOP_IN_ANSWER ((struct hd_loop_rule){.rounds = 6, .span = 192})

enum hd_err hd_loop_guard_new(struct hd_loop_guard **out);
void hd_loop_guard_free(struct hd_loop_guard *guard); /* NULL is fine */
/* Forgets everything. */
void hd_loop_guard_reset(struct hd_loop_guard *guard, struct hd_loop_rule rule);
/* True where the text, this id included, goes round. */
bool hd_loop_guard_push(struct hd_loop_guard *guard, int32_t id);

#endif
