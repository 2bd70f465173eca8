/* Panel products with AVX-512 VNNI.
 *
 * One vpdpbusd takes a line of the panel (16 rows × 4 elements, unsigned) and a broadcast of four
 * activations (signed) and adds 16 dot products of length four to 16 int32 sums. Per block of 32:
 * eight of them per column, then
 *     sum += (float(int sum) · d [- m · Σa]) · activation scale
 * A constant zero z is taken off inside the integers: the sum starts at -z · Σa.
 *
 *   direct:   few columns (decode). Lines go from memory through the bit planes into registers and
 *             meet up to 8 columns, the next 8 when the panel is in cache: it is read from memory
 *             once, at the memory's speed.
 *   unpacked: many columns (prompts). Lines and scales are unpacked to L1/L2 once, then meet 12
 *             columns at a time: 12 integer and 12 float sums, all in registers.
 * Both do the same arithmetic in the same order, so they give the same bits. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/expand.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/vec_avx512.h"

/* DIRECT_MOST: up to here eight columns in registers are not slower than an unpacked panel; codes
 * are expanded each time. AHEAD: bytes. With one column the processor sees the next lines by
 * itself; several columns fill its window with the work of one block, so that it waits for memory
 * unless it is told. The end of a panel is followed by the next one; behind the last, prefetching
 * does nothing. */
enum { DIRECT_COLUMNS = 8, DIRECT_MOST = 48, AHEAD = 2048 };

struct scales {
    __m512 d[2], m[2]; /* of the block, or of its halves */
};

INLINE __m512 f16_line(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512 u8_line(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* hd_e8m0_half(): 2^(e - 128). */
INLINE __m512 e8m0_line(const uint8_t *p)
{
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    __m512i usual = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 below = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(below, usual, small));
}

INLINE void load_scales(struct scales *s, const struct hd_pack *pack, const uint8_t *unit, int b)
{
    if (pack->book == HD_BOOK_MXFP4) {
        s->d[0] = e8m0_line(unit + 16 * b);
        return;
    }
    if (pack->dtype >= HD_OWN_TYPES) {
        s->d[0] = f16_line(unit);
        s->m[0] = _mm512_mul_ps(
            s->d[0], _mm512_sub_ps(u8_line(unit + 32), _mm512_set1_ps((float)pack->zero)));
        return;
    }
    if (pack->unit == 64) {
        s->d[0] = f16_line(unit + 32 * b);
        if (!pack->zero) /* the file adds it, the K types subtract theirs */
            s->m[0] = _mm512_sub_ps(_mm512_setzero_ps(), f16_line(unit + 64 + 32 * b));
        return;
    }
    __m512 d = pack->codes ? _mm512_loadu_ps((const float *)unit) : f16_line(unit);
    if (pack->group == 32 && pack->zero) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(unit + 64 + 16 * b));
        s->d[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
        return;
    }
    if (pack->group == 32) {
        s->d[0] = _mm512_mul_ps(d, u8_line(unit + 64 + 16 * b));
        s->m[0] = _mm512_mul_ps(f16_line(unit + 32), u8_line(unit + 192 + 16 * b));
        return;
    }
    for (int h = 0; h < 2; h++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(unit + 64 + 16 * (2 * b + h)));
        if (pack->zero) {
            s->d[h] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
        } else { /* Q2_K: two nibbles */
            __m512i both = _mm512_cvtepu8_epi32(bytes);
            __m512i low = _mm512_and_si512(both, _mm512_set1_epi32(15));
            __m512i high = _mm512_srli_epi32(both, 4);
            s->d[h] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(low));
            s->m[h] = _mm512_mul_ps(f16_line(unit + 32), _mm512_cvtepi32_ps(high));
        }
    }
}

/* Moves bits of every byte from position `from` to `to`; what crosses a byte is masked by the user.
 */
INLINE __m512i move_bits(__m512i v, int from, int to)
{
    return from > to ? _mm512_srli_epi16(v, from - to) : _mm512_slli_epi16(v, to - from);
}

