/* Inside the interpreter.
 *
 *   template ─ lex.c ─ tokens ─ parse.c, statements.c ─ tree ─ exec.c ─ text
 *                                                        │
 *                 eval.c ─ ops.c, str.c, filters.c, sequences.c, tests.c, methods.c, json.c
 *
 * Memory: a compiled template and a run have an arena each; nothing is freed one by one. Errors
 * stay in the arena's owner (`err`): functions return any value after one, and loops look. */
#ifndef HD_TOKEN_JINJA_JINJA_IMPL_H
#define HD_TOKEN_JINJA_JINJA_IMPL_H

#include <string.h>

#include "token/jinja/jinja.h"

enum {
    HD_JINJA_MAX_DEPTH = 200, /* of expressions and blocks, of calls of macros */
    HD_JINJA_MAX_TOKENS = 1 << 20,
    HD_JINJA_MAX_NAMES = 1 << 14,
    HD_JINJA_MAX_ARGS = 64,
    HD_JINJA_MAX_RANGE = 100000, /* as Jinja's sandbox has it */
};

typedef struct hd_jinja_value jv;

/* --- memory (value.c) ------------------------------------------------------------------------- */

struct hd_jinja__arena {
    struct hd_jinja__chunk *chunk;
    size_t used, max;
};
/* Aligned; NULL where there is no memory or the maximum is passed. */
void *hd_jinja__alloc(struct hd_jinja__arena *arena, size_t size);
void hd_jinja__arena_dispose(struct hd_jinja__arena *arena);

/* --- values (value.c) ------------------------------------------------------------------------- */

enum hd_jinja__kind {
    JV_UNDEFINED,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_REAL,
    JV_STR,
    JV_LIST, /* and tuples */
    JV_DICT,
    JV_NAMESPACE, /* a dict that set changes */
    JV_LOOP,
    JV_MACRO,
    JV_FUNCTION,
    JV_METHOD,
};

/* mask: a byte per byte of text, 1 = from the request; NULL = all are as `request` says. */
struct hd_jinja__str {
    const char *data;
    const unsigned char *mask;
    size_t len;
    bool request;
};

struct hd_jinja__list {
    jv *item;
    size_t n, cap;
    bool tuple;
};

struct hd_jinja__entry {
    jv key, value;
};
struct hd_jinja__dict {
    struct hd_jinja__entry *entry; /* in order of insertion */
    size_t n, cap;
    const struct hd_jinja__str *text; /* or NULL: see hd_jinja_dict_text */
};

struct hd_jinja__loop {
    const struct hd_jinja__list *list;
    size_t index0;
};

struct hd_jinja__method {
    jv self;
    const char *name;
};

struct hd_jinja__macro {
    const struct hd_jinja__node *node;
    struct hd_jinja__scope *scope; /* where it was defined */
};

jv hd_jinja__undefined(const char *name);
jv hd_jinja__int(int64_t i);
jv hd_jinja__real(double f);
jv hd_jinja__str(struct hd_jinja_run *run, const char *data, const unsigned char *mask, size_t len,
                 bool request);
/* Text that this program itself writes. */
jv hd_jinja__own(struct hd_jinja_run *run, const char *text);
/* Bytes [from, to) of a string. */
jv hd_jinja__cut(struct hd_jinja_run *run, const struct hd_jinja__str *s, size_t from, size_t to);
jv hd_jinja__concat(struct hd_jinja_run *run, const struct hd_jinja__str *a,
                    const struct hd_jinja__str *b);
void hd_jinja__dict_put(struct hd_jinja_run *run, struct hd_jinja__dict *dict, jv key, jv value);
/* NULL where there is none. */
struct hd_jinja__entry *hd_jinja__dict_find(struct hd_jinja_run *run,
                                            const struct hd_jinja__dict *dict, jv key);
static inline bool hd_jinja__is(const struct hd_jinja__str *s, const char *text)
{
    return s->len == strlen(text) && !memcmp(s->data, text, s->len);
}

