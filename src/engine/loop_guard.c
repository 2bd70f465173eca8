#include "engine/loop_guard.h"

#include <stdlib.h>
#include <string.h>

enum {
    GROUP = 6,      /* ids of a phrase */
    WINDOW = 256,   /* phrases looked back at */
    WORN = 3,       /* times that a phrase was written before it is worn out */
    MOST_WORN = 80, /* percent of the window */
    SLOTS = 1 << 14,
};

struct phrase {
    uint32_t hash, n;
};

struct hd_loop_guard {
    struct hd_loop_rule rule;
    int n;                        /* ids so far; saturates where only "enough" matters */
    int at;                       /* where the next id goes */
    int32_t last[HD_LOOP_PERIOD]; /* ring */
    int run[HD_LOOP_PERIOD + 1];  /* [p]: how many ids in a row equal the one p before */
    bool worn[WINDOW];            /* ring: by phrase */
    int worn_at, n_worn, n_phrase;
    struct phrase slot[SLOTS]; /* by hash; a newcomer takes the place of what was there */
};

enum hd_err hd_loop_guard_new(struct hd_loop_guard **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? HD_OK : HD_ERR_NOMEM;
}

void hd_loop_guard_free(struct hd_loop_guard *guard)
{
    free(guard);
}

void hd_loop_guard_reset(struct hd_loop_guard *guard, struct hd_loop_rule rule)
{
    memset(guard, 0, sizeof *guard);
    guard->rule = rule;
}

/* The id that stood p before the next one; p <= n. */
static int32_t before(const struct hd_loop_guard *guard, int p)
{
    return guard->last[(guard->at - p + HD_LOOP_PERIOD) % HD_LOOP_PERIOD];
}

static bool has_period(struct hd_loop_guard *guard, int32_t id)
{
    int most = guard->n < HD_LOOP_PERIOD ? guard->n : HD_LOOP_PERIOD;
    bool found = false;
    for (int p = 1; p <= most; p++) {
        if (before(guard, p) != id) {
            guard->run[p] = 0;
            continue;
        }
        int repeated = ++guard->run[p], due = (guard->rule.rounds - 1) * p;
        found |= repeated >= due && repeated >= guard->rule.span;
    }
    return found;
}

/* FNV-1a over the last GROUP ids. */
static uint32_t hash_group(const struct hd_loop_guard *guard)
{
    uint32_t hash = 2166136261u;
    for (int p = GROUP; p >= 1; p--) {
        uint32_t id = (uint32_t)before(guard, p);
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ (id >> shift & 255)) * 16777619u;
    }
    return hash;
}

static bool phrases_worn(struct hd_loop_guard *guard)
{
    uint32_t hash = hash_group(guard);
    struct phrase *slot = &guard->slot[hash % SLOTS];
    if (slot->hash != hash || !slot->n)
        *slot = (struct phrase){.hash = hash};
    bool worn = slot->n++ >= WORN;
    guard->n_worn += worn - guard->worn[guard->worn_at];
    guard->worn[guard->worn_at] = worn;
    guard->worn_at = (guard->worn_at + 1) % WINDOW;
    guard->n_phrase += guard->n_phrase < WINDOW;
    return guard->n_phrase == WINDOW && guard->n_worn * 100 >= MOST_WORN * WINDOW;
}

bool hd_loop_guard_push(struct hd_loop_guard *guard, int32_t id)
{
    bool round = has_period(guard, id);
    guard->last[guard->at] = id;
    guard->at = (guard->at + 1) % HD_LOOP_PERIOD;
    guard->n += guard->n < HD_LOOP_PERIOD;
    if (guard->rule.phrases && guard->n >= GROUP)
        round |= phrases_worn(guard);
    return round;
}
