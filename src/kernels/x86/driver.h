/* Pieces that the drivers of the vector back ends share (matmul.c, moe.c). */
#ifndef HD_KERNELS_X86_DRIVER_H
#define HD_KERNELS_X86_DRIVER_H

#include "kernels/x86/x86.h"

/* Columns per chunk for n columns of n_in elements. */
int64_t hd_x86_column_chunk(int64_t n, int64_t n_in);
/* Runs n_task tasks that read panel_bytes of weights each, one after another in memory, for
 * n_column columns. */
void hd_x86_run_panels(struct hd_pool *pool, int64_t n_task, size_t panel_bytes, int64_t n_column,
                       hd_pool_fn fn, void *ud);

/* Quantised activations: describe, measure, place; then quantise tile by tile. */
void hd_x86_activations_init(struct hd_activations *a, const uint8_t *rows, size_t stride,
                             int64_t n_in, int64_t n, enum hd_form form);
size_t hd_x86_activations_bytes(int64_t n, int64_t n_in);
void hd_x86_activations_place(struct hd_activations *a, void *memory);

/* Remainders (remainder.c): whether a row of n elements wants one. */
bool hd_x86_remainder_wanted(const float *x, int64_t n);
/* Adds columns for the remainders of the rows picked[0 … n_picked), ascending: each picked row is
 * followed by its remainder, these pairs come first (so that a pair never falls into two chunks),
 * the other rows after them. */
size_t hd_x86_remainder_bytes(int64_t n, int64_t n_picked, int64_t n_in);
void hd_x86_remainder_add(struct hd_activations *a, const int32_t *picked, int64_t n_picked,
                          int64_t group, void *memory);

/* A thread's working memory: the unpacked tile, two sets of sums, and a panel where the weight's
 * copy is not made yet. */
struct hd_x86_work {
    uint8_t *tile;
    float (*sums)[HD_PANEL];
    float (*more)[HD_PANEL];
    uint8_t *panel;
};
size_t hd_x86_work_bytes(int64_t column_chunk, size_t panel_bytes);
struct hd_x86_work hd_x86_work_of(uint8_t *scratch, size_t bytes, int thread, int64_t column_chunk);

/* Bytes of hd_x86_work.panel that w needs: 0 where its copy is made. A product that would repack
 * panels several times (once false), or whose weight nobody repacks in the background, makes the
 * copy here and now. */
size_t hd_x86_through_bytes(struct hd_stream *s, const struct hd_weight *w, bool once);

/* Describes panels of w × columns [column, column + n), for hd_x86_panel. Made once for many
 * panels: what is built anew before each is read back at once, in pieces of another size, and the
 * processor then waits for its stores before it asks for the panel (4% of a generated token). */
void hd_x86_panel_job(struct hd_panel_job *job, const struct hd_weight *w,
                      const struct hd_activations *a, int64_t column, int64_t n, enum hd_form form,
                      const struct hd_x86_work *work);
/* job's sums = panel of w[matrix] × its columns. through: memory for a panel, work's. */
void hd_x86_panel(const struct hd_x86_kernels *k, struct hd_panel_job *job,
                  const struct hd_weight *w, int64_t matrix, int64_t panel, uint8_t *through);

#endif