INLINE __m512i line_at(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

/* (a & mask) | b */
INLINE __m512i and_or(__m512i a, __m512i mask, __m512i b)
{
    return _mm512_ternarylogic_epi32(a, mask, b, 0xea);
}

INLINE void load_lines(__m512i q[8], const struct hd_pack *pack, const uint8_t *p)
{
    const int bits = pack->bits;
    const __m512i nibble = _mm512_set1_epi8(15);
    if (bits == 8) {
        for (int g = 0; g < 8; g++)
            q[g] = line_at(p + 64 * g);
        return;
    }
    int low = 0;
    if (bits >= 4) {
        for (int i = 0; i < 4; i++) {
            __m512i v = line_at(p + 64 * i);
            q[i] = _mm512_and_si512(v, nibble);
            q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
        }
        if (pack->book) {
            const __m128i *book = (const __m128i *)hd_pack_books[pack->book];
            const __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128(book));
            for (int g = 0; g < 8; g++)
                q[g] = _mm512_shuffle_epi8(values, q[g]);
        }
        p += 256;
        low = 4;
    }
    if (bits - low >= 2) {
        const __m512i mask = _mm512_set1_epi8((char)(3 << low));
        for (int g = 0; g < 8; g++) {
            __m512i v = move_bits(line_at(p + 64 * (g / 4)), 2 * (g % 4), low);
            q[g] = low ? and_or(v, mask, q[g]) : _mm512_and_si512(v, mask);
        }
        p += 128;
        low += 2;
    }
    if (bits > low) {
        const __m512i mask = _mm512_set1_epi8((char)(1 << low)), v = line_at(p);
        for (int g = 0; g < 8; g++)
            q[g] = and_or(move_bits(v, g, low), mask, q[g]);
    }
}

/* --- one block against T tiles of W columns -----------------------------------------------------
 */

/* Where the kernel stands in the activations: one pair of pointers per tile. */
struct cursor {
    const int8_t *q[3];
    const float *aux[3];
};

INLINE void cursor_set(struct cursor *c, const struct hd_activations *a, int64_t column,
                       int64_t block, int T, int W)
{
    for (int t = 0; t < T; t++) {
        c->q[t] = hd_tile_q(a, column / HD_TILE_COLUMNS + t) + block * 32 * W;
        c->aux[t] = hd_tile_aux(a, column / HD_TILE_COLUMNS + t) + block * HD_AUX * W;
    }
}

INLINE void cursor_step(struct cursor *c, int T, int W)
{
    for (int t = 0; t < T; t++) {
        c->q[t] += 32 * W;
        c->aux[t] += HD_AUX * W;
    }
}

INLINE __m512i broadcast4(const struct cursor *c, int g, int column, int W)
{
    int32_t four;
    memcpy(&four, c->q[column / W] + 4 * W * g + 4 * (column % W), 4);
    return _mm512_set1_epi32(four);
}

INLINE __m512 aux_float(const struct cursor *c, int what, int column, int W)
{
    return _mm512_set1_ps(c->aux[column / W][what * W + column % W]);
}

INLINE __m512i aux_int(const struct cursor *c, int what, int column, int W)
{
    int32_t value;
    memcpy(&value, &c->aux[column / W][what * W + column % W], 4);
    return _mm512_set1_epi32(value);
}

/* q: eight lines, in registers or in the unpacked tile. zero: log2 of the constant, or -1: none. */
INLINE void block_columns(__m512 *sum, const __m512i *q, const struct scales *s, int group,
                          int zero, bool min, const struct cursor *a, int T, int W)
{
    __m512 value[12];
    for (int h = 0; h < 32 / group; h++) {
        int neg = group == 32 ? HD_AUX_NEG32 : h ? HD_AUX_NEG16_HI : HD_AUX_NEG16_LO;
        __m512i acc[12];
        for (int c = 0; c < T * W; c++)
            acc[c] = zero < 0 ? _mm512_setzero_si512()
                              : _mm512_slli_epi32(aux_int(a, neg, c, W), (unsigned)zero);
        for (int g = h * 4; g < h * 4 + group / 4; g++) {
            const __m512i line = q[g];
            for (int c = 0; c < T * W; c++)
                acc[c] = _mm512_dpbusd_epi32(acc[c], line, broadcast4(a, g, c, W));
        }
        for (int c = 0; c < T * W; c++) {
            __m512 f = _mm512_cvtepi32_ps(acc[c]);
            value[c] = h ? _mm512_fmadd_ps(f, s->d[h], value[c]) : _mm512_mul_ps(f, s->d[h]);
            if (min && group == 32)
                value[c] = _mm512_fnmadd_ps(s->m[h], aux_float(a, HD_AUX_SUM, c, W), value[c]);
            else if (min)
                value[c] =
                    _mm512_fmadd_ps(s->m[h], _mm512_cvtepi32_ps(aux_int(a, neg, c, W)), value[c]);
        }
    }
    for (int c = 0; c < T * W; c++)
        sum[c] = _mm512_fmadd_ps(value[c], aux_float(a, HD_AUX_SCALE, c, W), sum[c]);
}