/* A string in the making. */
struct hd_jinja__text {
    struct hd_buf text, mask;
    bool request, mixed;
};
void hd_jinja__text_init(struct hd_jinja_run *run, struct hd_jinja__text *text);
void hd_jinja__text_dispose(struct hd_jinja__text *text);
void hd_jinja__text_put(struct hd_jinja_run *run, struct hd_jinja__text *text, const char *data,
                        size_t len, bool request);
void hd_jinja__text_add(struct hd_jinja_run *run, struct hd_jinja__text *text,
                        const struct hd_jinja__str *s);
/* The finished string; the text is empty afterwards. */
jv hd_jinja__text_take(struct hd_jinja_run *run, struct hd_jinja__text *text);

/* --- the tree --------------------------------------------------------------------------------- */

enum hd_jinja__type {
    /* expressions */
    N_CONST,   /* value */
    N_NAME,    /* sym */
    N_LIST,    /* list */
    N_TUPLE,   /* list */
    N_DICT,    /* list: key, value, key, … */
    N_ATTR,    /* a.name */
    N_ITEM,    /* a[b] */
    N_SLICE,   /* a[list[0]:list[1]:list[2]], each may be NULL */
    N_CALL,    /* a(list …); argument names in names, NULL for positional ones */
    N_FILTER,  /* a | name(list …) */
    N_TEST,    /* a is name(list …); op 1: not */
    N_NOT,     /* not a */
    N_NEG,     /* -a */
    N_POS,     /* +a */
    N_BINARY,  /* a op b */
    N_AND,     /* a and b */
    N_OR,      /* a or b */
    N_COMPARE, /* a, then pairs: list[i] compared by ops[i] */
    N_COND,    /* b if a else c; c may be NULL */
    /* statements */
    N_TEXT,     /* value */
    N_OUTPUT,   /* a */
    N_BODY,     /* list */
    N_IF,       /* list: condition, body, condition, body, …; b: else or NULL */
    N_FOR,      /* targets a; over b; condition c or NULL; list[0] body, list[1] else or NULL */
    N_SET,      /* target a = b */
    N_SETBLOCK, /* target a; body b; filter c (applied to an N_CONST placeholder) or NULL */
    N_MACRO,    /* sym; names: parameters; list: defaults, NULL where there is none; b: body */
    N_WITH,     /* list: target, value, target, value, …; b: body */
    N_FILTERED, /* {% filter %}: b body, c as in N_SETBLOCK */
    N_BREAK,
    N_CONTINUE,
};

enum hd_jinja__op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_CONCAT,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
};

struct hd_jinja__node {
    uint8_t type, op;
    int line, sym, depth;
    struct hd_jinja__node *a, *b, *c;
    struct hd_jinja__node **list;
    size_t n;
    uint8_t *ops;       /* [n] of N_COMPARE */
    const char **names; /* [n] of arguments */
    const char *name;   /* NUL-terminated */
    jv value;
};

/* --- the compiled template -------------------------------------------------------------------- */

enum hd_jinja__lexeme {
    LX_END,
    LX_DATA,
    LX_VAR_BEGIN,
    LX_VAR_END,
    LX_BLOCK_BEGIN,
    LX_BLOCK_END,
    LX_NAME,
    LX_STRING,
    LX_INT,
    LX_REAL,
    LX_OP,
};

struct hd_jinja__token {
    enum hd_jinja__lexeme type;
    int line;
    const char *text; /* strings: unescaped; operators: static */
    size_t len;
    int64_t i;
    double f;
};

