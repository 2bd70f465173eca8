/* The x86 back ends: one driver (matmul.c, moe.c, rows.c, attention.c), one kernel table per
 * instruction set. The driver cuts work into tasks and writes results; a kernel sees one panel of
 * weights and some columns, or some rows. Here "column" means a row of activations: it is a column
 * of the product weights × activations.
 *
 * Integer products are exact in every kernel and the floating-point steps after them have one fixed
 * order, so that an element's bits depend neither on the number of columns nor on the path. */
#ifndef HD_KERNELS_X86_H
#define HD_KERNELS_X86_H

#include "kernels/ops.h"
#include "kernels/x86/pack.h"

#if defined(__x86_64__)
#define HD_X86 1
#else
#define HD_X86 0
#endif

/* --- activations in 8 bits ---------------------------------------------------------------------
 *
 * Each row is cut into blocks of 32 with a scale (largest magnitude / 127). Rows are stored in
 * tiles of four columns (the last tile has what is left, 1 to 4), so that a kernel addresses four
 * columns from one pointer: q:   [tile][block][group of 4 elements][column][4] int8 aux:
 * [tile][block][HD_AUX][column], see the enum */
enum { HD_TILE_COLUMNS = 4 };
enum {
    HD_AUX_SCALE,    /* float: scale */
    HD_AUX_SUM,      /* float: sum of the block's int8 values, for types with minima */
    HD_AUX_NEG32,    /* int32: minus that sum, for types with a constant zero */
    HD_AUX_NEG16_LO, /* int32: minus the sum of the first 16 values */
    HD_AUX_NEG16_HI, /* int32: minus the sum of the last 16 */
    HD_AUX,
};

struct hd_activations {
    int8_t *q;
    float *aux;
    int64_t n;       /* columns */
    int64_t n_block; /* per column; the row is padded with zeros to a multiple of four */
    /* The rows themselves, F32: what is quantised, and what weights in a float type meet. */
    const uint8_t *rows;
    size_t stride;
    const int32_t *index;   /* column i is row index[i], or remainder ~index[i]; NULL: row i */
    const float *remainder; /* rows of n_in (remainder.c) */
    int64_t n_in;
    enum hd_form form; /* AMX keeps prompt rows in a layout of its own (amx_impl.h) */
};

static inline const float *hd_column_row(const struct hd_activations *a, int64_t column)
{
    int64_t row = a->index ? a->index[column] : column;
    if (row < 0)
        return a->remainder + ~row * a->n_in;
    return (const float *)(a->rows + (size_t)row * a->stride);
}

static inline int hd_tile_width(const struct hd_activations *a, int64_t tile)
{
    int64_t left = a->n - tile * HD_TILE_COLUMNS;
    return left < HD_TILE_COLUMNS ? (int)left : HD_TILE_COLUMNS;
}

static inline int8_t *hd_tile_q(const struct hd_activations *a, int64_t tile)
{
    return a->q + (size_t)(tile * HD_TILE_COLUMNS * a->n_block) * 32;
}

static inline float *hd_tile_aux(const struct hd_activations *a, int64_t tile)
{
    return a->aux + (size_t)(tile * HD_TILE_COLUMNS * a->n_block) * HD_AUX;
}

/* --- kernels ------------------------------------------------------------------------------------
 */

/* One panel against columns [column, column + n) (column a multiple of the tile's width):
 * sums[i][r] = row r · column i, all of n_in. */
struct hd_panel_job {
    float (*sums)[HD_PANEL];
    const struct hd_pack *pack;
    const uint8_t *panel;
    int64_t n_unit;
    const struct hd_activations *a;
    int64_t column, n;
    uint8_t *tile; /* working memory of HD_TILE_BYTES */
    enum hd_form form;
};
/* A kernel may unpack up to this many blocks of 32 of a panel at a time: values and four floats per
 * row and block. */
enum { HD_TILE_BLOCKS = 128, HD_TILE_BYTES = HD_TILE_BLOCKS * (512 + 4 * 64) };

struct hd_x86_kernels {
    /* Quantises the columns of one tile. */
    void (*quantise)(const struct hd_activations *a, int64_t tile);
    void (*panel)(const struct hd_panel_job *job);       /* quantised weights */
    void (*panel_float)(const struct hd_panel_job *job); /* F32, F16, BF16, float codes */
    void (*silu_mul)(float *out, const float *gate, const float *up, int64_t n);
    int prompt_group; /* elements that share a scale in prompt rows; 32 in generated ones */
};

/* Ops of the driver; they use s->backend->x86. */
void hd_x86_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                   struct hd_tensor in, enum hd_form form);
void hd_x86_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                         struct hd_tensor in, enum hd_form form);
void hd_x86_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                const struct hd_weight *gate, const struct hd_weight *up,
                const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
                enum hd_form form);

/* NULL, or what the processor or the kernel lacks. */
const char *hd_x86_missing_avx2(void);
const char *hd_x86_missing_avx512(void);
const char *hd_x86_missing_amx(void);

extern const struct hd_ops hd_ops_avx2, hd_ops_avx512, hd_ops_amx;
extern const struct hd_x86_kernels hd_kernels_avx2, hd_kernels_avx512, hd_kernels_amx;
/* AMX with tiles in plain C; quantise and panel only, for tests. */
extern const struct hd_x86_kernels hd_kernels_amx_emulated;

#endif
