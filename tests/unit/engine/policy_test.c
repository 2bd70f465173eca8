/* The scheduler's policy under a seeded simulation with a virtual clock: the same code that serves
 * requests, with thousands of them that arrive, leave, expire and run out of memory.
 *
 * HOLDFAST_SIM_STEPS sets the length (default a million), HOLDFAST_SIM_SEED the seed. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/policy.h"
#include "kernels/backend.h"

enum {
    N_BLOCK = 96,
    PLACES = 8,
    BUDGET = 256,
    N_TENANT = 5,
    MOST_PROMPT = 900,
    MOST_ANSWER = 300,
    MOST_TOKENS = MOST_PROMPT + MOST_ANSWER,
};

struct rng {
    uint64_t state;
};

static uint32_t draw(struct rng *r, uint32_t below)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((r->state >> 33) % below);
}

/* What a block holds: whose rows, computed from which beginning. */
struct content {
    uint64_t hash; /* of tenant and all ids up to the block's end */
    int rows;      /* that were written */
};

struct job {
    struct hd_work w; /* first */
    struct job *next;
    int32_t ids[MOST_TOKENS];
    uint64_t hash[MOST_TOKENS / HD_KV_BLOCK + 1]; /* of the beginning up to each block's end */
    int n_answer, tenant;
    double arrived, deadline;
};

struct sim {
    struct rng rng;
    struct hd_blocks *blocks;
    struct hd_policy *policy;
    struct content content[N_BLOCK];
    struct job *jobs;
    int n_job;
    uint64_t next_id, next_background;
    double now; /* virtual seconds */
    double served[N_TENANT], longest_wait;
    uint64_t done, cancelled, expired, found, background_done, forked;
};

static const char *const tenants[N_TENANT] = {"a", "b", "c", "d", "e"};
static const int weights[N_TENANT] = {1, 1, 2, 4, 1};

static uint64_t mix(uint64_t h, uint64_t x)
{
    h ^= x + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    return h * 0xff51afd7ed558ccdu;
}

/* Prompts share beginnings: the same few texts, in all tenants alike. */
static void make_ids(struct sim *s, struct job *j)
{
    uint32_t text = draw(&s->rng, 6), common = draw(&s->rng, (uint32_t)j->w.n_prompt + 1);
    uint64_t h = mix(17, (uint64_t)j->tenant);
    for (int i = 0; i < j->w.n_prompt; i++) {
        j->ids[i] = (uint32_t)i < common ? (int32_t)(text * 1000 + (uint32_t)i)
                                         : (int32_t)draw(&s->rng, 1u << 20);
        h = mix(h, (uint64_t)j->ids[i]);
        if ((i + 1) % HD_KV_BLOCK == 0)
            j->hash[i / HD_KV_BLOCK] = h;
    }
}

static struct job *new_job(struct sim *s, int tenant, int n_prompt, int n_answer)
{
    static const struct hd_block_key root = {{1, 2, 3}};
    struct job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->w.id = ++s->next_id;
    j->w.n_prompt = j->w.n_id = n_prompt;
    j->n_answer = n_answer;
    j->tenant = tenant;
    j->arrived = s->now;
    j->w.table = calloc(MOST_TOKENS / HD_KV_BLOCK + 2, sizeof *j->w.table);
    j->w.keys = calloc(MOST_TOKENS / HD_KV_BLOCK + 2, sizeof *j->w.keys);
    assert_true(j->w.table && j->w.keys);
    make_ids(s, j);
    assert_int_equal(hd_work_make_keys(j->w.keys, &root, tenants[tenant], j->ids, j->w.n_prompt),
                     HD_OK);
    return j;
}

static void free_job(struct job *j)
{
    free(j->w.table);
    free(j->w.keys);
    free(j);
}

static struct job *arrive(struct sim *s, int tenant, int n_prompt, int n_answer)
{
    struct job *j = new_job(s, tenant, n_prompt, n_answer);
    j->next = s->jobs;
    s->jobs = j;
    s->n_job++;
    assert_int_equal(hd_policy_add(s->policy, &j->w, tenants[tenant], "key", weights[tenant]),
                     HD_OK);
    return j;
}

