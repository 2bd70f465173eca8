/* Panel products with AVX2, a line of 16 rows in two halves of 32 bytes.
 *
 * vpmaddubsw multiplies unsigned elements by signed activations and adds pairs into int16; several
 * of them are added before vpmaddwd widens to int32. How many fit is a matter of the element's
 * bits, |activation| ≤ 127:  4 bits: 8 · 2 · 15 · 127 = 30480 < 32768, a whole block;  5 bits: 4;
 * 6 bits: 2. Elements of 8 bits are taken as two of 4 (low + 16 · high), which is cheaper than
 * widening after every step. The integers come out exact, as with VNNI, and the floating-point
 * steps are those of panel_avx512.c: both give the same bits.
 *
 *   four activations, broadcast:   a0 a1 a2 a3 │ a0 a1 a2 a3 │ …
 *                                       ×             ×
 *   half a line, rows 0 to 7:      row 0       │ row 1       │ … row 7     → 16 sums of two
 *   its other half, rows 8 to 15:  row 8       │ row 9       │ … row 15    → 16 sums of two
 *
 * Two halves × four columns are eight chains of int16 sums: with two lines and a broadcast, 11 of
 * the 16 registers. The multiplications and the three scalings of a block share two units on Zen,
 * adding and converting have two others, so 8 + 1 + 3 instructions of every 22 set the pace. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/expand.h"
#include "kernels/x86/rows.h"
#include "kernels/x86/vec_avx2.h"

/* AHEAD: bytes that the direct product asks for ahead of its place, across the end of the panel. */
enum {
    HALF = 8, /* rows */
    AHEAD = 2048,
    TILE_BYTES = 16 << 10, /* of unpacked lines: with the scales and four columns they stay in L1 */
};

struct scales {
    __m256 d[2], m[2]; /* of the block, or of its halves of 16 elements */
};

INLINE __m256 f16_line(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE __m256i u8_ints(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* hd_e8m0_half(): 2^(e - 128). */
INLINE __m256 e8m0_line(const uint8_t *p)
{
    __m256i e = u8_ints(p);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i usual = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(usual, small, below));
}

/* half: 0 for rows 0-7, 1 for rows 8-15. */
INLINE void load_scales(struct scales *s, const struct hd_pack *pack, const uint8_t *unit, int b,
                        int half)
{
    if (pack->book == HD_BOOK_MXFP4) {
        s->d[0] = e8m0_line(unit + 16 * b + 8 * half);
        return;
    }
    if (pack->dtype >= HD_OWN_TYPES) {
        s->d[0] = f16_line(unit + 16 * half);
        s->m[0] = _mm256_cvtepi32_ps(u8_ints(unit + 32 + 8 * half));
        s->m[0] = _mm256_mul_ps(s->d[0], _mm256_sub_ps(s->m[0], _mm256_set1_ps((float)pack->zero)));
        return;
    }
    if (pack->unit == 64) {
        s->d[0] = f16_line(unit + 32 * b + 16 * half);
        if (!pack->zero) /* the file adds it, the K types subtract theirs */
            s->m[0] = _mm256_sub_ps(_mm256_setzero_ps(), f16_line(unit + 64 + 32 * b + 16 * half));
        return;
    }
    __m256 d = pack->codes ? _mm256_loadu_ps((const float *)unit + HALF * half)
                           : f16_line(unit + 16 * half);
    const uint8_t *scale = unit + 64 + 8 * half;
    if (pack->group == 32 && pack->zero) {
        __m256i v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(scale + 16 * b)));
        s->d[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(v));
        return;
    }
    if (pack->group == 32) {
        s->d[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(u8_ints(scale + 16 * b)));
        s->m[0] = _mm256_mul_ps(f16_line(unit + 32 + 16 * half),
                                _mm256_cvtepi32_ps(u8_ints(scale + 128 + 16 * b)));
        return;
    }
    for (int h = 0; h < 2; h++) {
        const uint8_t *p = scale + 16 * (2 * b + h);
        if (pack->zero) {
            __m256i v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
            s->d[h] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(v));
        } else { /* Q2_K: two nibbles */
            __m256i both = u8_ints(p);
            __m256i low = _mm256_and_si256(both, _mm256_set1_epi32(15));
            __m256i high = _mm256_srli_epi32(both, 4);
            s->d[h] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(low));
            s->m[h] = _mm256_mul_ps(f16_line(unit + 32 + 16 * half), _mm256_cvtepi32_ps(high));
        }
    }
}