/* --- direct --------------------------------------------------------------------------------------
 */

INLINE void direct(const struct hd_panel_job *job, const struct hd_pack *pack, int64_t column,
                   int T, int W)
{
    const int zero = pack->zero ? __builtin_ctz((unsigned)pack->zero) : -1;
    const int block_bytes = 64 * pack->bits;
    struct cursor a;
    cursor_set(&a, job->a, column, 0, T, W);
    __m512 sum[DIRECT_COLUMNS];
    for (int c = 0; c < T * W; c++)
        sum[c] = _mm512_setzero_ps();
    const uint8_t *stored = job->panel;
    for (int64_t u = 0; u < job->n_unit; u++, stored += pack->unit_bytes) {
        EXPANDED(unit, pack, stored, 0, HD_PANEL);
        for (int b = 0; b < pack->unit / 32; b++) {
            struct scales s;
            __m512i q[8];
            const uint8_t *lines = unit + pack->head_bytes + b * block_bytes;
            if (T * W > 1 && !pack->codes)
                for (int i = 0; i < block_bytes; i += 64)
                    _mm_prefetch((const char *)lines + i + AHEAD, _MM_HINT_T0);
            load_scales(&s, pack, unit, b);
            load_lines(q, pack, lines);
            block_columns(sum, q, &s, pack->group, zero, hd_pack_has_min(pack), &a, T, W);
            cursor_step(&a, T, W);
        }
    }
    for (int c = 0; c < T * W; c++)
        _mm512_storeu_ps(job->sums[column - job->column + c], sum[c]);
}

INLINE void direct_all(const struct hd_panel_job *job, const struct hd_pack *pack)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 8; column += 8)
        direct(job, pack, column, 2, 4);
    for (; end - column >= 4; column += 4)
        direct(job, pack, column, 1, 4);
    if (end - column == 3)
        direct(job, pack, column, 1, 3);
    else if (end - column == 2)
        direct(job, pack, column, 1, 2);
    else if (end - column == 1)
        direct(job, pack, column, 1, 1);
}

/* --- unpacked ------------------------------------------------------------------------------------
 */

/* The unpacked tile: lines, then d and m of every block (of its halves where the group is 16). */
struct tile {
    __m512i *line; /* [block][8] */
    __m512 *scale; /* [block][2 or 4]: d, m or d, d, m, m */
};

INLINE void unpack(const struct tile *t, const struct hd_pack *pack, const uint8_t *stored,
                   int64_t n_unit)
{
    const int block_bytes = 64 * pack->bits, halves = 32 / pack->group;
    __m512i *line = t->line;
    __m512 *scale = t->scale;
    for (int64_t u = 0; u < n_unit; u++, stored += pack->unit_bytes) {
        EXPANDED(unit, pack, stored, 0, HD_PANEL);
        for (int b = 0; b < pack->unit / 32; b++, line += 8, scale += 2 * halves) {
            struct scales s;
            load_scales(&s, pack, unit, b);
            load_lines(line, pack, unit + pack->head_bytes + b * block_bytes);
            for (int h = 0; h < halves; h++) {
                scale[h] = s.d[h];
                if (hd_pack_has_min(pack))
                    scale[halves + h] = s.m[h];
            }
        }
    }
}

INLINE void tile_columns(const struct hd_panel_job *job, const struct tile *t, int64_t block,
                         int64_t n_block, int64_t column, int group, int zero, bool min, int T,
                         int W)
{
    const int halves = 32 / group;
    struct cursor a;
    cursor_set(&a, job->a, column, block, T, W);
    float(*out)[HD_PANEL] = job->sums + (column - job->column);
    __m512 sum[12];
    for (int c = 0; c < T * W; c++)
        sum[c] = block ? _mm512_loadu_ps(out[c]) : _mm512_setzero_ps();
    const __m512i *line = t->line;
    const __m512 *scale = t->scale;
    for (int64_t b = 0; b < n_block; b++, line += 8, scale += 2 * halves) {
        struct scales s;
        for (int h = 0; h < halves; h++) {
            s.d[h] = scale[h];
            if (min)
                s.m[h] = scale[halves + h];
        }
        block_columns(sum, line, &s, group, zero, min, &a, T, W);
        cursor_step(&a, T, W);
    }
    for (int c = 0; c < T * W; c++)
        _mm512_storeu_ps(out[c], sum[c]);
}

