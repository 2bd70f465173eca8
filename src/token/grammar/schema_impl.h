/* Inside the conversion of schemas. */
#ifndef HD_TOKEN_SCHEMA_IMPL_H
#define HD_TOKEN_SCHEMA_IMPL_H

#include "token/grammar/grammar_impl.h"

enum { MAX_SCHEMA_DEPTH = 64 };
enum hd_grammar__type {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8,
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ALL = 127
};

struct hd_grammar__schema {
    json_t *root, *refs; /* refs: pointer → rule */
    json_t *any;         /* true */
    struct hd_buf *out;  /* rules */
    const char *prefix, *where;
    int number, depth;
    char path[512];
    struct hd_errmsg *msg;
};
/* "PATH: "KEYWORD" WHY". */
enum hd_err hd_grammar__refuse(struct hd_grammar__schema *sc, enum hd_err err, const char *keyword,
                               const char *why);
size_t hd_grammar__enter(struct hd_grammar__schema *sc, const char *part);
void hd_grammar__leave(struct hd_grammar__schema *sc, size_t len);
/* Borrowed; NULL where a reference leads nowhere in this document. */
json_t *hd_grammar__resolve(const struct hd_grammar__schema *sc, const char *ref);

/* --- schema_rules.c
 * ------------------------------------------------------------------------------- */

/* Refuses a keyword that is not known. */
enum hd_err hd_grammar__check_keywords(struct hd_grammar__schema *sc, const json_t *schema);
/* Whether there is a keyword, but $ref and notes, that says anything. */
bool hd_grammar__has_keywords(const json_t *schema);
/* Bits of the types that a schema allows; own: what it says itself, else through references and
 * alternatives too. A schema without a type has that of its keywords. */
unsigned hd_grammar__types(const struct hd_grammar__schema *sc, const json_t *schema, int depth,
                           bool own);
unsigned hd_grammar__type_of(const json_t *value);
/* Two keywords with whole numbers; what is absent leaves its value. */
enum hd_err hd_grammar__size(struct hd_grammar__schema *sc, const json_t *schema, const char *least,
                             const char *most, int64_t *min, int64_t *max);
enum hd_err hd_grammar__put_number(struct hd_grammar__schema *sc, struct hd_buf *out,
                                   const json_t *schema, bool integer);
/* Whether no value can be allowed by two of the schemas. */
bool hd_grammar__disjoint(const struct hd_grammar__schema *sc, const json_t *list);
/* $ref, allOf and what stands beside them as one schema; *out is owned. */
enum hd_err hd_grammar__merge(struct hd_grammar__schema *sc, json_t **out, const json_t *schema);
/* One of the alternatives of `keyword` with what stands beside them; *out is owned. */
enum hd_err hd_grammar__merge_base(json_t **out, const json_t *schema, const char *keyword,
                                   json_t *one);

#endif