/* Moves bits of every byte from position `from` to `to`; what crosses a byte is masked by the user.
 */
INLINE __m256i move_bits(__m256i v, int from, int to)
{
    return from > to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
}

INLINE __m256i line_at(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Unsigned bytes to low and high nibbles. */
INLINE void split(__m256i out[2], __m256i v)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    out[0] = _mm256_and_si256(v, nibble);
    out[1] = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
}

/* The lines of block p, of one half of the rows, to q[group][r]; of 8-bit elements the low and high
 * nibbles to q[8 · r + group]. */
INLINE void load_lines(__m256i (*q)[2], const struct hd_pack *pack, const uint8_t *p, int r)
{
    p += 32 * r;
    const int bits = pack->bits;
    const __m256i nibble = _mm256_set1_epi8(15);
    if (bits == 8) {
        for (int g = 0; g < 8; g++)
            split(q[8 * r + g], line_at(p + 64 * g));
        return;
    }
    if (pack->book) {
        const __m128i *book = (const __m128i *)hd_pack_books[pack->book];
        const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(book));
        for (int i = 0; i < 4; i++) {
            __m256i v = line_at(p + 64 * i),
                    high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
            split(q[8 * r + i], _mm256_shuffle_epi8(values, _mm256_and_si256(v, nibble)));
            split(q[8 * r + i + 4], _mm256_shuffle_epi8(values, high));
        }
        return;
    }
    int low = 0;
    if (bits >= 4) {
        for (int i = 0; i < 4; i++) {
            __m256i v = line_at(p + 64 * i);
            q[i][r] = _mm256_and_si256(v, nibble);
            q[i + 4][r] = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
        }
        p += 256;
        low = 4;
    }
    if (bits - low >= 2) {
        const __m256i mask = _mm256_set1_epi8((char)(3 << low));
        for (int g = 0; g < 8; g++) {
            __m256i v = move_bits(line_at(p + 64 * (g / 4)), 2 * (g % 4), low);
            v = _mm256_and_si256(v, mask);
            q[g][r] = low ? _mm256_or_si256(v, q[g][r]) : v;
        }
        p += 128;
        low += 2;
    }
    if (bits > low) {
        const __m256i mask = _mm256_set1_epi8((char)(1 << low)), v = line_at(p);
        for (int g = 0; g < 8; g++)
            q[g][r] = _mm256_or_si256(_mm256_and_si256(move_bits(v, g, low), mask), q[g][r]);
    }
}

/* Bits of an element as it meets activations. */
INLINE int value_bits(const struct hd_pack *pack)
{
    return pack->book ? 8 : pack->bits;
}

/* Pairs of lines in an unpacked block. */
INLINE int block_lines(const struct hd_pack *pack)
{
    return value_bits(pack) == 8 ? 16 : 8;
}

/* --- one block against one tile of W columns
 * ------------------------------------------------------
 */

struct cursor {
    const int8_t *q;
    const float *aux;
};

INLINE struct cursor cursor_at(const struct hd_activations *a, int64_t column, int64_t block, int W)
{
    int64_t tile = column / HD_TILE_COLUMNS;
    return (struct cursor){hd_tile_q(a, tile) + block * 32 * W,
                           hd_tile_aux(a, tile) + block * HD_AUX * W};
}

INLINE void cursor_step(struct cursor *c, int W)
{
    c->q += 32 * W;
    c->aux += HD_AUX * W;
}

INLINE __m256i broadcast4(const struct cursor *c, int g, int column, int W)
{
    int32_t four;
    memcpy(&four, c->q + 4 * W * g + 4 * column, 4);
    return _mm256_set1_epi32(four);
}

INLINE __m256 aux_float(const struct cursor *c, int what, int column, int W)
{
    return _mm256_set1_ps(c->aux[what * W + column]);
}

