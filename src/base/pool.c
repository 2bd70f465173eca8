#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* Workers spin a short while for the next call before they sleep: a decode step makes some hundred
 * calls within milliseconds, and a futex wake-up costs more than most of them. Spinning yields the
 * core, so that another process is not starved. */
enum { SPINS = 2000, YIELDS = 50 };

struct worker {
    struct hd_pool *pool;
    int index;
    pthread_t thread;
};

#define CALL_OPEN (UINT64_C(1) << 31)
#define CALL_INSIDE (CALL_OPEN - 1)

struct hd_pool {
    int n_thread;
    struct worker *worker; /* n_thread - 1 of them; the caller is thread 0 */
    pthread_mutex_t mu;
    pthread_cond_t wake;
    /* Of the current call: its number in the upper half, whether it takes workers in, and how many
     * are inside. Changed under mu where a call begins. A worker that comes late finds the call
     * closed, so that nobody waits for a thread that another process keeps from running. */
    _Atomic uint64_t call;
    atomic_size_t next; /* first index not handed out */
    atomic_int stop;
    /* the call; immutable while it is open or a worker is inside */
    size_t n, chunk;
    bool guided;
    hd_pool_fn fn;
    void *ud;
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Takes the next range; false when none is left. */
static bool take(struct hd_pool *pool, size_t *begin, size_t *end)
{
    *begin = atomic_load_explicit(&pool->next, memory_order_relaxed);
    do {
        size_t left = *begin < pool->n ? pool->n - *begin : 0, size = pool->chunk;
        if (!left)
            return false;
        if (pool->guided && left / (2 * (size_t)pool->n_thread) > size)
            size = left / (2 * (size_t)pool->n_thread);
        *end = *begin + (left < size ? left : size);
    } while (!atomic_compare_exchange_weak_explicit(&pool->next, begin, *end, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void work(struct hd_pool *pool, int thread)
{
    size_t begin, end;
    while (take(pool, &begin, &end))
        pool->fn(pool->ud, begin, end, thread);
}

static uint32_t number(uint64_t call)
{
    return (uint32_t)(call >> 32);
}

static uint32_t wait_for_call(struct hd_pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS + YIELDS; i++) {
        uint32_t now = number(atomic_load_explicit(&pool->call, memory_order_acquire));
        if (now != seen)
            return now;
        if (i < SPINS)
            cpu_relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&pool->mu);
    while (number(atomic_load(&pool->call)) == seen)
        pthread_cond_wait(&pool->wake, &pool->mu);
    uint32_t now = number(atomic_load(&pool->call));
    pthread_mutex_unlock(&pool->mu);
    return now;
}

/* Whether the worker is inside an open call now; it must leave. */
static bool enter(struct hd_pool *pool)
{
    uint64_t call = atomic_load_explicit(&pool->call, memory_order_relaxed);
    while (call & CALL_OPEN)
        if (atomic_compare_exchange_weak_explicit(&pool->call, &call, call + 1,
                                                  memory_order_acquire, memory_order_relaxed))
            return true;
    return false;
}

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct hd_pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_call(pool, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        if (!enter(pool))
            continue;
        work(pool, self->index);
        atomic_fetch_sub_explicit(&pool->call, 1, memory_order_release);
    }
}

static void announce(struct hd_pool *pool)
{
    pthread_mutex_lock(&pool->mu);
    uint64_t last = number(atomic_load_explicit(&pool->call, memory_order_relaxed));
    atomic_store_explicit(&pool->call, (last + 1) << 32 | CALL_OPEN, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mu);
}

int hd_pool_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

enum hd_err hd_pool_new(struct hd_pool **out, int n_thread)
{
    *out = NULL;
    if (n_thread <= 0)
        n_thread = hd_pool_cores();
    if (n_thread > 1024)
        return HD_ERR_LIMIT;
    struct hd_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return HD_ERR_NOMEM;
    pthread_mutex_init(&pool->mu, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->n_thread = 1;
    pool->worker = calloc((size_t)n_thread, sizeof *pool->worker);
    if (!pool->worker) {
        hd_pool_free(pool);
        return HD_ERR_NOMEM;
    }
    for (int i = 1; i < n_thread; i++) {
        struct worker *w = &pool->worker[i - 1];
        *w = (struct worker){.pool = pool, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w)) {
            hd_pool_free(pool);
            return HD_ERR_UNAVAILABLE;
        }
        pool->n_thread++;
    }
    *out = pool;
    return HD_OK;
}

void hd_pool_free(struct hd_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, 1);
    announce(pool);
    for (int i = 1; i < pool->n_thread; i++)
        pthread_join(pool->worker[i - 1].thread, NULL);
    pthread_mutex_destroy(&pool->mu);
    pthread_cond_destroy(&pool->wake);
    free(pool->worker);
    free(pool);
}

int hd_pool_threads(const struct hd_pool *pool)
{
    return pool->n_thread;
}

static void run(struct hd_pool *pool, size_t n, size_t chunk, bool guided, hd_pool_fn fn, void *ud)
{
    if (!n)
        return;
    if (!chunk)
        chunk = (n + (size_t)pool->n_thread - 1) / (size_t)pool->n_thread;
    if (pool->n_thread == 1 || n <= chunk) {
        for (size_t begin = 0; begin < n; begin += chunk)
            fn(ud, begin, n - begin < chunk ? n : begin + chunk, 0);
        return;
    }
    pool->n = n;
    pool->chunk = chunk;
    pool->guided = guided;
    pool->fn = fn;
    pool->ud = ud;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    announce(pool);
    work(pool, 0);
    atomic_fetch_and_explicit(&pool->call, ~CALL_OPEN, memory_order_relaxed);
    for (int i = 0; atomic_load_explicit(&pool->call, memory_order_acquire) & CALL_INSIDE; i++) {
        if (i < SPINS)
            cpu_relax();
        else
            sched_yield();
    }
}

void hd_pool_run(struct hd_pool *pool, size_t n, size_t chunk, hd_pool_fn fn, void *ud)
{
    run(pool, n, chunk, false, fn, ud);
}

void hd_pool_run_guided(struct hd_pool *pool, size_t n, size_t least, hd_pool_fn fn, void *ud)
{
    run(pool, n, least ? least : 1, true, fn, ud);
}
