/* Reading passages one by one, for models that do not think.
 *
 * A small model shown five passages answers from the wrong one, and answers questions that none of
 * them answers. Alone with one passage it reads well. So each passage, best first, is shown with
 * the question and the model is asked whether the answer is in it, after four short examples of the
 * same; "yes" against "no" at the first token is weighed (one token, no text). That and how near
 * the passage's score comes to the best one's give a probability; reading stops early at a sure
 * one. The most probable passage, if it is probable enough, is answered from in the same
 * conversation, so that this costs little more than the instruction. How likely the model found the
 * least likely word of its answer tells whether it read that word or guessed it; an answer that was
 * guessed is not given. */
#ifndef HD_KB_READ_H
#define HD_KB_READ_H

#include <stdbool.h>
#include <stddef.h>

#include "kb/search.h"

struct hd_kb__reader;

struct hd_kb__reader_options {
    struct hd_engine *engine;
    const char *model;                    /* as in struct hd_request */
    const struct hd_principal *principal; /* borrowed while the reader lives */
    const char *question;
    const char *before;            /* the question of the turn before, or NULL */
    const struct hd_kb_hits *hits; /* best first; copied */
    size_t n_passage;              /* so many of them at most */
    struct hd_sampling sampling;   /* of the answer */
    int n_max;                     /* tokens of the answer; 0 = 96 */
    double timeout_s;
};

enum hd_err hd_kb__reader_new(struct hd_kb__reader **out,
                              const struct hd_kb__reader_options *options, struct hd_errmsg *msg);
void hd_kb__reader_free(struct hd_kb__reader *reader); /* NULL is fine */

/* The request to submit now, or NULL: reading is done. Borrowed until the next call. */
const struct hd_request *hd_kb__reader_request(const struct hd_kb__reader *reader);
/* Generated text of the current request. */
void hd_kb__reader_feed(struct hd_kb__reader *reader, const char *text, size_t len);
/* The current request's result; what to submit next, or NULL. */
const struct hd_request *hd_kb__reader_next(struct hd_kb__reader *reader,
                                            const struct hd_result *result);

struct hd_kb__reading {
    bool found;
    size_t passage;         /* index into hits, the best even where nothing was found */
    const char *answer;     /* trimmed, without marks; "" where not found */
    double probability;     /* that the answer is right; of none, that a passage holds it */
    struct hd_result total; /* tokens and times of all requests; ttft to the answer's first token */
};
/* Adds a request's tokens and times to those of the requests before it. */
void hd_kb__add_up(struct hd_result *total, const struct hd_result *result);
/* Once done. The strings are the reader's. */
void hd_kb__reader_result(const struct hd_kb__reader *reader, struct hd_kb__reading *out);

#endif