struct hd_jinja {
    struct hd_jinja__arena arena;
    const char **names; /* [n_name] variables; a symbol is an index */
    size_t n_name, cap_name;
    struct hd_jinja__node *root;
    /* while compiling */
    struct hd_jinja__token *token;
    size_t n_token, at;
    int depth, loops;
    struct hd_jinja__node no_node; /* what makers return after a failure */
    struct hd_jinja__token no_token;
    enum hd_err err;
    struct hd_errmsg msg;
};
/* Sets the error, unless there is one. */
void hd_jinja__refuse(struct hd_jinja *jinja, enum hd_err err, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void hd_jinja__lex(struct hd_jinja *jinja, const char *text, size_t len);
void hd_jinja__parse(struct hd_jinja *jinja);

/* parse.c, for statements.c */
struct hd_jinja__token *hd_jinja__peek(struct hd_jinja *jinja);
struct hd_jinja__token *hd_jinja__next(struct hd_jinja *jinja);
bool hd_jinja__at_op(struct hd_jinja *jinja, const char *op);
bool hd_jinja__at_name(struct hd_jinja *jinja, const char *name);
bool hd_jinja__skip_op(struct hd_jinja *jinja, const char *op);
bool hd_jinja__skip_name(struct hd_jinja *jinja, const char *name);
void hd_jinja__expect_op(struct hd_jinja *jinja, const char *op);
struct hd_jinja__node *hd_jinja__node(struct hd_jinja *jinja, enum hd_jinja__type type, int line);
/* Sets the node's depth from its children's; refuses what is too deep. */
struct hd_jinja__node *hd_jinja__close(struct hd_jinja *jinja, struct hd_jinja__node *node);
void hd_jinja__add(struct hd_jinja *jinja, struct hd_jinja__node *node,
                   struct hd_jinja__node *child);
char *hd_jinja__copy(struct hd_jinja *jinja, const char *text, size_t len);
int hd_jinja__symbol(struct hd_jinja *jinja, const char *name, size_t len);
struct hd_jinja__node *hd_jinja__expression(struct hd_jinja *jinja);
/* Without the ternary: what follows `in` of a for. */
struct hd_jinja__node *hd_jinja__or(struct hd_jinja *jinja);
/* One expression, or a tuple of several. */
struct hd_jinja__node *hd_jinja__tuple(struct hd_jinja *jinja, bool with_condition);
/* "| name(args) | …" behind node. */
struct hd_jinja__node *hd_jinja__filters(struct hd_jinja *jinja, struct hd_jinja__node *node,
                                         bool starts_inside);

/* --- running ---------------------------------------------------------------------------------- */

struct hd_jinja__var {
    int sym;
    jv value;
};
struct hd_jinja__scope {
    struct hd_jinja__scope *parent;
    struct hd_jinja__var *var;
    size_t n, cap;
};

enum hd_jinja__flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct hd_jinja_run {
    const struct hd_jinja *jinja;
    struct hd_jinja_limits limits;
    struct hd_jinja__arena arena;
    struct hd_jinja__scope top, *scope;
    struct hd_jinja__text output, *out;
    size_t steps;
    int depth, line;
    int64_t now;
    enum hd_jinja__flow flow;
    enum hd_err err;
    struct hd_errmsg msg;
};
void hd_jinja__fail(struct hd_jinja_run *run, enum hd_err err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Counts steps; false where the run has failed. */
bool hd_jinja__step(struct hd_jinja_run *run, size_t n);
void *hd_jinja__make(struct hd_jinja_run *run, size_t size);
void hd_jinja__assign(struct hd_jinja_run *run, struct hd_jinja__scope *scope, int sym, jv value);

struct hd_jinja__args {
    jv *value;
    const char **name; /* NULL for positional ones */
    size_t n;
};
/* The positional argument i, or the one of this name; undefined where neither is given. */
jv hd_jinja__arg(const struct hd_jinja__args *args, size_t i, const char *name);
bool hd_jinja__given(const struct hd_jinja__args *args, size_t i, const char *name);

/* eval.c */
jv hd_jinja__eval(struct hd_jinja_run *run, const struct hd_jinja__node *node);
jv hd_jinja__filter_node(struct hd_jinja_run *run, const struct hd_jinja__node *node, jv input);
jv hd_jinja__attr(struct hd_jinja_run *run, jv object, const char *name, size_t len);
jv hd_jinja__item(struct hd_jinja_run *run, jv object, jv key);
/* exec.c */
void hd_jinja__exec(struct hd_jinja_run *run, const struct hd_jinja__node *node);
void hd_jinja__set_target(struct hd_jinja_run *run, const struct hd_jinja__node *target, jv value);
jv hd_jinja__call_macro(struct hd_jinja_run *run, const struct hd_jinja__macro *macro,
                        const struct hd_jinja__args *args);

/* ops.c */
bool hd_jinja__truth(jv value);
bool hd_jinja__equal(struct hd_jinja_run *run, jv a, jv b);
/* a < b: -1, a == b: 0, else 1; an error where Python has no order. */
int hd_jinja__order(struct hd_jinja_run *run, jv a, jv b);
bool hd_jinja__contains(struct hd_jinja_run *run, jv item, jv container);
jv hd_jinja__binary(struct hd_jinja_run *run, enum hd_jinja__op op, jv a, jv b);
bool hd_jinja__compare(struct hd_jinja_run *run, enum hd_jinja__op op, jv a, jv b);
bool hd_jinja__is_number(jv value);
double hd_jinja__number(jv value);
/* "'x' is undefined"; true where it was. */
bool hd_jinja__fail_undefined(struct hd_jinja_run *run, jv value);
const char *hd_jinja__type_name(jv value);
/* What iteration gives, as a list; an error where Python would raise one. */
struct hd_jinja__list *hd_jinja__iterate(struct hd_jinja_run *run, jv value);
int64_t hd_jinja__length(struct hd_jinja_run *run, jv value);
struct hd_jinja__list *hd_jinja__new_list(struct hd_jinja_run *run, size_t cap);

/* str.c: Python's str(), repr() and what its strings do */
const struct hd_jinja__str *hd_jinja__to_str(struct hd_jinja_run *run, jv value);
void hd_jinja__put_value(struct hd_jinja_run *run, struct hd_jinja__text *out, jv value);
void hd_jinja__format_real(char out[40], double f);
bool hd_jinja__is_space(unsigned c);
enum hd_jinja__strip { STRIP_LEFT = 1, STRIP_RIGHT = 2, STRIP_BOTH = 3 };
jv hd_jinja__strip(struct hd_jinja_run *run, const struct hd_jinja__str *s, jv chars,
                   enum hd_jinja__strip sides);
enum hd_jinja__case { CASE_LOWER, CASE_UPPER, CASE_CAPITALIZE, CASE_TITLE, CASE_WORDS };
jv hd_jinja__case(struct hd_jinja_run *run, const struct hd_jinja__str *s, enum hd_jinja__case to);
jv hd_jinja__replace(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                     const struct hd_jinja__str *old, const struct hd_jinja__str *by,
                     int64_t count);
/* Byte position of needle at or after `from`, or SIZE_MAX. */
size_t hd_jinja__find(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                      const struct hd_jinja__str *needle, size_t from);
size_t hd_jinja__find_last(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                           const struct hd_jinja__str *needle);
/* s[start:stop:step] of strings and lists; undefined bounds are absent ones. */
jv hd_jinja__slice(struct hd_jinja_run *run, jv object, jv start, jv stop, jv step);
/* Byte position of code point i (0 … count). */
size_t hd_jinja__at(const struct hd_jinja__str *s, size_t i);

/* filters.c, sequences.c, tests.c, methods.c, json.c */
jv hd_jinja__filter(struct hd_jinja_run *run, const char *name, jv input,
                    const struct hd_jinja__args *args);
bool hd_jinja__test(struct hd_jinja_run *run, const char *name, jv input,
                    const struct hd_jinja__args *args);
/* The table of filters over lists; NULL where it has none of this name. */
typedef jv (*hd_jinja__filter_fn)(struct hd_jinja_run *run, jv input,
                                  const struct hd_jinja__args *args);
hd_jinja__filter_fn hd_jinja__sequence_filter(const char *name);
/* Whether an object of this kind has a method so called. */
const char *hd_jinja__method_name(jv self, const char *name, size_t len);
jv hd_jinja__call_method(struct hd_jinja_run *run, const struct hd_jinja__method *method,
                         const struct hd_jinja__args *args);
const char *hd_jinja__function_name(const char *name);
jv hd_jinja__call_function(struct hd_jinja_run *run, const char *name,
                           const struct hd_jinja__args *args);
jv hd_jinja__tojson(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args);

#endif