static void leave(struct sim *s, struct job *j)
{
    hd_policy_remove(s->policy, &j->w);
    for (struct job **p = &s->jobs; *p; p = &(*p)->next)
        if (*p == j) {
            *p = j->next;
            break;
        }
    s->n_job--;
    free_job(j);
}

/* Blocks that were found hold what this tenant computed from this very beginning. */
static void check_found(struct sim *s, const struct hd_work *w)
{
    const struct job *j = (const struct job *)w;
    for (int i = 0; i < w->n_found; i++) {
        assert_true(s->content[w->table[i]].hash == j->hash[i]);
        assert_int_equal(s->content[w->table[i]].rows, HD_KV_BLOCK);
    }
    s->found += (uint64_t)w->n_found;
}

static void compute(struct sim *s, struct hd_work *w, int n)
{
    struct job *j = (struct job *)w;
    for (int i = w->n_done; i < w->n_done + n; i++) {
        assert_true(i / HD_KV_BLOCK < w->n_block);
        struct content *c = &s->content[w->table[i / HD_KV_BLOCK]];
        assert_int_equal(i % HD_KV_BLOCK ? c->rows : 0, i % HD_KV_BLOCK); /* in order, no gap */
        c->rows = i % HD_KV_BLOCK + 1;
        c->hash = i / HD_KV_BLOCK < w->n_prompt / HD_KV_BLOCK ? j->hash[i / HD_KV_BLOCK]
                                                              : mix(w->id, (uint64_t)i);
    }
    hd_policy_computed(s->policy, w, n);
}

static void token(struct sim *s, struct job *j);

/* Another answer behind a prompt that is computed; without place it waits as any other. */
static void fork_job(struct sim *s, const struct job *parent)
{
    struct job *j =
        new_job(s, parent->tenant, parent->w.n_prompt, 1 + (int)draw(&s->rng, MOST_ANSWER));
    int whole = j->w.n_prompt / HD_KV_BLOCK;
    memcpy(j->ids, parent->ids, (size_t)j->w.n_prompt * sizeof *j->ids);
    memcpy(j->hash, parent->hash, sizeof j->hash);
    memcpy(j->w.keys, parent->w.keys, (size_t)whole * sizeof *j->w.keys);
    j->next = s->jobs;
    s->jobs = j;
    s->n_job++;
    if (!hd_policy_fork(s->policy, &j->w, &parent->w, PLACES - hd_policy_n_running(s->policy))) {
        assert_int_equal(
            hd_policy_add(s->policy, &j->w, tenants[j->tenant], "key", weights[j->tenant]), HD_OK);
        return;
    }
    for (int i = 0; i < whole; i++) {
        assert_int_equal(j->w.table[i], parent->w.table[i]);
        assert_true(s->content[j->w.table[i]].hash == j->hash[i]);
    }
    if (whole < j->w.n_block) {
        assert_int_not_equal(j->w.table[whole], parent->w.table[whole]);
        s->content[j->w.table[whole]] = s->content[parent->w.table[whole]];
    }
    s->forked++;
    token(s, j);
}

/* The row that was fed last gives a token, unless it was replayed. */
static void token(struct sim *s, struct job *j)
{
    if (j->w.n_done < j->w.n_prompt || j->w.n_done != j->w.n_id)
        return;
    if (j->w.n_id == j->w.n_prompt && s->n_job < 200 && !draw(&s->rng, 6))
        fork_job(s, j);
    j->ids[j->w.n_id++] = 7;
    s->served[j->tenant]++;
    if (j->w.n_id == j->w.n_prompt + j->n_answer) {
        double wait = s->now - j->arrived;
        s->longest_wait = wait > s->longest_wait ? wait : s->longest_wait;
        s->done++;
        leave(s, j);
    }
}