INLINE void tile_all(const struct hd_panel_job *job, const struct tile *t, int64_t block,
                     int64_t n_block, int group, int zero, bool min)
{
    int64_t column = job->column, end = column + job->n;
    for (; group == 32 && end - column >= 12; column += 12)
        tile_columns(job, t, block, n_block, column, group, zero, min, 3, 4);
    for (; end - column >= 8; column += 8)
        tile_columns(job, t, block, n_block, column, group, zero, min, 2, 4);
    for (; end - column >= 4; column += 4)
        tile_columns(job, t, block, n_block, column, group, zero, min, 1, 4);
    if (end - column == 3)
        tile_columns(job, t, block, n_block, column, group, zero, min, 1, 3);
    else if (end - column == 2)
        tile_columns(job, t, block, n_block, column, group, zero, min, 1, 2);
    else if (end - column == 1)
        tile_columns(job, t, block, n_block, column, group, zero, min, 1, 1);
}

/* The multiplying kernels, one per way of scaling. */
#define TILE_KERNEL(name, group, zero, min)                                                        \
    static void name(const struct hd_panel_job *job, const struct tile *t, int64_t block,          \
                     int64_t n_block)                                                              \
    {                                                                                              \
        tile_all(job, t, block, n_block, group, zero, min);                                        \
    }
TILE_KERNEL(tile_32_min, 32, -1, true)
TILE_KERNEL(tile_32_zero8, 32, 3, false)
TILE_KERNEL(tile_32_zero16, 32, 4, false)
TILE_KERNEL(tile_32_zero128, 32, 7, false)
TILE_KERNEL(tile_32_zero8_min, 32, 3, true)
TILE_KERNEL(tile_32_zero128_min, 32, 7, true)
TILE_KERNEL(tile_16_min, 16, -1, true)
TILE_KERNEL(tile_16_zero4, 16, 2, false)
TILE_KERNEL(tile_16_zero32, 16, 5, false)
TILE_KERNEL(tile_16_zero128, 16, 7, false)

/* --- per type
 * -------------------------------------------------------------------------------------- */

#define TYPES(X)                                                                                   \
    X(HD_Q4_0, tile_32_zero8)                                                                      \
    X(HD_Q4_1, tile_32_min)                                                                        \
    X(HD_Q5_0, tile_32_zero16)                                                                     \
    X(HD_Q5_1, tile_32_min)                                                                        \
    X(HD_Q8_0, tile_32_zero128)                                                                    \
    X(HD_Q2_K, tile_16_min)                                                                        \
    X(HD_Q3_K, tile_16_zero4)                                                                      \
    X(HD_Q4_K, tile_32_min)                                                                        \
    X(HD_Q5_K, tile_32_min)                                                                        \
    X(HD_Q6_K, tile_16_zero32)                                                                     \
    X(HD_IQ4_NL, tile_32_zero128)                                                                  \
    X(HD_IQ4_XS, tile_32_zero128)                                                                  \
    X(HD_MXFP4, tile_32_zero128)                                                                   \
    X(HD_IQ1_S, tile_32_zero128)                                                                   \
    X(HD_IQ1_M, tile_16_zero128)                                                                   \
    X(HD_IQ2_XXS, tile_32_zero128)                                                                 \
    X(HD_IQ2_XS, tile_16_zero128)                                                                  \
    X(HD_IQ2_S, tile_16_zero128)                                                                   \
    X(HD_IQ3_XXS, tile_32_zero128)                                                                 \
    X(HD_IQ3_S, tile_32_zero128)                                                                   \
    X(HD_INT4_32, tile_32_zero8_min)                                                               \
    X(HD_INT4_64, tile_32_zero8_min)                                                               \
    X(HD_INT4_128, tile_32_zero8_min)                                                              \
    X(HD_INT8_32, tile_32_zero128_min)                                                             \
    X(HD_INT8_64, tile_32_zero128_min)                                                             \
    X(HD_INT8_128, tile_32_zero128_min)