INLINE __m256i aux_int(const struct cursor *c, int what, int column, int W)
{
    int32_t value;
    memcpy(&value, &c->aux[what * W + column], 4);
    return _mm256_set1_epi32(value);
}

/* A block as the products want it: lines[i][2], and scales of both halves of the rows. Elements of
 * up to six bits: i is the group, and the two are the halves of the rows. Elements of eight bits: i
 * is the group of the first half, then of the second, and the two are low and high nibbles. */
struct block {
    const __m256i (*line)[2];
    const struct scales *scale; /* [half of the rows] */
};

/* Loops over constants only: registers are arrays. */
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

/* Keeps the compiler from moving the sums of one step behind those of later ones, which costs more
 * registers than there are. */
#define IN_ORDER(sum) __asm__ volatile("" : "+x"(sum))

/* pairs[r][c] = Σ line[i][r] · activations of column c over n groups from `group` on, in int16. A
 * broadcast of four activations meets both lines. */
INLINE void pair_sums(__m256i pairs[2][4], const __m256i (*line)[2], const struct cursor *a,
                      int group, int n, int W)
{
    struct cursor own = {a->q, NULL};
    /* A second walk along the same activations loads them again: so many do not fit registers. */
    __asm__ volatile("" : "+r"(own.q));
    UNROLLED
    for (int i = 0; i < n; i++) {
        UNROLLED
        for (int c = 0; c < W; c++) {
            const __m256i four = broadcast4(&own, group + i, c, W);
            UNROLLED
            for (int r = 0; r < 2; r++) {
                __m256i p = _mm256_maddubs_epi16(line[i][r], four);
                pairs[r][c] = i ? _mm256_add_epi16(pairs[r][c], p) : p;
                IN_ORDER(pairs[r][c]);
            }
        }
    }
}

/* acc[r][c] = Σ elements · activations of 16 elements (of a block's part h) or of all 32. */
INLINE void integer_sums(__m256i acc[2][4], const struct block *b, const struct hd_pack *pack,
                         int h, const struct cursor *a, int W)
{
    const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
    const int bits = value_bits(pack), n = pack->group / 4;
    const int step = bits == 5 ? 4 : bits == 6 ? 2 : n;
    if (bits == 8) {
        UNROLLED
        for (int r = 0; r < 2; r++) {
            __m256i pairs[2][4];
            pair_sums(pairs, b->line + 8 * r + h * 4, a, h * 4, n, W);
            UNROLLED
            for (int c = 0; c < W; c++)
                acc[r][c] = _mm256_add_epi32(_mm256_madd_epi16(pairs[0][c], ones),
                                             _mm256_madd_epi16(pairs[1][c], sixteens));
        }
        return;
    }
    UNROLLED
    for (int g = h * 4; g < h * 4 + n; g += step) {
        __m256i pairs[2][4];
        pair_sums(pairs, b->line + g, a, g, step, W);
        UNROLLED
        for (int c = 0; c < W; c++)
            UNROLLED
        for (int r = 0; r < 2; r++) {
            __m256i wide = _mm256_madd_epi16(pairs[r][c], ones);
            acc[r][c] = g == h * 4 ? wide : _mm256_add_epi32(acc[r][c], wide);
            IN_ORDER(acc[r][c]);
        }
    }
}

/* value = Σ elements · activations · d - m · Σa, of 16 rows × W columns, without the activations'
 * scale. */
