/* Inside the kernels room: what the objects of backend.h are made of, and the op table.
 *
 * A back end is a row of the table in backend.c: a name, a check of the processor, the ops. The ops
 * have the signatures of backend.h. The vector back ends fill in what they do faster and take the
 * rest from ref/. All back ends here are CPUs, so buffers and the helpers below are shared. */
#ifndef HD_KERNELS_OPS_H
#define HD_KERNELS_OPS_H

#include <pthread.h>
#include <stdatomic.h>

#include "kernels/backend.h"

struct hd_ops {
    /* A layout of the back end's own: plan fills in w->pack, w->packed_bytes and w->n_part; part
     * makes the parts [begin, end) of the copy, from any thread. NULL: it computes from w->data. */
    enum hd_err (*weight_plan)(struct hd_weight *w, struct hd_errmsg *msg);
    void (*weight_part)(const struct hd_weight *w, size_t begin, size_t end);
    void (*embed)(struct hd_stream *, struct hd_tensor, const struct hd_weight *, const int32_t *,
                  int64_t);
    void (*rms_norm)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor,
                     float);
    void (*matmul)(struct hd_stream *, const struct hd_matmul *, int, struct hd_tensor,
                   enum hd_form);
    void (*matmul_heads)(struct hd_stream *, struct hd_tensor, const struct hd_weight *,
                         struct hd_tensor, enum hd_form);
    void (*rope)(struct hd_stream *, struct hd_tensor, const struct hd_rope *, const int32_t *,
                 int64_t);
    void (*kv_write)(struct hd_stream *, struct hd_tensor, struct hd_tensor,
                     const struct hd_seq_rows *, int);
    void (*kv_read)(struct hd_stream *, struct hd_tensor, struct hd_tensor, const int32_t *,
                    int64_t);
    void (*attention)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor,
                      struct hd_tensor, float, const struct hd_seq_rows *, int, enum hd_form);
    void (*silu_mul)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor);
    void (*add)(struct hd_stream *, struct hd_tensor, struct hd_tensor);
    void (*layer_norm)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor,
                       struct hd_tensor, float);
    void (*activate)(struct hd_stream *, struct hd_tensor, struct hd_tensor, enum hd_activation);
    void (*attention_all)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor,
                          struct hd_tensor, float, const struct hd_seq_rows *, int);
    void (*mean_rows)(struct hd_stream *, struct hd_tensor, struct hd_tensor,
                      const struct hd_seq_rows *, int);
    void (*gather_rows)(struct hd_stream *, struct hd_tensor, struct hd_tensor, const int32_t *,
                        int64_t);
    void (*route)(struct hd_stream *, struct hd_tensor, struct hd_tensor, struct hd_tensor,
                  const struct hd_router *);
    void (*moe)(struct hd_stream *, struct hd_tensor, struct hd_tensor, const struct hd_weight *,
                const struct hd_weight *, const struct hd_weight *, struct hd_tensor,
                struct hd_tensor, enum hd_form);
    /* One share of the integer-rate probe: runs about `steps` steps, returns operations done. */
    double (*int8_work)(int64_t steps);
    /* Reads the bytes with the widest loads that the back end uses; returns their sum. */
    uint64_t (*read_work)(const void *data, size_t bytes);
};

struct hd_backend {
    const char *name;
    enum hd_dtype kv_dtype;
    const struct hd_ops *ops;
    const struct hd_x86_kernels *x86; /* the kernels under the ops; NULL in ref */
    /* NULL where this machine can run it; else what is missing, for a sentence. */
    const char *(*missing)(void);
};

struct hd_buffer {
    const struct hd_backend *backend;
    uint8_t *data; /* aligned to 64, zeroed when made */
    size_t bytes;
};

struct hd_weight {
    const struct hd_backend *backend;
    enum hd_dtype dtype;
    unsigned usage;
    int64_t n_in, n_out, n_matrix;
    size_t row_bytes;
    const uint8_t *data;                   /* borrowed: rows as in the file */
    const struct hd_weight_source *source; /* borrowed; then data is NULL */
    /* borrowed: which input each element of a row belongs to, [n_matrix, n_in]; or NULL */
    const int32_t *order;
    /* The copy that products read: the vector back ends' layout (x86/pack.h), in ref the rows as
     * they are (HD_WEIGHT_COPY). packed_bytes 0: there is none. */
    const struct hd_pack *pack;
    uint8_t *packed; /* NULL until there is memory for it */
    size_t packed_bytes, n_part;
    bool packed_borrowed;
    struct hd_weight_fill *fill; /* NULL where there is no copy */
};

