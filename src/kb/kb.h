/* Knowledge bases: documents in, passages and cited answers out.
 *
 * A base is one folder, DIR/<tenant>/<name>/, with one SQLite file (kb.db) and a lock. It has one
 * writer at a time (flock; a second one gets BUSY) and any number of readers, each of which sees
 * the version that was current when its call began. `version` grows by one with every commit.
 *
 * Every call takes the principal: rows of other tenants do not exist for it, and a document with an
 * access list is seen only by a principal that has one of its groups (checked inside the scan,
 * before scoring).
 *
 * A struct hd_kb may be used by several threads at once. Strings inside results are owned by the
 * result. All text is valid UTF-8; spans are half-open code-point offsets into a document's stored
 * text. */
#ifndef HD_KB_KB_H
#define HD_KB_KB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "holdfast/holdfast.h"
#include "holdfast/principal.h"

struct hd_kb;
struct json_t; /* jansson's */

/* --- bases -------------------------------------------------------------------------------- */

/* Names: 1..64 of letters, digits, '-', '_', '.' (not first), and any character outside ASCII.
 * EXISTS where it is there already. */
enum hd_err hd_kb_create(const char *dir, const struct hd_principal *who, const char *name,
                         struct hd_errmsg *msg);
/* Opens for reading; NOTFOUND names the bases that exist. `create`: makes it where absent. */
enum hd_err hd_kb_open(struct hd_kb **out, const char *dir, const struct hd_principal *who,
                       const char *name, bool create, struct hd_errmsg *msg);
void hd_kb_close(struct hd_kb *kb); /* NULL is fine */
/* Removes the base with all its files. BUSY while someone writes to it. */
enum hd_err hd_kb_destroy(const char *dir, const struct hd_principal *who, const char *name,
                          struct hd_errmsg *msg);

struct hd_kb_names {
    char **names; /* sorted */
    size_t n;
};
enum hd_err hd_kb_list_bases(struct hd_kb_names *out, const char *dir,
                             const struct hd_principal *who, struct hd_errmsg *msg);
void hd_kb_names_dispose(struct hd_kb_names *names);

struct hd_kb_info {
    int64_t version;
    int64_t n_document, n_chunk; /* that the principal may see */
    int64_t n_codepoint, file_bytes;
};
enum hd_err hd_kb_info(struct hd_kb *kb, const struct hd_principal *who, struct hd_kb_info *out,
                       struct hd_errmsg *msg);

/* --- documents ---------------------------------------------------------------------------- */

enum hd_kb_outcome {
    HD_KB_ADDED,
    HD_KB_UPDATED,   /* same name, other content: the old revision is gone */
    HD_KB_UNCHANGED, /* same name, same bytes: skipped */
    HD_KB_FAILED,    /* `msg` says why; the rest goes on */
    HD_KB_SKIPPED,   /* not a format we read */
};
struct hd_kb_progress {
    const char *name; /* the document's name: path relative to the folder, with extension */
    size_t i, n;      /* file i of n, from 1 */
    enum hd_kb_outcome outcome;
    enum hd_err err; /* where FAILED */
    const char *msg;
    int64_t n_chunk, n_page;
};
struct hd_kb_add_options {
    const char *const *groups; /* access list of what is added; none = the whole tenant */
    size_t n_group;
    /* Called after each file, on the calling thread; returning false stops after what is done. */
    bool (*on_progress)(void *ud, const struct hd_kb_progress *progress);
    void *ud;
};
struct hd_kb_add_result {
    size_t n_added, n_updated, n_unchanged, n_failed, n_skipped;
    int64_t version; /* after the commit */
};

/* Adds files, and folders with all they hold (hidden files left out, links to folders not
 * followed). A file given directly is named by its last component. Readable files are committed
 * even where others fail; the call itself fails only where nothing could be done (BUSY, IO, a path
 * that does not exist). options may be NULL. */
enum hd_err hd_kb_add(struct hd_kb *kb, const struct hd_principal *who, const char *const *paths,
                      size_t n_path, const struct hd_kb_add_options *options,
                      struct hd_kb_add_result *out, struct hd_errmsg *msg);