INLINE void block_values(__m256 value[2][4], const struct block *b, const struct hd_pack *pack,
                         const struct cursor *a, int W)
{
    const int zero = pack->zero ? __builtin_ctz((unsigned)pack->zero) : -1;
    const bool min = hd_pack_has_min(pack);
    UNROLLED
    for (int h = 0; h < 32 / pack->group; h++) {
        int neg = pack->group == 32 ? HD_AUX_NEG32 : h ? HD_AUX_NEG16_HI : HD_AUX_NEG16_LO;
        __m256i acc[2][4];
        integer_sums(acc, b, pack, h, a, W);
        UNROLLED
        for (int c = 0; c < W; c++)
            UNROLLED
        for (int r = 0; r < 2; r++) {
            const struct scales *s = &b->scale[r];
            __m256i i = acc[r][c];
            if (zero >= 0)
                i = _mm256_add_epi32(i, _mm256_slli_epi32(aux_int(a, neg, c, W), zero));
            __m256 f = _mm256_cvtepi32_ps(i), v;
            v = h ? _mm256_fmadd_ps(f, s->d[h], value[r][c]) : _mm256_mul_ps(f, s->d[h]);
            if (min && pack->group == 32)
                v = _mm256_fnmadd_ps(s->m[h], aux_float(a, HD_AUX_SUM, c, W), v);
            else if (min)
                v = _mm256_fmadd_ps(s->m[h], _mm256_cvtepi32_ps(aux_int(a, neg, c, W)), v);
            value[r][c] = v;
        }
    }
}

/* --- direct: lines go from memory through registers
 * -----------------------------------------------
 */

INLINE void direct(const struct hd_panel_job *job, const struct hd_pack *pack, int64_t column,
                   int W)
{
    const int block_bytes = 64 * pack->bits;
    struct cursor a = cursor_at(job->a, column, 0, W);
    __m256 sum[2][4];
    for (int c = 0; c < W; c++)
        sum[0][c] = sum[1][c] = _mm256_setzero_ps();
    const uint8_t *stored = job->panel;
    for (int64_t u = 0; u < job->n_unit; u++, stored += pack->unit_bytes) {
        EXPANDED(unit, pack, stored, 0, HD_PANEL);
        for (int i = 0; i < pack->head_bytes && !pack->codes; i += 64)
            _mm_prefetch((const char *)unit + i + AHEAD, _MM_HINT_T0);
        for (int n = 0; n < pack->unit / 32; n++) {
            struct scales s[2];
            __m256i line[16][2];
            __m256 value[2][4];
            const uint8_t *lines = unit + pack->head_bytes + n * block_bytes;
            for (int i = 0; i < block_bytes && !pack->codes; i += 64)
                _mm_prefetch((const char *)lines + i + AHEAD, _MM_HINT_T0);
            for (int r = 0; r < 2; r++) {
                load_scales(&s[r], pack, unit, n, r);
                load_lines(line, pack, lines, r);
            }
            block_values(value, &(struct block){(const __m256i(*)[2])line, s}, pack, &a, W);
            for (int c = 0; c < W; c++)
                for (int r = 0; r < 2; r++)
                    sum[r][c] =
                        _mm256_fmadd_ps(value[r][c], aux_float(&a, HD_AUX_SCALE, c, W), sum[r][c]);
            cursor_step(&a, W);
        }
    }
    for (int c = 0; c < W; c++)
        for (int r = 0; r < 2; r++)
            _mm256_storeu_ps(job->sums[column - job->column + c] + HALF * r, sum[r][c]);
}

INLINE void direct_all(const struct hd_panel_job *job, const struct hd_pack *pack)
{
    if (job->n == 4)
        direct(job, pack, job->column, 4);
    else if (job->n == 3)
        direct(job, pack, job->column, 3);
    else if (job->n == 2)
        direct(job, pack, job->column, 2);
    else if (job->n == 1)
        direct(job, pack, job->column, 1);
}

/* --- unpacked: some blocks of a panel at a time in L1, then four columns at a time
 * ----------
 */

struct tile {
    __m256i (*line)[2];   /* [block][8 or 16] */
    struct scales *scale; /* [block][2] */
};

INLINE void unpack(const struct tile *t, const struct hd_pack *pack, const uint8_t *stored,
                   int64_t n_unit)
{
    const int block_bytes = 64 * pack->bits, n_line = block_lines(pack);
    struct tile at = *t;
    for (int64_t u = 0; u < n_unit; u++, stored += pack->unit_bytes) {
        EXPANDED(unit, pack, stored, 0, HD_PANEL);
        for (int b = 0; b < pack->unit / 32; b++, at.line += n_line, at.scale += 2)
            for (int r = 0; r < 2; r++) {
                load_scales(&at.scale[r], pack, unit, b, r);
                load_lines(at.line, pack, unit + pack->head_bytes + b * block_bytes, r);
            }
    }
}

