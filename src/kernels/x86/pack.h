/* The layout in which the vector back ends (AVX2, AVX-512, AMX) hold quantised weights.
 *
 * A matrix is cut into panels of 16 output rows (the last one padded with zero scales), a panel
 * into units along the input (64 elements for the types with 32-element blocks, 256 for the K
 * types), a unit into blocks of 32. A panel's units follow one another, so a product reads one
 * stream.
 *
 *   unit:   scales of the 16 rows │ block 0 │ block 1 │ …
 *   block:  for group g = 0 … 7 of four input elements, one 64-byte line
 *             row 0: e0 e1 e2 e3 │ row 1: e0 e1 e2 e3 │ … │ row 15
 *
 * so one 4-byte broadcast of activations meets 16 rows (8 with AVX2) in one instruction, with no
 * horizontal sums; it is also the tile order of AMX. Elements are unsigned; lines are stored as bit
 * planes:
 *   4-bit plane (256 bytes): line i holds group i in its low and group i + 4 in its high nibbles
 *   2-bit plane (128 bytes): line i holds group 4i + j in bits 2j and 2j + 1 of its bytes
 *   1-bit plane (64 bytes):  bit g of each byte belongs to group g
 *   8-bit plane (512 bytes): as it is
 * Scales keep the file's precision, so the memory needed is the file's to within 3% (Q3_K: 5%):
 *   64-element units: f16 d[2][16], then, where there is one, f16 m[2][16]
 *   Q4_K, Q5_K:       f16 d[16], f16 dmin[16], u8 scale[8][16], u8 min[8][16]
 *   Q6_K, Q3_K:       f16 d[16], 32 bytes unused, i8 scale[16][16]
 *   Q2_K:             f16 d[16], f16 dmin[16], u8 scale | min << 4 [16][16]
 *   IQ4_XS:           f16 d[16], 32 bytes unused, i8 scale[8][16]
 *   MXFP4:            u8 exponent[2][16]
 * The code-book types IQ1_*, IQ2_*, IQ3_* stay as they are in the file: a unit is the 16 rows'
 * blocks one after another; expand.h makes 8-bit lines of it when it is used.
 *   INT4, INT8:       f16 d[16], u8 zero[16], 16 bytes unused: for all blocks of the unit
 * Float codes (FP8, NF4, FP4) become floats on the way into the product: f32 d[16], then the codes
 * of element k of the 16 rows side by side, of two elements to a byte where they have four bits.
 * Float types: element k of the 16 rows side by side, [n_in][16], in the file's type. */
#ifndef HD_KERNELS_X86_PACK_H
#define HD_KERNELS_X86_PACK_H

#include "kernels/ops.h"

enum { HD_PANEL = 16 };

struct hd_pack {
    enum hd_dtype dtype;
    bool is_float;
    int unit;       /* elements; 1 for float types, of codes what shares a scale */
    int unit_bytes; /* of the 16 rows */
    int head_bytes; /* of the scales before the first block */
    int bits;       /* of an element */
    int zero;       /* what an unsigned element has too much, a power of two; 0: the type has minima
                       (types of our own have minima beside it: d · (row's zero - this zero)) */
    int group;      /* elements per scale: 32 or 16 */
    int peak;       /* largest magnitude of an element; 0: what its bits can hold */
    int book;       /* of hd_pack_books: what a 4-bit element stands for; 0: itself */
    bool codes;     /* of the expanded unit all the above is true, except unit_bytes */
};

/* Values of 4-bit elements, plus 128 (tensor/codebooks.h). */
enum { HD_BOOK_IQ4 = 1, HD_BOOK_MXFP4 = 2 };
static const uint8_t hd_pack_books[3][16] = {
    [HD_BOOK_IQ4] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241},
    [HD_BOOK_MXFP4] = {128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120,
                       116},
};

