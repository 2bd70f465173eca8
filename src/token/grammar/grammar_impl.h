/* Inside the grammars: programs, states, and how schemas become text. */
#ifndef HD_TOKEN_GRAMMAR_IMPL_H
#define HD_TOKEN_GRAMMAR_IMPL_H

#include <jansson.h>
#include <stdatomic.h>

#include "token/grammar/grammar.h"

enum {
    HD_GRAMMAR_MAX_TEXT = 4 << 20,
    HD_GRAMMAR_MAX_RULES = 1 << 16,
    HD_GRAMMAR_MAX_ELEMS = 1 << 18,
    HD_GRAMMAR_MAX_CLASSES = 1 << 12,
    HD_GRAMMAR_MAX_NODES = 1 << 16, /* of all classes */
    HD_GRAMMAR_MAX_DEPTH = 64,      /* of groups */
    HD_GRAMMAR_MAX_REPEAT = 1 << 15,
    HD_GRAMMAR_MAX_HEADS = 1 << 10, /* places of one state */
    /* States and frames are forgotten, all but the current one, at the lower number. */
    HD_GRAMMAR_KEEP_STATES = 1 << 13,
    HD_GRAMMAR_MAX_STATES = 1 << 14,
    HD_GRAMMAR_KEEP_FRAMES = 1 << 16,
    HD_GRAMMAR_MAX_FRAMES = 1 << 18,
    HD_GRAMMAR_MASKS = 256, /* kept */
    HD_GRAMMAR_SEEN = 1 << 13,
};

/* --- a list that grows, up to a limit ----------------------------------------------------------
 */

/* Makes room for one more of `size` bytes at *data; LIMIT at max. */
enum hd_err hd_grammar__grow(void *data, size_t *cap, size_t n, size_t size, size_t max);

/* --- classes.c: sets of characters as automata over bytes ---------------------------------------
 */

struct hd_grammar__range { /* of code points, inclusive */
    uint32_t lo, hi;
};
struct hd_grammar__edge { /* of bytes, inclusive */
    uint8_t lo, hi;
    uint32_t to; /* a node; 0: the character is complete */
};
struct hd_grammar__node {
    uint32_t edge, n;
};
struct hd_grammar__classes {
    struct hd_grammar__node *node; /* node 0 is not used */
    struct hd_grammar__edge *edge;
    struct hd_grammar__range *range; /* of all classes, to find equal ones */
    struct {
        uint64_t hash;
        uint32_t range, n_range, node;
    } * class;
    size_t n_node, cap_node, n_edge, cap_edge, n_range, cap_range, n_class, cap_class;
};
void hd_grammar__classes_dispose(struct hd_grammar__classes *classes);
/* Sorts and joins ranges in place; returns how many are left. Surrogates are taken out: room for
 * one more range is needed. */
size_t hd_grammar__ranges_normal(struct hd_grammar__range *range, size_t n);
/* The complement of normal ranges; out has room for n + 2. */
size_t hd_grammar__ranges_invert(struct hd_grammar__range *out,
                                 const struct hd_grammar__range *range, size_t n);
/* The node where a character of these normal ranges begins. */
enum hd_err hd_grammar__class(struct hd_grammar__classes *classes, uint32_t *out,
                              const struct hd_grammar__range *range, size_t n);

/* --- gbnf.c: the program ------------------------------------------------------------------------
 */

enum hd_grammar__kind { ELEM_END, ELEM_BYTE, ELEM_CLASS, ELEM_RULE, ELEM_TOKEN };
struct hd_grammar__elem {
    uint32_t kind, value; /* a byte, a class's first node, a rule, an id */
};
struct hd_grammar__rule {
    uint32_t alt, n_alt; /* in alts */
    bool defined;
};
struct hd_grammar__program {
    struct hd_grammar__elem *elem; /* sequences, each with an END */
    uint32_t *alt;                 /* where sequences begin */
    struct hd_grammar__rule *rule;
    size_t n_elem, cap_elem, n_alt, cap_alt, n_rule, cap_rule;
    struct hd_grammar__classes classes;
    uint32_t root;
};
enum hd_err hd_grammar__parse(struct hd_grammar__program *out, const char *text, size_t len,
                              const struct hd_tokenizer *tok, struct hd_errmsg *msg);
/* check.c: whether no rule reaches itself, with something behind, before it has read a byte. */
enum hd_err hd_grammar__check(const struct hd_grammar__program *program, const json_t *names,
                              struct hd_errmsg *msg);
void hd_grammar__program_dispose(struct hd_grammar__program *program);

/* --- states.c -----------------------------------------------------------------------------------
 */