/* Where finished pieces of a copy are found (repack.h). */
struct hd_weight_cached {
    int fd;
    bool mapped;          /* the copy's memory is a copy-on-write map of the file */
    uint64_t at;          /* of the copy, in the file */
    const uint64_t *sums; /* hd_hash64_bulk of `grab` parts each, seeded with the first one */
    atomic_size_t *n_bad; /* pieces that were wrong */
};

/* How far a copy has come. Threads take parts by `next`; who finishes the last one says so. */
struct hd_weight_fill {
    atomic_size_t next, done;              /* parts */
    size_t grab;                           /* parts taken at once */
    atomic_bool ready;                     /* all parts are made: products may read the copy */
    bool on_demand;                        /* nobody works on it in the background */
    const struct hd_weight_cached *cached; /* NULL: parts are made from the source */
    atomic_size_t *progress; /* bytes made, of all weights that share the counter; or NULL */
    pthread_mutex_t mu;
    pthread_cond_t made; /* ready became true */
};

/* Whether products may read w->packed; always so where there is no copy. */
static inline bool hd_weight_ready(const struct hd_weight *w)
{
    return !w->fill || atomic_load_explicit(&w->fill->ready, memory_order_acquire);
}
/* Makes what is left of the copy with the pool, and waits for what others are making. The memory
 * must be there. */
void hd_weight_finish(const struct hd_weight *w, struct hd_pool *pool);
/* Rows as in the file, from where they are best read. */
static inline const uint8_t *hd_weight_rows(const struct hd_weight *w)
{
    return w->packed && !w->pack && hd_weight_ready(w) ? w->packed : w->data;
}

/* The order of one matrix; NULL: the natural one. */
static inline const int32_t *hd_weight_order(const struct hd_weight *w, int64_t matrix)
{
    return w->order ? w->order + matrix * w->n_in : NULL;
}
/* n inputs, row index[i] (NULL: i) of `rows`, in the order of a matrix that has one: [n, n_in]. */
void hd_weight_order_rows(float *out, struct hd_pool *pool, const struct hd_weight *w,
                          int64_t matrix, const uint8_t *rows, size_t stride, const int32_t *index,
                          int64_t n);

/* Scratch by purpose, so that an op may hold several at once. */
enum hd_scratch {
    HD_SCRATCH_THREADS, /* per-thread working memory */
    HD_SCRATCH_INPUT,   /* quantised activations */
    HD_SCRATCH_HIDDEN,  /* the hidden activations of experts */
    HD_SCRATCH_HIDDEN_INPUT,
    HD_SCRATCH_GROUPS,    /* tokens by expert */
    HD_SCRATCH_PICKED,    /* rows with a remainder */
    HD_SCRATCH_REMAINDER, /* those */
    HD_SCRATCH_ORDERED,   /* inputs in a weight's order */
    HD_SCRATCH_COUNT,
};

struct hd_stream {
    const struct hd_backend *backend;
    struct hd_pool *pool; /* borrowed */
    enum hd_err failure;  /* the first since the last hd_sync */
    struct {
        void *data;
        size_t bytes;
    } scratch[HD_SCRATCH_COUNT];
};

/* At least `bytes`, aligned to 64, contents undefined; valid until the next call for this purpose.
 * Grows and never shrinks, so that a warm stream allocates nothing. NULL when out of memory: the
 * stream then remembers the failure and the op returns without a result. */
void *hd_stream_scratch(struct hd_stream *s, enum hd_scratch purpose, size_t bytes);

/* Zeroed pages with huge ones where they pay; NULL when out of memory. */
void *hd_pages_new(size_t bytes);
void hd_pages_free(void *data, size_t bytes);

static inline size_t hd_round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* Row i1 of matrix i2 of an F32 (or I32) tensor. */
static inline void *hd_tensor_row(const struct hd_tensor *t, int64_t i1, int64_t i2)
{
    return t->buffer->data + t->offset + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2];
}

/* Where the rows of one position of a cache lie. */
static inline uint8_t *hd_kv_row(const struct hd_tensor *cache, const int32_t *table, int64_t pos,
                                 int64_t head)
{
    return cache->buffer->data + cache->offset + (size_t)(pos % HD_KV_BLOCK) * cache->nb[1] +
           (size_t)head * cache->nb[2] + (size_t)table[pos / HD_KV_BLOCK] * cache->nb[3];
}

extern const struct hd_ops hd_ops_ref;

#endif