#define DIRECT_AND_UNPACK(type, kernel)                                                            \
    static void direct_##type(const struct hd_panel_job *job)                                      \
    {                                                                                              \
        direct_all(job, &hd_packs[HD_PACK_SLOT(type)]);                                            \
    }                                                                                              \
    static void unpack_##type(const struct tile *t, const uint8_t *unit, int64_t n_unit)           \
    {                                                                                              \
        unpack(t, &hd_packs[HD_PACK_SLOT(type)], unit, n_unit);                                    \
    }
TYPES(DIRECT_AND_UNPACK)

static const struct {
    void (*direct)(const struct hd_panel_job *);
    void (*unpack)(const struct tile *, const uint8_t *, int64_t);
    void (*multiply)(const struct hd_panel_job *, const struct tile *, int64_t, int64_t);
} by_type[] = {
#define ROW(type, kernel) [HD_PACK_SLOT(type)] = {direct_##type, unpack_##type, kernel},
    TYPES(ROW)
#undef ROW
};

static void panel(const struct hd_panel_job *job)
{
    const struct hd_pack *pack = job->pack;
    if (job->n <= (pack->codes ? DIRECT_COLUMNS : DIRECT_MOST)) {
        by_type[HD_PACK_SLOT(pack->dtype)].direct(job);
        return;
    }
    struct tile t = {(__m512i *)job->tile, (__m512 *)(job->tile + HD_TILE_BLOCKS * 512)};
    int64_t step = HD_TILE_BLOCKS * 32 / pack->unit, blocks = pack->unit / 32;
    for (int64_t u = 0; u < job->n_unit; u += step) {
        int64_t n = job->n_unit - u < step ? job->n_unit - u : step;
        by_type[HD_PACK_SLOT(pack->dtype)].unpack(&t, job->panel + u * pack->unit_bytes, n);
        by_type[HD_PACK_SLOT(pack->dtype)].multiply(job, &t, u * blocks, n * blocks);
    }
}

/* --- float types
 * ------------------------------------------------------------------------------------ */

INLINE __m512 float_line(enum hd_dtype dtype, const uint8_t *panel, int64_t k)
{
    if (dtype == HD_F32)
        return _mm512_loadu_ps((const float *)panel + 16 * k);
    __m256i half = _mm256_loadu_si256((const __m256i *)panel + k);
    if (dtype == HD_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE void float_columns(const struct hd_panel_job *job, enum hd_dtype dtype, int64_t column,
                          int C)
{
    const float *x[8];
    __m512 sum[8];
    for (int c = 0; c < C; c++) {
        x[c] = hd_column_row(job->a, column + c);
        sum[c] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < job->n_unit; k++) {
        const __m512 line = float_line(dtype, job->panel, k);
        for (int c = 0; c < C; c++)
            sum[c] = _mm512_fmadd_ps(line, _mm512_set1_ps(x[c][k]), sum[c]);
    }
    for (int c = 0; c < C; c++)
        _mm512_storeu_ps(job->sums[column - job->column + c], sum[c]);
}

INLINE void float_all(const struct hd_panel_job *job, enum hd_dtype dtype)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 8; column += 8)
        float_columns(job, dtype, column, 8);
    for (; end - column >= 2; column += 2)
        float_columns(job, dtype, column, 2);
    if (end > column)
        float_columns(job, dtype, column, 1);
}

/* --- float codes: FP8, NF4, FP4 ------------------------------------------------------------------
 */

/* Element k of the 16 rows, without its scale (of FP8: 1/256 of it). p: the unit's codes. */
INLINE __m512 code_line(enum hd_dtype dtype, const uint8_t *p, int k, __m512 code)
{
    if (dtype == HD_FP8_128) { /* exponent and mantissa are an f16's, but for the bias */
        __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p + k));
        __m256i sign = _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x80)), 8);
        v = _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x7f)), 7);
        return _mm512_cvtph_ps(_mm256_or_si256(v, sign));
    }
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p + k / 2));
    return _mm512_permutexvar_ps(k % 2 ? _mm512_srli_epi32(v, 4) : v, code); /* reads four bits */
}