static void background(struct sim *s)
{
    struct hd_work *w = hd_policy_background(s->policy);
    bool done = w && w->n_block && w->n_done == w->n_prompt;
    if (!w && !draw(&s->rng, 20)) {
        struct job *j =
            new_job(s, (int)draw(&s->rng, N_TENANT), HD_KV_BLOCK * (1 + (int)draw(&s->rng, 12)), 1);
        hd_policy_set_background(s->policy, &j->w);
    } else if (done || (w && !draw(&s->rng, 200))) {
        s->background_done += done;
        hd_policy_remove(s->policy, w);
        free_job((struct job *)w);
    }
}

static int step(struct sim *s)
{
    struct hd_plan_item items[PLACES];
    struct hd_work *w;
    int rows = 0;
    while ((w = hd_policy_admit(s->policy, PLACES - hd_policy_n_running(s->policy))))
        check_found(s, w);
    hd_policy_grow(s->policy);
    int n = hd_policy_plan_decode(s->policy, items);
    for (int i = 0; i < n; i++) {
        compute(s, items[i].work, 1);
        rows++;
    }
    for (int i = 0; i < n; i++)
        token(s, (struct job *)items[i].work);
    bool idle = !hd_policy_n_running(s->policy) && !hd_policy_n_waiting(s->policy);
    n = hd_policy_plan_prefill(s->policy, items, PLACES, BUDGET);
    int prompt_rows = 0;
    for (int i = 0; i < n; i++) {
        assert_true(items[i].n > 0);
        assert_true(!items[i].work->background || idle);
        prompt_rows += items[i].n;
        compute(s, items[i].work, items[i].n);
        assert_true(items[i].work->n_done % HD_KV_BLOCK == 0 ||
                    items[i].work->n_done == items[i].work->n_prompt);
    }
    assert_true(prompt_rows <= BUDGET);
    for (int i = 0; i < n; i++)
        if (!items[i].work->background)
            token(s, (struct job *)items[i].work);
    s->now += 0.002 + 0.001 * (rows + prompt_rows);
    return rows + prompt_rows;
}

static void start(struct sim *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->rng.state = seed;
    assert_int_equal(hd_blocks_new(&s->blocks, N_BLOCK), HD_OK);
    assert_int_equal(hd_policy_new(&s->policy, s->blocks, PLACES), HD_OK);
}

static void stop(struct sim *s)
{
    while (s->jobs)
        leave(s, s->jobs);
    struct hd_work *w = hd_policy_background(s->policy);
    if (w) {
        hd_policy_remove(s->policy, w);
        free_job((struct job *)w);
    }
    assert_int_equal(hd_blocks_used(s->blocks), 0);
    assert_true(hd_blocks_check(s->blocks));
    hd_policy_free(s->policy);
    hd_blocks_free(s->blocks);
}

static void random_arrivals(struct sim *s, uint32_t one_in)
{
    if (s->n_job < 200 && !draw(&s->rng, one_in)) {
        struct job *j = arrive(s, (int)draw(&s->rng, N_TENANT),
                               1 + (int)draw(&s->rng, draw(&s->rng, 4) ? 200 : MOST_PROMPT),
                               1 + (int)draw(&s->rng, draw(&s->rng, 4) ? 40 : MOST_ANSWER));
        if (!draw(&s->rng, 8))
            j->deadline = s->now + draw(&s->rng, 60);
    }
}

static void random_departures(struct sim *s)
{
    for (struct job *j = s->jobs, *next; j; j = next) {
        next = j->next;
        bool expired = j->deadline > 0 && s->now > j->deadline;
        if (expired || !draw(&s->rng, 4000)) {
            s->expired += expired;
            s->cancelled += !expired;
            leave(s, j);
        }
    }
}

