/* Who is served next: the scheduler's decisions, without clock, threads, model or memory of its
 * own.
 *
 * A work is a sequence of rows to compute; a flow is a principal (tenant and key) with its works.
 *   waiting   admission goes to the flow that has had the least: weighted fair queueing by tokens.
 *             A flow is charged for a prompt when it is admitted and for each generated token; what
 *             is reused or replayed costs nothing, what is brought back from disk does (it is found
 *             after the charge). Inside a flow: order of arrival, no overtaking.
 *   running   holds KV blocks. Every generation takes part in each step; prompts share a budget,
 *             flow against flow by weight, inside a flow block by block in turn.
 *   pre-empted  gives its blocks back, waits, and replays later. Without blocks: the youngest of
 *             all, so the oldest always goes on. Without places: the youngest of the flow that has
 *             had most, if that has two or more and a flow with none is far behind it.
 *   background  one work at most, computed only while nothing else runs or waits; gives way.
 *
 * Nothing here blocks, reads a clock or calls back, so that a simulation can drive the very same
 * code (tests/unit/engine/policy_test.c). Owned by one thread. */
#ifndef HD_ENGINE_POLICY_H
#define HD_ENGINE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/blocks.h"

struct hd_policy;
struct hd_flow;

/* Sequence ids[0 … n_id): the prompt, then what was generated. KV exists for the first n_done.
 * The owner makes table, keys and the counts up to n_max; the rest belongs to the policy. */
struct hd_work {
    uint64_t id; /* ascending by arrival */
    int n_prompt, n_id, n_done;
    int32_t *table;            /* [blocks that the longest sequence needs] */
    struct hd_block_key *keys; /* [n_prompt / HD_KV_BLOCK] */
    int n_block;               /* held */
    int n_published;           /* leading blocks that are findable, or were found */
    int n_found;               /* blocks that the last admission found */
    int n_charged;             /* rows that its flow has paid for */
    bool running, background;
    struct hd_flow *flow;
    struct hd_work *next; /* in its flow's queue; free for the owner before hd_policy_add */
};

struct hd_plan_item {
    struct hd_work *work;
    int n; /* rows from n_done on */
};

/* Blocks are borrowed. max_running: places in the table of running works. */
enum hd_err hd_policy_new(struct hd_policy **out, struct hd_blocks *blocks, int max_running);
void hd_policy_free(struct hd_policy *policy); /* NULL is fine; works are the owner's */

/* Queues a work. weight ≥ 1; the latest given counts for the flow. */
enum hd_err hd_policy_add(struct hd_policy *policy, struct hd_work *work, const char *tenant,
                          const char *key_id, int weight);
/* Sets the background work; the one before is dropped without a word (remove it first). Its rows
 * are whole blocks of a prompt. */
void hd_policy_set_background(struct hd_policy *policy, struct hd_work *work);
/* Takes a work out, whatever its state, and gives its blocks back. */
void hd_policy_remove(struct hd_policy *policy, struct hd_work *work);

/* Admits one work, or none: NULL. room: places that may still be taken (≤ 0: none free; then only
 * by pre-empting). n_done says how much of it was found. */
struct hd_work *hd_policy_admit(struct hd_policy *policy, int room);
/* Makes a work that was never added, with the same prompt, run behind a running one that has
 * computed it: whole blocks are shared; where the prompt ends inside a block, the last of its table
 * is a new one for the caller to copy. False, and nothing is changed, where there is no place or no
 * memory, or others wait for them. It is charged for what it generates only. */
bool hd_policy_fork(struct hd_policy *policy, struct hd_work *work, const struct hd_work *parent,
                    int room);
/* Gives every generation the block of its next row, the oldest first, pre-empting the youngest. */
void hd_policy_grow(struct hd_policy *policy);
/* The next step's rows: of generations (one each), of prompts (within the budget; at most max_item
 * works). The background work's rows only where nothing else is running or waiting. */
int hd_policy_plan_decode(struct hd_policy *policy, struct hd_plan_item *items);
int hd_policy_plan_prefill(struct hd_policy *policy, struct hd_plan_item *items, int max_item,
                           int budget);
/* Rows were computed: counts, charges, and publishes blocks that hold prompt rows alone. */
void hd_policy_computed(struct hd_policy *policy, struct hd_work *work, int n);
/* The same for rows that were brought from elsewhere into the work's blocks. */
void hd_policy_restored(struct hd_policy *policy, struct hd_work *work, int n);

int hd_policy_n_running(const struct hd_policy *policy);
struct hd_work *hd_policy_running(const struct hd_policy *policy, int i);
int hd_policy_n_waiting(const struct hd_policy *policy);
struct hd_work *hd_policy_background(const struct hd_policy *policy);
/* Calls fn for each waiting work; fn may remove the work that it is given. */
void hd_policy_each_waiting(struct hd_policy *policy, void (*fn)(void *ud, struct hd_work *work),
                            void *ud);
bool hd_work_in_prefill(const struct hd_work *work);
int hd_work_blocks_for(int n_token);

/* keys[i] of the whole blocks of ids: SHA-256 over the key before and the ids; before the first
 * stands root, which names all else that content depends on, with the tenant. */
enum hd_err hd_work_make_keys(struct hd_block_key *keys, const struct hd_block_key *root,
                              const char *tenant, const int32_t *ids, int n_id);

#endif
