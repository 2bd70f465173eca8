/* A bounded interpreter of the Jinja that chat templates are written in.
 *
 * A template is compiled once per model and rendered once per request, each time with limits on
 * steps, nesting, memory and output. Statements: if, for (with filter, else, break, continue), set
 * (also of namespaces, and as a block), macro, with, filter, raw, comments, and transformers'
 * generation. Expressions, filters, tests and methods: those listed in docs/tokens.md. Whitespace
 * is treated as transformers sets Jinja up (trim_blocks, lstrip_blocks, no trailing newline). What
 * is not known is refused when compiling, with its line.
 *
 * Every byte of every string remembers whether it comes from the request or from the template, also
 * through split, trim, replace or tojson: the caller recognises special tokens only in bytes of the
 * template.
 *
 * A compiled template is immutable and may be used from any thread; a run belongs to one. */
#ifndef HD_TOKEN_JINJA_JINJA_H
#define HD_TOKEN_JINJA_JINJA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct hd_jinja;
struct hd_jinja_run;

/* UNSUPPORTED or FORMAT with "line N: why"; LIMIT where it is too large or nested too deeply. */
enum hd_err hd_jinja_compile(struct hd_jinja **out, const char *text, size_t len,
                             struct hd_errmsg *msg);
void hd_jinja_free(struct hd_jinja *jinja);
/* Whether the template reads a variable of this name anywhere. */
bool hd_jinja_reads(const struct hd_jinja *jinja, const char *name);

struct hd_jinja_limits {
    size_t max_steps;  /* nodes evaluated, and 64 bytes of text worked on, are a step each */
    size_t max_memory; /* bytes of values */
    size_t max_output; /* bytes of text */
};
#define HD_JINJA_LIMITS_DEFAULT                                                                    \
    ((struct hd_jinja_limits){                                                                     \
        .max_steps = 20000000, .max_memory = 256u << 20, .max_output = 64u << 20})

/* --- one rendering ---------------------------------------------------------------------------- */

/* A value: a plain handle to what lies in the run's memory. */
struct hd_jinja_value {
    int kind; /* enum hd_jinja__kind */
    union {
        bool b;
        int64_t i;
        double f;
        const struct hd_jinja__str *str;
        struct hd_jinja__list *list;
        struct hd_jinja__dict *dict;
        struct hd_jinja__loop *loop;
        const struct hd_jinja__macro *macro;
        const struct hd_jinja__method *method;
        const char *name; /* undefined: what was missing; functions: which */
    } u;
};

/* now: what strftime_now shows. The template must outlive the run. */
enum hd_err hd_jinja_run_new(struct hd_jinja_run **out, const struct hd_jinja *jinja,
                             const struct hd_jinja_limits *limits, int64_t now);
void hd_jinja_run_free(struct hd_jinja_run *run);

/* Makers of values. A failure (memory) stays in the run and shows when it renders. Text is borrowed
 * and must be UTF-8; `request` marks it as not the template's. */
struct hd_jinja_value hd_jinja_none(void);
struct hd_jinja_value hd_jinja_bool(bool b);
struct hd_jinja_value hd_jinja_string(struct hd_jinja_run *run, const char *text, size_t len,
                                      bool request);
/* What another run gave, with its marks; borrowed. */
struct hd_jinja_output;
struct hd_jinja_value hd_jinja_text(struct hd_jinja_run *run, const struct hd_jinja_output *text);
struct hd_jinja_value hd_jinja_list(struct hd_jinja_run *run);
struct hd_jinja_value hd_jinja_dict(struct hd_jinja_run *run);
void hd_jinja_push(struct hd_jinja_run *run, struct hd_jinja_value list,
                   struct hd_jinja_value item);
/* key is borrowed and trusted. */
void hd_jinja_put(struct hd_jinja_run *run, struct hd_jinja_value dict, const char *key,
                  struct hd_jinja_value value);
/* The dict prints and concatenates as this text, and is a mapping otherwise: the arguments of a
 * tool call, which templates treat as one or the other. */
void hd_jinja_dict_text(struct hd_jinja_run *run, struct hd_jinja_value dict, const char *text,
                        size_t len);
/* All strings and keys inside are marked as `request`. The JSON is borrowed. */
struct hd_jinja_value hd_jinja_json(struct hd_jinja_run *run, const json_t *json, bool request);

/* Gives the template a variable. */
void hd_jinja_set(struct hd_jinja_run *run, const char *name, struct hd_jinja_value value);

/* Text with a mark per byte: mask[i] is 1 where the byte comes from the request. mask is NULL where
 * all bytes are alike, as `request` then says. Lives as long as the run. */
struct hd_jinja_output {
    const char *text;
    const unsigned char *mask;
    size_t len;
    bool request;
};
/* Once per run. INVALID with "line N: why" for what the template raises or Jinja would refuse;
 * LIMIT. */
enum hd_err hd_jinja_render(struct hd_jinja_run *run, struct hd_jinja_output *out,
                            struct hd_errmsg *msg);

#endif