INLINE void code_columns(const struct hd_panel_job *job, enum hd_dtype dtype, int64_t column, int C)
{
    const int unit = hd_packs[HD_PACK_SLOT(dtype)].unit;
    const float *values = hd_dtype_code(dtype);
    const __m512 code = values ? _mm512_loadu_ps(values) : _mm512_setzero_ps();
    const __m512 factor = _mm512_set1_ps(dtype == HD_FP8_128 ? 256.0f : 1.0f);
    const float *x[16];
    __m512 sum[16];
    for (int c = 0; c < C; c++) {
        x[c] = hd_column_row(job->a, column + c);
        sum[c] = _mm512_setzero_ps();
    }
    const uint8_t *p = job->panel;
    for (int64_t i = 0; i < job->a->n_in; i += unit, p += job->pack->unit_bytes) {
        const __m512 d = _mm512_mul_ps(_mm512_loadu_ps(p), factor);
        int n = job->a->n_in - i < unit ? (int)(job->a->n_in - i) : unit;
        for (int k = 0; k < n; k++) {
            const __m512 line = _mm512_mul_ps(code_line(dtype, p + 64, k, code), d);
            for (int c = 0; c < C; c++)
                sum[c] = _mm512_fmadd_ps(line, _mm512_set1_ps(x[c][i + k]), sum[c]);
        }
    }
    for (int c = 0; c < C; c++)
        _mm512_storeu_ps(job->sums[column - job->column + c], sum[c]);
}

/* Many columns at a time: a line costs as much to make as five of them to meet. */
INLINE void code_all(const struct hd_panel_job *job, enum hd_dtype dtype)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 16; column += 16)
        code_columns(job, dtype, column, 16);
    for (; end - column >= 8; column += 8)
        code_columns(job, dtype, column, 8);
    for (; end - column >= 2; column += 2)
        code_columns(job, dtype, column, 2);
    if (end > column)
        code_columns(job, dtype, column, 1);
}

static void panel_float(const struct hd_panel_job *job)
{
    if (job->pack->dtype == HD_FP8_128)
        code_all(job, HD_FP8_128);
    else if (job->pack->dtype == HD_NF4_64)
        code_all(job, HD_NF4_64);
    else if (job->pack->dtype == HD_FP4_64)
        code_all(job, HD_FP4_64);
    else if (job->pack->dtype == HD_F32)
        float_all(job, HD_F32);
    else if (job->pack->dtype == HD_F16)
        float_all(job, HD_F16);
    else
        float_all(job, HD_BF16);
}

/* --- activations
 * ------------------------------------------------------------------------------------- */

/* One block of 32 of one column: int8 values in groups of four, 4 · W bytes apart, and aux. */
INLINE void quantise_block(int8_t *q, float *aux, __m512 low, __m512 high, int W)
{
    float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const __m512 inverse = _mm512_set1_ps(amax > 1e-30f ? 127.0f / amax : 0.0f);
    __m512i i_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    __m512i i_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    int32_t four[8];
    _mm_storeu_si128((__m128i *)four, _mm512_cvtepi32_epi8(i_low));
    _mm_storeu_si128((__m128i *)(four + 4), _mm512_cvtepi32_epi8(i_high));
    for (int g = 0; g < 8; g++)
        memcpy(q + 4 * W * g, &four[g], 4);
    int32_t neg[3];
    neg[1] = -_mm512_reduce_add_epi32(i_low);
    neg[2] = -_mm512_reduce_add_epi32(i_high);
    neg[0] = neg[1] + neg[2];
    aux[HD_AUX_SCALE * W] = amax / 127.0f;
    aux[HD_AUX_SUM * W] = (float)-neg[0];
    for (int i = 0; i < 3; i++)
        memcpy(&aux[(HD_AUX_NEG32 + i) * W], &neg[i], 4);
}

static void quantise(const struct hd_activations *a, int64_t tile)
{
    int W = hd_tile_width(a, tile);
    for (int c = 0; c < W; c++) {
        const float *x = hd_column_row(a, tile * HD_TILE_COLUMNS + c);
        int8_t *q = hd_tile_q(a, tile) + 4 * c;
        float *aux = hd_tile_aux(a, tile) + c;
        for (int64_t b = 0; b < a->n_block; b++, q += 32 * W, aux += HD_AUX * W) {
            int64_t left = a->n_in - 32 * b;
            uint32_t mask = left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0;
            __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + 32 * b);
            __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 32 * b + 16);
            quantise_block(q, aux, low, high, W);
        }
    }
}

const struct hd_x86_kernels hd_kernels_avx512 = {
    .quantise = quantise,
    .panel = panel,
    .panel_float = panel_float,
    .silu_mul = hd_x86_silu_mul_row_avx512,
    .prompt_group = 32,
};
