#include "engine/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernels/backend.h"

/* A flow may be this many tokens (at weight 1) ahead before one of its works makes place. */
enum { FAR_BEHIND = 256 };

struct hd_flow {
    struct hd_flow *next;
    char *tenant, *key_id;
    int weight;
    double had;     /* tokens / weight: virtual time of admission */
    double prefill; /* the same of prompt rows in steps: shares the budget */
    struct hd_work *waiting;
    int n_waiting, n_running;
};

struct hd_policy {
    struct hd_blocks *blocks;
    struct hd_flow *flows;
    struct hd_work **running; /* by admission */
    int n_running, n_waiting, max_running;
    struct hd_work *background;
    double now, prefill_now; /* the least that an active flow has had; never falls */
    int turn;                /* which prompt comes first in the next step */
};

enum hd_err hd_policy_new(struct hd_policy **out, struct hd_blocks *blocks, int max_running)
{
    *out = NULL;
    struct hd_policy *p = calloc(1, sizeof *p);
    if (!p)
        return HD_ERR_NOMEM;
    p->blocks = blocks;
    p->max_running = max_running;
    p->running = calloc((size_t)max_running, sizeof *p->running);
    if (!p->running) {
        free(p);
        return HD_ERR_NOMEM;
    }
    *out = p;
    return HD_OK;
}

static void flow_free(struct hd_flow *flow)
{
    free(flow->tenant);
    free(flow->key_id);
    free(flow);
}

void hd_policy_free(struct hd_policy *p)
{
    if (!p)
        return;
    for (struct hd_flow *f = p->flows, *next; f; f = next) {
        next = f->next;
        flow_free(f);
    }
    free(p->running);
    free(p);
}

int hd_work_blocks_for(int n_token)
{
    return n_token / HD_KV_BLOCK + (n_token % HD_KV_BLOCK != 0);
}

bool hd_work_in_prefill(const struct hd_work *w)
{
    return w->n_done < w->n_prompt;
}

/* --- flows ----------------------------------------------------------------------------------- */

static bool is_active(const struct hd_flow *f)
{
    return f->n_waiting || f->n_running;
}

/* Virtual time goes on; flows that are idle and owe nothing are forgotten. One that owes is kept,
 * so that leaving for a moment pays off for nobody. */
static void settle(struct hd_policy *p)
{
    double least = -1;
    for (struct hd_flow *f = p->flows; f; f = f->next)
        if (is_active(f) && (least < 0 || f->had < least))
            least = f->had;
    if (least > p->now)
        p->now = least;
    for (struct hd_flow **at = &p->flows; *at;) {
        struct hd_flow *f = *at;
        if (!is_active(f) && (least < 0 || f->had <= p->now)) {
            *at = f->next;
            flow_free(f);
        } else {
            at = &f->next;
        }
    }
    if (!p->flows)
        p->now = p->prefill_now = 0;
}

static struct hd_flow *flow_of(struct hd_policy *p, const char *tenant, const char *key_id)
{
    for (struct hd_flow *f = p->flows; f; f = f->next)
        if (!strcmp(f->tenant, tenant) && !strcmp(f->key_id, key_id))
            return f;
    struct hd_flow *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->tenant = strdup(tenant);
    f->key_id = strdup(key_id);
    if (!f->tenant || !f->key_id) {
        flow_free(f);
        return NULL;
    }
    f->next = p->flows;
    p->flows = f;
    return f;
}

static void charge(struct hd_work *w, int upto)
{
    if (upto > w->n_charged) {
        w->flow->had += (double)(upto - w->n_charged) / w->flow->weight;
        w->n_charged = upto;
    }
}

/* --- queue ----------------------------------------------------------------------------------- */

static void insert_waiting(struct hd_policy *p, struct hd_work *w)
{
    struct hd_work **at = &w->flow->waiting;
    while (*at && (*at)->id < w->id)
        at = &(*at)->next;
    w->next = *at;
    *at = w;
    w->flow->n_waiting++;
    p->n_waiting++;
}

static bool take_waiting(struct hd_policy *p, struct hd_work *w)
{
    for (struct hd_work **at = &w->flow->waiting; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            w->next = NULL;
            w->flow->n_waiting--;
            p->n_waiting--;
            return true;
        }
    return false;
}