/* Adds one document from memory (an upload); the name's extension says the format. Here a document
 * that cannot be read is the call's error. *out_id (nullable) is its id. */
enum hd_err hd_kb_add_bytes(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                            const void *data, size_t len, const struct hd_kb_add_options *options,
                            int64_t *out_id, struct hd_errmsg *msg);

/* Removes a document by name or by id: text, chunks, postings and terms that nothing else uses are
 * deleted, their pages overwritten and the write-ahead log emptied before this returns. */
enum hd_err hd_kb_remove(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                         struct hd_errmsg *msg);
enum hd_err hd_kb_remove_id(struct hd_kb *kb, const struct hd_principal *who, int64_t id,
                            struct hd_errmsg *msg);

struct hd_kb_document {
    int64_t id;
    char *name;     /* path relative to the added folder */
    char *revision; /* SHA-256 of the file's bytes, hexadecimal */
    char *format;   /* "text", "markdown", "html", "pdf", "docx", "epub" */
    char *groups;   /* access list, one name per line; "" = whole tenant */
    int64_t n_page; /* 0 where the format has none */
    int64_t n_chunk;
    int64_t n_codepoint; /* of the stored text */
    int64_t added;       /* unix time */
};
struct hd_kb_documents {
    struct hd_kb_document *items;
    size_t n;
    int64_t version;
};
/* All that the principal may see, by name. */
enum hd_err hd_kb_list(struct hd_kb *kb, const struct hd_principal *who,
                       struct hd_kb_documents *out, struct hd_errmsg *msg);
void hd_kb_documents_dispose(struct hd_kb_documents *documents);
/* The stored text of a document, to show a citation in its place. *text is owned. */
enum hd_err hd_kb_text(struct hd_kb *kb, const struct hd_principal *who, int64_t id, char **text,
                       struct hd_errmsg *msg);

/* --- search ------------------------------------------------------------------------------- */

struct hd_kb_source { /* whose text something is */
    int64_t id;
    char *name, *revision;
};
struct hd_kb_hit {
    struct hd_kb_source document;
    double score; /* BM25; comparable within one result only */
    int64_t chunk;
    int64_t page; /* 0 = the format has none */
    int64_t span[2];
    char *heading; /* "Title > Chapter > Section", "" without */
    char *text;
};
struct hd_kb_hits {
    struct hd_kb_hit *items; /* best first */
    size_t n;
    int64_t version;
};
struct hd_kb_search_options {
    size_t top;    /* documents, or passages with `passages` */
    bool passages; /* every passage instead of each document's best */
};
/* A query without a word that the base knows gives no hits, not an error. */
enum hd_err hd_kb_search(struct hd_kb *kb, const struct hd_principal *who, const char *query,
                         const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                         struct hd_errmsg *msg);
void hd_kb_hits_dispose(struct hd_kb_hits *hits);

/* --- ask ---------------------------------------------------------------------------------- */

enum hd_kb_verdict {
    HD_KB_SUPPORTED,   /* the passage the model named supports the sentence */
    HD_KB_REATTACHED,  /* another passage does (or the model named none) */
    HD_KB_UNSUPPORTED, /* none does; the quote is the nearest sentence or "" */
};
const char *hd_kb_verdict_name(enum hd_kb_verdict verdict); /* "supported", … */

struct hd_kb_citation {
    int n; /* the number in the answer's [citation:n] marks, from 1 */
    struct hd_kb_source document;
    int64_t page;      /* 0 = none */
    int64_t span[2];   /* of the quote */
    char *quote;       /* that sentence, verbatim */
    double confidence; /* 0..1, of this one citation */
    enum hd_kb_verdict verdict;
};
struct hd_kb_answer {
    char *answer;    /* with [citation:n] marks; never NULL */
    char *reasoning; /* the thought, "" without */
    bool found;
    bool quoted;       /* made by quoting: no language model was used */
    double confidence; /* 0..1 */
    struct hd_kb_citation *citations;
    size_t n_citation; /* 0 where not found */
    struct hd_kb_hit *nearest;
    size_t n_nearest; /* near misses; only where not found */
    int64_t version;  /* of the base the answer was made from */
    /* usage and timings */
    int n_prompt, n_cached, n_generated, n_reasoning; /* tokens; 0 when quoted */
    double retrieve_s, queue_s, prefill_s, decode_s, ttft_s, total_s;
    char model[128]; /* "" when quoted */
};
void hd_kb_answer_dispose(struct hd_kb_answer *answer);