static long env_long(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* Busy and quiet spells in turn; memory for a fraction of what runs. */
static void no_leak_no_stranger(void **state)
{
    (void)state;
    struct sim s;
    long n = env_long("HOLDFAST_SIM_STEPS", 1000000);
    start(&s, (uint64_t)env_long("HOLDFAST_SIM_SEED", 18));
    for (long i = 0; i < n; i++) {
        random_arrivals(&s, i / 2000 % 3 == 0 ? 4 : i / 2000 % 3 == 1 ? 30 : 400);
        random_departures(&s);
        background(&s);
        bool had = s.n_job > 0;
        int rows = step(&s);
        assert_true(rows > 0 || !had || !s.n_job); /* work is never stuck */
        if (i % 64 == 0)
            assert_true(hd_blocks_check(s.blocks));
    }
    for (long i = 0; s.n_job; i++) { /* everyone who stays gets its answer */
        assert_true(i < 500000);
        step(&s);
    }
    print_message("%ld steps: %llu answered, %llu left, %llu expired, %llu blocks found, %llu in "
                  "the background, %llu forked; longest wait %.0f s\n",
                  n, (unsigned long long)s.done, (unsigned long long)s.cancelled,
                  (unsigned long long)s.expired, (unsigned long long)s.found,
                  (unsigned long long)s.background_done, (unsigned long long)s.forked,
                  s.longest_wait);
    assert_true(s.done > 100 && s.found > 100 && s.cancelled > 10 && s.expired > 10);
    assert_true(s.background_done > 0 && s.forked > 10);
    stop(&s);
}

/* Two flows that always want more get tokens by weight, whoever asks with more requests. */
static void shares_follow_weights(void **state)
{
    (void)state;
    struct sim s;
    start(&s, 5);
    for (int i = 0; i < 20000; i++) {
        int waiting[N_TENANT] = {0};
        for (struct job *j = s.jobs; j; j = j->next)
            waiting[j->tenant]++;
        while (waiting[0] < 40) {
            arrive(&s, 0, 1 + (int)draw(&s.rng, 60), 50);
            waiting[0]++;
        }
        while (waiting[3] < 12) {
            arrive(&s, 3, 1 + (int)draw(&s.rng, 60), 50);
            waiting[3]++;
        }
        step(&s);
    }
    double ratio = s.served[3] / s.served[0];
    print_message("weight 4 to 1: tokens %.2f to 1\n", ratio);
    assert_true(ratio > 3.5 && ratio < 4.5);
    stop(&s);
}

/* One flow floods; another asks now and then. Its answers wait for no more than a few steps of
 * others, not for the flood. */
static void flood_does_not_drown(void **state)
{
    (void)state;
    struct sim s;
    double worst = 0;
    start(&s, 9);
    for (int i = 0; i < 300; i++)
        arrive(&s, 0, 100, 250);
    for (int i = 0; i < 500; i++)
        step(&s);
    for (int round = 0; round < 40; round++) {
        struct job *j = arrive(&s, 1, 80, 20);
        uint64_t id = j->w.id;
        double t = s.now;
        for (int i = 0, there = 1; there; i++) {
            assert_true(i < 200);
            step(&s);
            there = 0;
            for (struct job *k = s.jobs; k; k = k->next)
                there |= k->w.id == id;
        }
        worst = s.now - t > worst ? s.now - t : worst;
        for (int i = 0; i < 30; i++)
            step(&s);
    }
    print_message("beside a flood of 300: 20 tokens within %.2f s\n", worst);
    assert_true(worst < 2);
    stop(&s);
}

/* A stream of short prompts of many tenants does not hold up a long one. */
static void long_prompt_goes_on(void **state)
{
    (void)state;
    struct sim s;
    start(&s, 3);
    struct job *big = arrive(&s, 0, MOST_PROMPT, 2);
    uint64_t id = big->w.id;
    int i = 0;
    for (bool there = true; there; i++) {
        assert_true(i < 400);
        while (s.n_job < 30)
            arrive(&s, 1 + (int)draw(&s.rng, N_TENANT - 1), 1 + (int)draw(&s.rng, 120), 2);
        step(&s);
        there = false;
        for (struct job *k = s.jobs; k; k = k->next)
            there |= k->w.id == id;
    }
    print_message("%d tokens beside a stream of short prompts: %d steps\n", MOST_PROMPT, i);
    stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_leak_no_stranger),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(flood_does_not_drown),
        cmocka_unit_test(long_prompt_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