/* The first columns ask for what is unpacked next (`next`, to the second-level cache), so that with
 * few columns the memory does not wait while they are multiplied. */
INLINE void tile_columns(const struct hd_panel_job *job, const struct hd_pack *pack,
                         const struct tile *t, int64_t block, int64_t n_block, int64_t column,
                         int W)
{
    const int n_line = block_lines(pack), stored = pack->unit_bytes / (pack->unit / 32);
    const uint8_t *next = job->panel + (block + n_block) * stored;
    struct cursor a = cursor_at(job->a, column, block, W);
    float(*out)[HD_PANEL] = job->sums + (column - job->column);
    for (int64_t n = 0; n < n_block; n++) {
        __m256 value[2][4];
        for (int i = 0; column == job->column && i < stored; i += 64)
            _mm_prefetch((const char *)next + n * stored + i, _MM_HINT_T1);
        block_values(value,
                     &(struct block){(const __m256i(*)[2])t->line + n_line * n, t->scale + 2 * n},
                     pack, &a, W);
        for (int c = 0; c < W; c++)
            for (int r = 0; r < 2; r++) {
                __m256 sum = _mm256_loadu_ps(out[c] + HALF * r);
                sum = _mm256_fmadd_ps(value[r][c], aux_float(&a, HD_AUX_SCALE, c, W), sum);
                _mm256_storeu_ps(out[c] + HALF * r, sum);
            }
        cursor_step(&a, W);
    }
}

INLINE void multiply(const struct hd_panel_job *job, const struct hd_pack *pack,
                     const struct tile *t, int64_t block, int64_t n_block)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 4; column += 4)
        tile_columns(job, pack, t, block, n_block, column, 4);
    if (end - column == 3)
        tile_columns(job, pack, t, block, n_block, column, 3);
    else if (end - column == 2)
        tile_columns(job, pack, t, block, n_block, column, 2);
    else if (end - column == 1)
        tile_columns(job, pack, t, block, n_block, column, 1);
}

/* --- per type
 * ----------------------------------------------------------------------------------------- */

#define TYPES(X)                                                                                   \
    X(HD_Q4_0)                                                                                     \
    X(HD_Q4_1)                                                                                     \
    X(HD_Q5_0)                                                                                     \
    X(HD_Q5_1)                                                                                     \
    X(HD_Q8_0)                                                                                     \
    X(HD_Q2_K)                                                                                     \
    X(HD_Q3_K)                                                                                     \
    X(HD_Q4_K)                                                                                     \
    X(HD_Q5_K)                                                                                     \
    X(HD_Q6_K)                                                                                     \
    X(HD_IQ4_NL)                                                                                   \
    X(HD_IQ4_XS)                                                                                   \
    X(HD_MXFP4)                                                                                    \
    X(HD_IQ1_S)                                                                                    \
    X(HD_IQ1_M)                                                                                    \
    X(HD_IQ2_XXS)                                                                                  \
    X(HD_IQ2_XS)                                                                                   \
    X(HD_IQ2_S)                                                                                    \
    X(HD_IQ3_XXS)                                                                                  \
    X(HD_IQ3_S)                                                                                    \
    X(HD_INT4_32)                                                                                  \
    X(HD_INT4_64)                                                                                  \
    X(HD_INT4_128)                                                                                 \
    X(HD_INT8_32)                                                                                  \
    X(HD_INT8_64)                                                                                  \
    X(HD_INT8_128)

#define KERNELS(type)                                                                              \
    static void direct_##type(const struct hd_panel_job *job)                                      \
    {                                                                                              \
        direct_all(job, &hd_packs[HD_PACK_SLOT(type)]);                                            \
    }                                                                                              \
    static void unpack_##type(const struct tile *t, const uint8_t *unit, int64_t n_unit)           \
    {                                                                                              \
        unpack(t, &hd_packs[HD_PACK_SLOT(type)], unit, n_unit);                                    \
    }                                                                                              \
    static void multiply_##type(const struct hd_panel_job *job, const struct tile *t,              \
                                int64_t block, int64_t n_block)                                    \
    {                                                                                              \
        multiply(job, &hd_packs[HD_PACK_SLOT(type)], t, block, n_block);                           \
    }