struct hd_kb_ask_options {
    struct hd_engine *engine; /* NULL = answer by quoting */
    const char *model;        /* name in the engine; NULL = its first */
    const char *question;
    const struct hd_message *history; /* earlier user and assistant turns, oldest first */
    size_t n_history;
    size_t n_passage; /* most passages in the prompt; 0 = 5 */
    int n_max;        /* tokens to generate at most; 0 = a default by the model's kind */
    struct hd_sampling sampling;
    bool no_think;
    int max_thinking; /* tokens of a thought at most; 0 = as n_max allows */
    double timeout_s; /* 0 = none */
};
#define HD_KB_ASK_DEFAULT ((struct hd_kb_ask_options){.sampling = HD_SAMPLING_GREEDY})

/* Where the answer's text goes while it is made: whole sentences, each checked, with their marks.
 * `kind` REASONING carries the thought as it comes. The pieces of kind ANSWER add up to the
 * answer. */
typedef void (*hd_kb_text_fn)(void *ud, enum hd_text_kind kind, const char *text, size_t len);

/* Retrieves, generates, verifies; blocks until done. on_text (nullable) runs on the engine's
 * thread or on the caller's. */
enum hd_err hd_kb_ask(struct hd_kb *kb, const struct hd_principal *who,
                      const struct hd_kb_ask_options *options, hd_kb_text_fn on_text, void *ud,
                      struct hd_kb_answer *out, struct hd_errmsg *msg);

/* The same in steps, for callers that own the waiting (an event loop):
 *
 *   hd_kb_turn_new      retrieves and makes the request (a few milliseconds)
 *   hd_kb_turn_request  the request to submit to the engine, or NULL: no generation is needed
 *                       (quoting, or nothing near the question in the base)
 *   hd_kb_turn_feed     with each piece of generated text, in order (cheap; may be called from the
 *                       engine's on_text)
 *   hd_kb_turn_next     with the request's result: the next request to submit in the same way, or
 *                       NULL when reading is done (passages are read one by one by small models, so
 *                       a question may take several short requests; not on the engine's thread)
 *   hd_kb_turn_finish   once, at the end: fills the answer
 *
 * A turn is used by one thread at a time and keeps nothing of the base open. The request and its
 * strings are borrowed from the turn. */
struct hd_kb_turn;
enum hd_err hd_kb_turn_new(struct hd_kb_turn **out, struct hd_kb *kb,
                           const struct hd_principal *who, const struct hd_kb_ask_options *options,
                           hd_kb_text_fn on_text, void *ud, struct hd_errmsg *msg);
const struct hd_request *hd_kb_turn_request(const struct hd_kb_turn *turn);
void hd_kb_turn_feed(struct hd_kb_turn *turn, enum hd_text_kind kind, const char *text, size_t len);
/* Also after a request that ended with an error: then NULL, and finish reports the error. */
const struct hd_request *hd_kb_turn_next(struct hd_kb_turn *turn, const struct hd_result *result);
/* result: what the last request's on_done got; NULL where there was no request. The answer's usage
 * and timings are totals over all requests. */
enum hd_err hd_kb_turn_finish(struct hd_kb_turn *turn, const struct hd_result *result,
                              struct hd_kb_answer *out, struct hd_errmsg *msg);
void hd_kb_turn_free(struct hd_kb_turn *turn);

/* --- JSON of the contract ----------------------------------------------------------------- */

/* New references; NULL when out of memory. */
struct json_t *hd_kb_hits_json(const struct hd_kb_hits *hits);
struct json_t *hd_kb_documents_json(const struct hd_kb_documents *documents);
/* {"answer","reasoning","found","confidence","citations","nearest","usage",…} */
struct json_t *hd_kb_answer_json(const struct hd_kb_answer *answer);
struct json_t *hd_kb_citations_json(const struct hd_kb_answer *answer); /* the array alone */
struct json_t *hd_kb_nearest_json(const struct hd_kb_answer *answer);   /* the array alone */

#endif