/* By type; in the header so that kernels instantiated for one type see constants. */
#define HD_PACK_SLOT(type) ((type) < HD_OWN_TYPES ? (int)(type) : 64 + (int)(type)-HD_OWN_TYPES)
static const struct hd_pack hd_packs[HD_PACK_SLOT(HD_OWN_TYPES_END)] = {
    [HD_F32] = {HD_F32, true, 1, 64, 0, 32, 0, 0, 0, 0, false},
    [HD_F16] = {HD_F16, true, 1, 32, 0, 16, 0, 0, 0, 0, false},
    [HD_BF16] = {HD_BF16, true, 1, 32, 0, 16, 0, 0, 0, 0, false},
    [HD_Q4_0] = {HD_Q4_0, false, 64, 64 + 2 * 256, 64, 4, 8, 32, 0, 0, false},
    [HD_Q4_1] = {HD_Q4_1, false, 64, 128 + 2 * 256, 128, 4, 0, 32, 0, 0, false},
    [HD_Q5_0] = {HD_Q5_0, false, 64, 64 + 2 * 320, 64, 5, 16, 32, 0, 0, false},
    [HD_Q5_1] = {HD_Q5_1, false, 64, 128 + 2 * 320, 128, 5, 0, 32, 0, 0, false},
    [HD_Q8_0] = {HD_Q8_0, false, 64, 64 + 2 * 512, 64, 8, 128, 32, 0, 0, false},
    [HD_Q2_K] = {HD_Q2_K, false, 256, 320 + 8 * 128, 320, 2, 0, 16, 0, 0, false},
    [HD_Q3_K] = {HD_Q3_K, false, 256, 320 + 8 * 192, 320, 3, 4, 16, 0, 0, false},
    [HD_Q4_K] = {HD_Q4_K, false, 256, 320 + 8 * 256, 320, 4, 0, 32, 0, 0, false},
    [HD_Q5_K] = {HD_Q5_K, false, 256, 320 + 8 * 320, 320, 5, 0, 32, 0, 0, false},
    [HD_Q6_K] = {HD_Q6_K, false, 256, 320 + 8 * 384, 320, 6, 32, 16, 0, 0, false},
    [HD_IQ4_NL] = {HD_IQ4_NL, false, 64, 64 + 2 * 256, 64, 4, 128, 32, 127, HD_BOOK_IQ4, false},
    [HD_IQ4_XS] = {HD_IQ4_XS, false, 256, 192 + 8 * 256, 192, 4, 128, 32, 127, HD_BOOK_IQ4, false},
    [HD_MXFP4] = {HD_MXFP4, false, 64, 32 + 2 * 256, 32, 4, 128, 32, 12, HD_BOOK_MXFP4, false},
    [HD_IQ1_S] = {HD_IQ1_S, false, 256, 16 * 50, 320, 8, 128, 32, 9, 0, true},
    [HD_IQ1_M] = {HD_IQ1_M, false, 256, 16 * 56, 320, 8, 128, 16, 9, 0, true},
    [HD_IQ2_XXS] = {HD_IQ2_XXS, false, 256, 16 * 66, 320, 8, 128, 32, 43, 0, true},
    [HD_IQ2_XS] = {HD_IQ2_XS, false, 256, 16 * 74, 320, 8, 128, 16, 43, 0, true},
    [HD_IQ2_S] = {HD_IQ2_S, false, 256, 16 * 82, 320, 8, 128, 16, 43, 0, true},
    [HD_IQ3_XXS] = {HD_IQ3_XXS, false, 256, 16 * 98, 320, 8, 128, 32, 62, 0, true},
    [HD_IQ3_S] = {HD_IQ3_S, false, 256, 16 * 110, 320, 8, 128, 32, 15, 0, true},
    [HD_PACK_SLOT(HD_FP8_128)] = {HD_FP8_128, true, 128, 64 + 128 * 16, 64, 8, 0, 0, 0, 0, false},
    [HD_PACK_SLOT(HD_INT4_32)] = {HD_INT4_32, false, 32, 64 + 256, 64, 4, 8, 32, 0, 0, false},
    [HD_PACK_SLOT(HD_INT4_64)] = {HD_INT4_64, false, 64, 64 + 2 * 256, 64, 4, 8, 32, 0, 0, false},
    [HD_PACK_SLOT(HD_INT4_128)] = {HD_INT4_128, false, 128, 64 + 4 * 256, 64, 4, 8, 32, 0, 0,
                                   false},
    [HD_PACK_SLOT(HD_INT8_32)] = {HD_INT8_32, false, 32, 64 + 512, 64, 8, 128, 32, 0, 0, false},
    [HD_PACK_SLOT(HD_INT8_64)] = {HD_INT8_64, false, 64, 64 + 2 * 512, 64, 8, 128, 32, 0, 0, false},
    [HD_PACK_SLOT(HD_INT8_128)] = {HD_INT8_128, false, 128, 64 + 4 * 512, 64, 8, 128, 32, 0, 0,
                                   false},
    [HD_PACK_SLOT(HD_NF4_64)] = {HD_NF4_64, true, 64, 64 + 32 * 16, 64, 4, 0, 0, 0, 0, false},
    [HD_PACK_SLOT(HD_FP4_64)] = {HD_FP4_64, true, 64, 64 + 32 * 16, 64, 4, 0, 0, 0, 0, false},
};

/* Whether a minimum is taken off beside the constant zero. */
__attribute__((always_inline)) static inline bool hd_pack_has_min(const struct hd_pack *pack)
{
    return !pack->zero || pack->dtype >= HD_OWN_TYPES;
}

/* NULL where the type has no packed form. */
const struct hd_pack *hd_pack_of(enum hd_dtype dtype);
/* ops->weight_plan and weight_part of the vector back ends; a part is a panel. */
enum hd_err hd_pack_plan(struct hd_weight *w, struct hd_errmsg *msg);
void hd_pack_part(const struct hd_weight *w, size_t begin, size_t end);
/* One panel into memory of the caller's (hd_pack_panel_bytes, aligned to 64). */
void hd_pack_panel_to(uint8_t *out, const struct hd_weight *w, int64_t matrix, int64_t panel);

static inline int64_t hd_pack_units(const struct hd_pack *pack, int64_t n_in)
{
    return (n_in + pack->unit - 1) / pack->unit;
}

static inline int64_t hd_pack_panels(const struct hd_weight *w)
{
    return (w->n_out + HD_PANEL - 1) / HD_PANEL;
}

static inline size_t hd_pack_panel_bytes(const struct hd_weight *w)
{
    return (size_t)hd_pack_units(w->pack, w->n_in) * (size_t)w->pack->unit_bytes;
}

static inline const uint8_t *hd_pack_panel(const struct hd_weight *w, int64_t matrix, int64_t panel)
{
    return w->packed + (size_t)(matrix * hd_pack_panels(w) + panel) * hd_pack_panel_bytes(w);
}

#endif