TYPES(KERNELS)

static const struct {
    void (*direct)(const struct hd_panel_job *);
    void (*unpack)(const struct tile *, const uint8_t *, int64_t);
    void (*multiply)(const struct hd_panel_job *, const struct tile *, int64_t, int64_t);
} by_type[] = {
#define ROW(type) [HD_PACK_SLOT(type)] = {direct_##type, unpack_##type, multiply_##type},
    TYPES(ROW)
#undef ROW
};

static void panel(const struct hd_panel_job *job)
{
    const struct hd_pack *pack = job->pack;
    if (job->n <= HD_TILE_COLUMNS) {
        by_type[HD_PACK_SLOT(pack->dtype)].direct(job);
        return;
    }
    struct tile t = {(__m256i(*)[2])job->tile, (struct scales *)(job->tile + TILE_BYTES)};
    int64_t blocks = pack->unit / 32, step = TILE_BYTES / 64 / block_lines(pack) / blocks;
    memset(job->sums, 0, (size_t)job->n * sizeof *job->sums);
    for (int64_t u = 0; u < job->n_unit; u += step) {
        int64_t n = job->n_unit - u < step ? job->n_unit - u : step;
        by_type[HD_PACK_SLOT(pack->dtype)].unpack(&t, job->panel + u * pack->unit_bytes, n);
        by_type[HD_PACK_SLOT(pack->dtype)].multiply(job, &t, u * blocks, n * blocks);
    }
}

/* --- float types
 * ---------------------------------------------------------------------------------------- */

INLINE __m256 float_line(enum hd_dtype dtype, const uint8_t *panel, int64_t k, int half)
{
    if (dtype == HD_F32)
        return _mm256_loadu_ps((const float *)panel + 16 * k + HALF * half);
    __m128i bits = _mm_loadu_si128((const __m128i *)panel + 2 * k + half);
    if (dtype == HD_F16)
        return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

INLINE void float_columns(const struct hd_panel_job *job, enum hd_dtype dtype, int64_t column,
                          int C)
{
    const float *x[4];
    __m256 sum[2][4];
    for (int c = 0; c < C; c++) {
        x[c] = hd_column_row(job->a, column + c);
        sum[0][c] = sum[1][c] = _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < job->n_unit; k++) {
        const __m256 low = float_line(dtype, job->panel, k, 0);
        const __m256 high = float_line(dtype, job->panel, k, 1);
        for (int c = 0; c < C; c++) {
            __m256 v = _mm256_set1_ps(x[c][k]);
            sum[0][c] = _mm256_fmadd_ps(low, v, sum[0][c]);
            sum[1][c] = _mm256_fmadd_ps(high, v, sum[1][c]);
        }
    }
    for (int c = 0; c < C; c++) {
        float *out = job->sums[column - job->column + c];
        _mm256_storeu_ps(out, sum[0][c]);
        _mm256_storeu_ps(out + HALF, sum[1][c]);
    }
}

INLINE void float_all(const struct hd_panel_job *job, enum hd_dtype dtype)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 4; column += 4)
        float_columns(job, dtype, column, 4);
    for (; end > column; column++)
        float_columns(job, dtype, column, 1);
}

/* --- float codes: FP8, NF4, FP4 ------------------------------------------------------------------
 */

/* Element k of 8 rows, without its scale (of FP8: 1/256 of it). p: the unit's codes. */
INLINE __m256 code_line(enum hd_dtype dtype, const uint8_t *p, int k, int half, const __m256 *code)
{
    if (dtype == HD_FP8_128) { /* exponent and mantissa are an f16's, but for the bias */
        __m128i v = _mm_loadl_epi64((const __m128i *)(p + 16 * k + HALF * half));
        v = _mm_cvtepu8_epi16(v);
        __m128i sign = _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x80)), 8);
        v = _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x7f)), 7);
        return _mm256_cvtph_ps(_mm_or_si128(v, sign));
    }
    __m256i v = u8_ints(p + 16 * (k / 2) + HALF * half);
    v = k % 2 ? _mm256_srli_epi32(v, 4) : v;
    __m256 low = _mm256_permutevar8x32_ps(code[0], v); /* reads three bits; the fourth chooses */
    __m256 high = _mm256_permutevar8x32_ps(code[1], v);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(v, 28)));
}

