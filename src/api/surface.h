/* Inside the room: one generation, and the forms ("surfaces") in which it is asked for and
 * answered.
 *
 * generate.c owns a generation's life: it submits, cancels, collects, and says when something goes
 * out. A surface knows one API's words: it reads a request into params, and writes the answer,
 * whole or as events. It never calls the engine.
 *
 *   body ─▶ surface.parse ─▶ params ─▶ engine, kb ─▶ begin, text…, call…, end | fail   (stream)
 *                                                └─▶ whole                             (at once)
 */
#ifndef HD_API_SURFACE_H
#define HD_API_SURFACE_H

#include "api/api_impl.h"
#include "kb/kb.h"

struct hd_api__surface;

/* One answer of a generation; n of them are made at the same time. */
struct hd_api__choice {
    struct hd_api__gen *gen;
    int index;
    bool has_result;
    struct hd_result result;
    struct hd_buf answer, reasoning; /* streaming: left to the surface */
    json_t *calls;                   /* as OpenAI wraps them; streaming: only counted in n_call */
    size_t n_call;
    /* Log-probabilities that are not out yet, as the surface writes them: lists without brackets.
     */
    struct hd_buf logprobs[4];
    size_t n_char; /* of the text that they speak of */
};

struct hd_api__gen {
    struct hd_api__call call; /* first */
    const struct hd_api__surface *surface;
    double started;
    int64_t created;
    char digits[25]; /* random; in every id of this generation */
    char id[48];
    struct hd_api__params params;
    char model[160];                      /* as the answer names it */
    struct hd_kb_turn *turn;              /* grounded */
    struct hd_api__choice first, *others; /* others: [n - 1], NULL where there is one answer */
    bool taken_up;                        /* this is GET /v1/streams/{id} */
    enum hd_api__stream_state state;
    struct hd_buf replay; /* what is known and was not received */
    /* Of each answer, how many events are known and still to be left out: with several, the order
     * of their events is not the same again. */
    unsigned n_known[HD_ANSWERS_MAX];

    pthread_mutex_t mu; /* guards what follows */
    bool begun;         /* the stream's first event is out */
    bool submitted, gone, failed;
    /* Seconds to the first text: until it was sent, and what the engine had of them; -1: not yet
     * known. Only where the client's one request is the engine's one. */
    bool marked;
    double first_sent_s, first_engine_s;
    uint64_t engine_id;            /* of the first answer */
    struct hd_api__choice *c;      /* the answer that is being written */
    int n_done;                    /* answers that have their result */
    unsigned n_submit;             /* a grounded answer may take several requests */
    unsigned n_event, n_sent;      /* events that were made, and of them, that went out */
    struct hd_api__stream *stream; /* NULL: cannot be taken up again */
    struct {                       /* for surfaces whose stream has a structure */
        int open;                  /* the kind of block that has begun and not ended; 0 = none */
        size_t n;                  /* blocks begun so far */
        json_t *list;              /* owned */
    } block;
    struct hd_buf event; /* scratch: what goes out next */
    json_t *choices;     /* written out already; not streaming */
};

struct hd_api__tool_call {
    size_t index; /* among the answer's calls */
    char id[64];
    json_t *function; /* {"name","arguments"}, the arguments as JSON text */
};

enum hd_api__finish { HD_API_FINISH_STOP, HD_API_FINISH_LENGTH, HD_API_FINISH_CALLS };

struct hd_api__surface {
    const char *pattern;     /* of its route */
    const char *id_prefix;   /* of the answer */
    const char *call_prefix; /* of a call's id */
    const char *stream_type; /* Content-Type of a stream */
    int (*parse)(struct hd_api__params *out, const char *body, size_t len,
                 struct hd_api__fault *fault);
    /* With gen->mu held; each appends whole events to out. grounds: members that a grounded answer
     * carries besides, or NULL. fail comes instead of end; end and fail end the stream. */
    void (*begin)(struct hd_api__gen *gen, struct hd_buf *out);
    void (*text)(struct hd_api__gen *gen, struct hd_buf *out, enum hd_text_kind kind,
                 const char *text, size_t len);
    /* Of the next token of the answer, before its text; NULL: not asked for in this form. */
    void (*logprobs)(struct hd_api__gen *gen, const struct hd_token_report *token);
    void (*call)(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__tool_call *call);
    /* An answer is complete and is not the last; NULL where a request has one only. */
    void (*next)(struct hd_api__gen *gen, struct hd_buf *out);
    void (*end)(struct hd_api__gen *gen, struct hd_buf *out, json_t *grounds);
    void (*fail)(struct hd_api__gen *gen, struct hd_buf *out, const struct hd_api__fault *fault);
    json_t *(*whole)(struct hd_api__gen *gen, json_t *grounds); /* new; NULL without memory */
};

extern const struct hd_api__surface hd_api__chat_completions, hd_api__completions; /* openai.c */
extern const struct hd_api__surface hd_api__responses;                             /* responses.c */
extern const struct hd_api__surface hd_api__anthropic_messages;                    /* anthropic.c */
extern const struct hd_api__surface hd_api__ollama_chat, hd_api__ollama_generate;  /* ollama.c */

/* The surface of a route's pattern; NULL where it generates nothing. */
const struct hd_api__surface *hd_api__surface_find(const char *pattern);
/* Whether the request has messages; else it has a prompt. */
bool hd_api__is_chat(const struct hd_api__gen *gen);
/* Why the thought ended, or NULL where none was due; the same as a member of an object. */
const char *hd_api__reasoning_stop(const struct hd_api__gen *gen);
void hd_api__add_reasoning_stop(const struct hd_api__gen *gen, json_t *to);
enum hd_api__finish hd_api__finish_of(const struct hd_api__gen *gen);
/* The head of a server-sent event up to its data; event: its name, or NULL. */
void hd_api__event_open(struct hd_api__gen *gen, struct hd_buf *out, const char *event);
/* A whole event; steals data. */
void hd_api__event_json(struct hd_api__gen *gen, struct hd_buf *out, const char *event,
                        json_t *data);

/* --- requests in other words: surface.c ---------------------------------------------------------
 */

/* Copies a member, if it is there and not null, under a new name (NULL: the same). */
void hd_api__copy(json_t *to, const char *as, const json_t *from, const char *name);
/* Whether a value is this very string. */
bool hd_api__is_word(const json_t *value, const char *word);

struct hd_api__word {
    const char *ours, *theirs; /* parts of field names */
};
/* The body's fields into the surface's own struct; *root: new, NULL where it is no JSON object. */
int hd_api__read_fields(void *fields, json_t **root, const char *body, size_t len,
                        const struct hd_api__schema *schema, struct hd_api__fault *fault);
/* Reads `request`, a translation of `original` into the words of /v1/chat/completions (chat) or
 * /v1/completions; a fault is told in the surface's words. rc: what reading and translating came
 * to; not 0: returned. Steals both; params keep the original. */
int hd_api__params_translated(struct hd_api__params *out, int rc, json_t *original, json_t *request,
                              bool chat, const struct hd_api__word *words, size_t n_word,
                              struct hd_api__fault *fault);

#endif