struct hd_grammar__frame { /* where to go on after a rule */
    uint32_t pos, parent;  /* an element; a frame, 0: none */
};
struct hd_grammar__head { /* a place: at a byte, class or token */
    uint32_t pos, node, frame;
};
struct hd_grammar__state {
    uint32_t head, n_head; /* sorted */
    bool may_end, has_token;
    int32_t mask; /* in the ring of masks, or -1 */
};
enum { STATE_UNKNOWN, STATE_DEAD, STATE_FIRST };

struct hd_grammar {
    atomic_int n_ref;
    struct hd_grammar__program program;
    uint8_t class_of[256]; /* bytes that no element tells apart are one class */
    uint8_t byte_of[256];  /* one byte of each */
    unsigned n_class;

    struct hd_grammar__state *state; /* [n_state], from STATE_FIRST */
    uint32_t *next;                  /* [cap_state, n_class]: states */
    struct hd_grammar__head *head;
    struct hd_grammar__frame *frame; /* from 1 */
    size_t n_state, cap_state, n_head, cap_head, n_frame, cap_frame;
    uint32_t *state_slot, *frame_slot; /* open addressing; 0: empty */
    size_t state_mask, frame_mask;
    unsigned epoch; /* grows when states are forgotten */
    uint32_t start;
    /* scratch of a closure */
    struct hd_grammar__head *work;
    struct {
        uint64_t closure;
        struct hd_grammar__head head;
    } * seen; /* [HD_GRAMMAR_SEEN], open addressing */
    size_t n_work, cap_work, n_seen;
    uint64_t closure; /* its number: what others left in `seen` does not count */
    bool may_end, too_large;

    uint64_t *mask[HD_GRAMMAR_MASKS]; /* [n_word] each */
    uint32_t mask_state[HD_GRAMMAR_MASKS];
    size_t n_word, next_mask;
};
enum hd_err hd_grammar__states_init(struct hd_grammar *grammar);
void hd_grammar__states_dispose(struct hd_grammar *grammar);
/* The state after a byte, or after a token named by the grammar; STATE_DEAD where there is none,
 * STATE_UNKNOWN after LIMIT or NOMEM. */
uint32_t hd_grammar__step_slow(struct hd_grammar *grammar, uint32_t state, uint8_t byte);
uint32_t hd_grammar__step_token(struct hd_grammar *grammar, uint32_t state, int32_t id);
static inline uint32_t hd_grammar__step(struct hd_grammar *grammar, uint32_t state, uint8_t byte)
{
    uint32_t next = grammar->next[(size_t)state * grammar->n_class + grammar->class_of[byte]];
    return next != STATE_UNKNOWN ? next : hd_grammar__step_slow(grammar, state, byte);
}
/* Forgets all states but one, if there are many; returns its new number, STATE_UNKNOWN on failure.
 */
uint32_t hd_grammar__tidy(struct hd_grammar *grammar, uint32_t state);

/* --- regex.c, schema.c, schema_text.c ------------------------------------------------------------
 */

/* Appends a GBNF expression of the JSON strings (with quotes) whose value matches an ECMA regex:
 * groups, classes, \d \w \s, `.`, quantifiers, alternatives, anchors at both ends of the whole.
 * UNSUPPORTED with the reason for the rest. */
enum hd_err hd_grammar__regex(struct hd_buf *out, const char *regex, size_t len,
                              struct hd_errmsg *msg);
/* A string literal of GBNF that means these bytes. */
void hd_grammar__put_literal(struct hd_buf *out, const char *bytes, size_t len);
/* The same of a JSON value's text, as json_dumps writes it. */
enum hd_err hd_grammar__put_value(struct hd_buf *out, const json_t *value);
/* An expression of the integers lo … hi, either of which may be absent. */
void hd_grammar__put_integer(struct hd_buf *out, const int64_t *lo, const int64_t *hi);
/* An expression of a format's strings, without quotes, and their lengths; NULL where we do not know
 * it. */
const char *hd_grammar__format(const char *name, size_t *least, size_t *longest);
/* Appends rules: "<rule><*number as given>" is a JSON string behind its first quote, the last
 * included, whose value is none of n names and which is written without escapes. *number grows. */
enum hd_err hd_grammar__put_other_string(struct hd_buf *out, const char *rule, int *number,
                                         const char *const *names, size_t n);
/* Appends the rules of a schema; `name` is the first one's, the others' are <prefix>N. Paths in
 * messages begin with `where`. What JSON texts are made of (hd_grammar__json) is not appended. */
enum hd_err hd_grammar__schema(struct hd_buf *out, const char *name, const char *prefix,
                               const char *where, json_t *schema, struct hd_errmsg *msg);
extern const char hd_grammar__json[];

#endif