INLINE void code_columns(const struct hd_panel_job *job, enum hd_dtype dtype, int64_t column, int C)
{
    const int unit = hd_packs[HD_PACK_SLOT(dtype)].unit;
    const float *values = hd_dtype_code(dtype);
    __m256 code[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int i = 0; values && i < 2; i++)
        code[i] = _mm256_loadu_ps(values + 8 * i);
    const __m256 factor = _mm256_set1_ps(dtype == HD_FP8_128 ? 256.0f : 1.0f);
    const float *x[4];
    __m256 sum[2][4];
    for (int c = 0; c < C; c++) {
        x[c] = hd_column_row(job->a, column + c);
        sum[0][c] = sum[1][c] = _mm256_setzero_ps();
    }
    const uint8_t *p = job->panel;
    for (int64_t i = 0; i < job->a->n_in; i += unit, p += job->pack->unit_bytes) {
        const __m256 d0 = _mm256_mul_ps(_mm256_loadu_ps((const float *)p), factor);
        const __m256 d1 = _mm256_mul_ps(_mm256_loadu_ps((const float *)p + HALF), factor);
        int n = job->a->n_in - i < unit ? (int)(job->a->n_in - i) : unit;
        for (int k = 0; k < n; k++) {
            const __m256 low = _mm256_mul_ps(code_line(dtype, p + 64, k, 0, code), d0);
            const __m256 high = _mm256_mul_ps(code_line(dtype, p + 64, k, 1, code), d1);
            for (int c = 0; c < C; c++) {
                __m256 v = _mm256_set1_ps(x[c][i + k]);
                sum[0][c] = _mm256_fmadd_ps(low, v, sum[0][c]);
                sum[1][c] = _mm256_fmadd_ps(high, v, sum[1][c]);
            }
        }
    }
    for (int c = 0; c < C; c++) {
        float *out = job->sums[column - job->column + c];
        _mm256_storeu_ps(out, sum[0][c]);
        _mm256_storeu_ps(out + HALF, sum[1][c]);
    }
}

INLINE void code_all(const struct hd_panel_job *job, enum hd_dtype dtype)
{
    int64_t column = job->column, end = column + job->n;
    for (; end - column >= 4; column += 4)
        code_columns(job, dtype, column, 4);
    for (; end > column; column++)
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
 * ------------------------------------------------------------------------------------------ */

INLINE int32_t sum_ints(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* One block of 32 of one column: int8 values in groups of four, 4 · W bytes apart, and aux. */
INLINE void quantise_block(int8_t *q, float *aux, const __m256 x[4], int W)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_andnot_ps(sign, x[0]);
    for (int i = 1; i < 4; i++)
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, x[i]));
    float amax = vec_largest(largest);
    const __m256 inverse = _mm256_set1_ps(amax > 1e-30f ? 127.0f / amax : 0.0f);
    __m256i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
    /* The packs work within 128-bit lanes; the permutation puts the groups of four in order. */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    int32_t four[8];
    _mm256_storeu_si256((__m256i *)four, bytes);
    for (int g = 0; g < 8; g++)
        memcpy(q + 4 * W * g, &four[g], 4);
    int32_t neg[3];
    neg[1] = -sum_ints(_mm256_add_epi32(v[0], v[1]));
    neg[2] = -sum_ints(_mm256_add_epi32(v[2], v[3]));
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
            __m256 v[4];
            for (int i = 0; i < 4; i++) {
                int64_t at = 32 * b + 8 * i;
                v[i] = vec_load_n(x + at, a->n_in - at > 0 ? a->n_in - at : 0);
            }
            quantise_block(q, aux, v, W);
        }
    }
}

const struct hd_x86_kernels hd_kernels_avx2 = {
    .quantise = quantise,
    .panel = panel,
    .panel_float = panel_float,
    .silu_mul = hd_x86_silu_mul_row_avx2,
    .prompt_group = 32,
};