enum hd_err hd_policy_add(struct hd_policy *p, struct hd_work *w, const char *tenant,
                          const char *key_id, int weight)
{
    settle(p);
    struct hd_flow *f = flow_of(p, tenant, key_id);
    if (!f)
        return HD_ERR_NOMEM;
    f->weight = weight < 1 ? 1 : weight;
    if (!is_active(f))
        f->had = f->had > p->now ? f->had : p->now;
    w->flow = f;
    insert_waiting(p, w);
    return HD_OK;
}

/* The last block first, so that beginnings outlive ends. */
static void release(struct hd_policy *p, struct hd_work *w)
{
    while (w->n_block)
        hd_blocks_release(p->blocks, w->table[--w->n_block]);
    w->n_done = w->n_published = w->n_found = 0;
}

static void stop_running(struct hd_policy *p, struct hd_work *w)
{
    for (int i = 0; i < p->n_running; i++)
        if (p->running[i] == w) {
            memmove(p->running + i, p->running + i + 1,
                    (size_t)(p->n_running - i - 1) * sizeof *p->running);
            p->n_running--;
            w->flow->n_running--;
            break;
        }
    w->running = false;
}

static void preempt(struct hd_policy *p, struct hd_work *w)
{
    release(p, w);
    stop_running(p, w);
    insert_waiting(p, w);
}

static void drop_background(struct hd_policy *p)
{
    if (p->background)
        release(p, p->background);
}

void hd_policy_set_background(struct hd_policy *p, struct hd_work *w)
{
    w->background = true;
    p->background = w;
}

void hd_policy_remove(struct hd_policy *p, struct hd_work *w)
{
    if (w->background) {
        release(p, w);
        if (p->background == w)
            p->background = NULL;
        return;
    }
    if (!w->flow)
        return;
    /* A prompt that was paid for and not computed is paid back. */
    int paid = w->n_charged < w->n_prompt ? w->n_charged : w->n_prompt;
    if (w->running && w->n_done < paid && w->n_charged <= w->n_prompt)
        w->flow->had -= (double)(paid - w->n_done) / w->flow->weight;
    release(p, w);
    if (w->running)
        stop_running(p, w);
    else
        take_waiting(p, w);
    w->flow = NULL;
}

/* --- admission ------------------------------------------------------------------------------- */

/* Takes the blocks that are known already, and the others if there are enough. The last token of a
 * prompt is always computed: its row gives the first logits. */
static bool take_blocks(struct hd_policy *p, struct hd_work *w)
{
    int findable = (w->background ? w->n_prompt : w->n_prompt - 1) / HD_KV_BLOCK;
    int need = hd_work_blocks_for(w->n_id);
    while (w->n_block < findable) {
        int32_t block = hd_blocks_find(p->blocks, &w->keys[w->n_block]);
        if (block < 0)
            break;
        w->table[w->n_block++] = block;
    }
    w->n_found = w->n_block;
    /* One block of growth for everyone who runs, so that admitting does not mean evicting soon. */
    if (hd_blocks_available(p->blocks) < need - w->n_found + p->n_running) {
        release(p, w);
        return false;
    }
    while (w->n_block < need)
        w->table[w->n_block++] = hd_blocks_take(p->blocks);
    w->n_published = w->n_found;
    w->n_done = w->n_found * HD_KV_BLOCK;
    return true;
}

/* The flow that has had the least of those that wait; of equals, the one that waits longest. */
static struct hd_flow *next_flow(const struct hd_policy *p)
{
    struct hd_flow *best = NULL;
    for (struct hd_flow *f = p->flows; f; f = f->next)
        if (f->waiting && (!best || f->had < best->had ||
                           (f->had <= best->had && f->waiting->id < best->waiting->id)))
            best = f;
    return best;
}

/* Makes place for a flow that has nothing running: the youngest work of the flow that has had most
 * and runs at least two. */
static bool make_place(struct hd_policy *p, const struct hd_flow *needy)
{
    struct hd_flow *rich = NULL;
    struct hd_work *youngest = NULL;
    if (needy->n_running)
        return false;
    for (struct hd_flow *f = p->flows; f; f = f->next)
        if (f->n_running > 1 && f->had > needy->had + FAR_BEHIND && (!rich || f->had > rich->had))
            rich = f;
    for (int i = 0; rich && i < p->n_running; i++)
        if (p->running[i]->flow == rich && (!youngest || p->running[i]->id > youngest->id))
            youngest = p->running[i];
    if (youngest)
        preempt(p, youngest);
    return youngest != NULL;
}

static struct hd_work *admit_background(struct hd_policy *p)
{
    struct hd_work *w = p->background;
    if (!w || w->n_block || p->n_running || p->n_waiting || !take_blocks(p, w))
        return NULL;
    return w;
}

struct hd_work *hd_policy_admit(struct hd_policy *p, int room)
{
    settle(p);
    struct hd_flow *f = next_flow(p);
    if (!f)
        return admit_background(p);
    struct hd_work *w = f->waiting;
    while (room <= 0 || p->n_running >= p->max_running) {
        if (!make_place(p, f))
            return NULL;
        room++;
    }
    while (!take_blocks(p, w)) {
        if (p->background && p->background->n_block)
            drop_background(p);
        else if (!make_place(p, f))
            return NULL; /* nobody overtakes it, so it will get its blocks */
    }
    take_waiting(p, w);
    if (w->n_charged < w->n_done)
        w->n_charged = w->n_done;
    charge(w, w->n_prompt);
    w->running = true;
    p->running[p->n_running++] = w;
    f->n_running++;
    return w;
}

bool hd_policy_fork(struct hd_policy *p, struct hd_work *w, const struct hd_work *parent, int room)
{
    int whole = w->n_prompt / HD_KV_BLOCK, need = hd_work_blocks_for(w->n_prompt);
    if (room <= 0 || p->n_running >= p->max_running || p->n_waiting ||
        hd_blocks_available(p->blocks) < need - whole + p->n_running)
        return false;
    for (w->n_block = 0; w->n_block < whole; w->n_block++) {
        w->table[w->n_block] = parent->table[w->n_block];
        hd_blocks_share(p->blocks, w->table[w->n_block]);
    }
    if (whole < need)
        w->table[w->n_block++] = hd_blocks_take(p->blocks);
    w->n_published = whole;
    w->n_found = 0;
    w->n_done = w->n_charged = w->n_prompt;
    w->flow = parent->flow;
    w->flow->n_running++;
    w->running = true;
    p->running[p->n_running++] = w;
    return true;
}

/* --- steps ----------------------------------------------------------------------------------- */

static bool lacks_block(const struct hd_work *w)
{
    return !hd_work_in_prefill(w) && w->n_done / HD_KV_BLOCK >= w->n_block;
}

static struct hd_work *oldest_lacking(const struct hd_policy *p)
{
    struct hd_work *found = NULL;
    for (int i = 0; i < p->n_running; i++)
        if (lacks_block(p->running[i]) && (!found || p->running[i]->id < found->id))
            found = p->running[i];
    return found;
}

void hd_policy_grow(struct hd_policy *p)
{
    struct hd_work *w;
    while ((w = oldest_lacking(p))) {
        int32_t block = hd_blocks_take(p->blocks);
        if (block >= 0) {
            w->table[w->n_block++] = block;
            continue;
        }
        if (p->background && p->background->n_block) {
            drop_background(p);
            continue;
        }
        struct hd_work *youngest = p->running[0];
        for (int i = 1; i < p->n_running; i++)
            if (p->running[i]->id > youngest->id)
                youngest = p->running[i];
        if (p->n_running == 1)
            return; /* somebody else holds the rest for a moment */
        preempt(p, youngest);
    }
}

int hd_policy_plan_decode(struct hd_policy *p, struct hd_plan_item *items)
{
    int n = 0;
    for (int i = 0; i < p->n_running; i++) {
        struct hd_work *w = p->running[i];
        if (!hd_work_in_prefill(w) && !lacks_block(w))
            items[n++] = (struct hd_plan_item){w, 1};
    }
    return n;
}

/* Rows that the next piece of a prompt has: a block, or what is left of the prompt. */
static int piece_of(const struct hd_plan_item *item)
{
    int rest = item->work->n_prompt - item->work->n_done - item->n;
    return rest < HD_KV_BLOCK ? rest : HD_KV_BLOCK;
}

/* The item that gets the next piece: of the flow that has had least, the one with least. Earlier
 * ones win ties, and who comes first changes from step to step. */
static struct hd_plan_item *next_item(struct hd_plan_item *items, int n, int left)
{
    struct hd_plan_item *best = NULL;
    for (int i = 0; i < n; i++) {
        struct hd_plan_item *it = &items[i];
        int piece = piece_of(it);
        if (piece <= 0 || piece > left)
            continue;
        double a = it->work->flow->prefill, b = best ? best->work->flow->prefill : 0;
        if (!best || a < b || (it->work->flow == best->work->flow && it->n < best->n))
            best = it;
    }
    return best;
}

static int plan_background(struct hd_policy *p, struct hd_plan_item *items, int budget)
{
    struct hd_work *w = p->background;
    if (!w || !w->n_block || p->n_waiting || !hd_work_in_prefill(w))
        return 0;
    int rest = w->n_prompt - w->n_done;
    items[0] = (struct hd_plan_item){w, rest < budget ? rest : budget};
    return 1;
}

int hd_policy_plan_prefill(struct hd_policy *p, struct hd_plan_item *items, int max_item,
                           int budget)
{
    int n = 0, left = budget, n_item = 0;
    double least = -1;
    if (!p->n_running)
        return plan_background(p, items, budget);
    for (int i = 0; i < p->n_running && n < max_item; i++) {
        struct hd_work *w = p->running[(i + p->turn) % p->n_running];
        if (hd_work_in_prefill(w))
            items[n++] = (struct hd_plan_item){w, 0};
    }
    p->turn = (p->turn + 1) % p->n_running;
    for (int i = 0; i < n; i++) {
        struct hd_flow *f = items[i].work->flow;
        f->prefill = f->prefill > p->prefill_now ? f->prefill : p->prefill_now;
        least = least < 0 || f->prefill < least ? f->prefill : least;
    }
    if (least > p->prefill_now)
        p->prefill_now = least;
    for (struct hd_plan_item *it; (it = next_item(items, n, left));) {
        int piece = piece_of(it);
        it->n += piece;
        left -= piece;
        it->work->flow->prefill += (double)piece / it->work->flow->weight;
    }
    for (int i = 0; i < n; i++)
        if (items[i].n)
            items[n_item++] = items[i];
    return n_item;
}

static void publish(struct hd_policy *p, struct hd_work *w)
{
    int n_done = w->n_done < w->n_prompt ? w->n_done : w->n_prompt;
    for (; w->n_published < n_done / HD_KV_BLOCK; w->n_published++)
        hd_blocks_publish(p->blocks, w->table[w->n_published], &w->keys[w->n_published]);
}

void hd_policy_restored(struct hd_policy *p, struct hd_work *w, int n)
{
    w->n_done += n;
    publish(p, w);
}

void hd_policy_computed(struct hd_policy *p, struct hd_work *w, int n)
{
    hd_policy_restored(p, w, n);
    if (w->flow)
        charge(w, w->n_done);
}

/* --- looking --------------------------------------------------------------------------------- */

int hd_policy_n_running(const struct hd_policy *p)
{
    return p->n_running;
}

struct hd_work *hd_policy_running(const struct hd_policy *p, int i)
{
    return p->running[i];
}

int hd_policy_n_waiting(const struct hd_policy *p)
{
    return p->n_waiting;
}

struct hd_work *hd_policy_background(const struct hd_policy *p)
{
    return p->background;
}

void hd_policy_each_waiting(struct hd_policy *p, void (*fn)(void *ud, struct hd_work *work),
                            void *ud)
{
    for (struct hd_flow *f = p->flows; f; f = f->next)
        for (struct hd_work *w = f->waiting, *next; w; w = next) {
            next = w->next;
            fn(ud, w);
        }
}

/* --- keys ------------------------------------------------------------------------------------ */

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

enum hd_err hd_work_make_keys(struct hd_block_key *keys, const struct hd_block_key *root,
                              const char *tenant, const int32_t *ids, int n_id)
{
    char hex[65];
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    hd_sha256_update(sha, root->bytes, sizeof root->bytes);
    hd_sha256_update(sha, tenant, strlen(tenant));
    hd_sha256_finish(sha, hex);
    for (int i = 0; i < n_id / HD_KV_BLOCK; i++) {
        if ((err = hd_sha256_new(&sha)))
            return err;
        hd_sha256_update(sha, hex, 64);
        hd_sha256_update(sha, ids + (size_t)i * HD_KV_BLOCK, HD_KV_BLOCK * sizeof *ids);
        hd_sha256_finish(sha, hex);
        for (int j = 0; j < 32; j++)
            keys[i].bytes[j] =
                (uint8_t)((unsigned)digit(hex[2 * j]) << 4 | (unsigned)digit(hex[2 * j + 1]));
    }
    return HD_OK;
}
