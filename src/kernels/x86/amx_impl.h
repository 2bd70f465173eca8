/* Panel products with AMX-INT8 for prompts, included by panel_amx.c (the instructions) and
 * amx_emulated.c (plain C tiles). Everything here is plain C that the compiler vectorises.
 *
 * A tile product multiplies 16 columns × 64 elements by 64 elements × 16 rows in 16 cycles; taking
 * its 256 sums out and scaling them costs about as much. So scales must cover more than 32
 * elements: a panel is requantised, once per chunk of columns, to signed 8 bits with one scale per
 * row and group of 128, and activations get a scale per 128 as well.
 *
 *   w8 = (q · D - M + 128) >> 8,  D = 256 · d · 127 / bound,  M = 256 · m · 127 / bound
 *
 * in 16-bit integers, where bound is the largest magnitude that the row's four blocks can hold. The
 * lines of a packed panel (x86/pack.h) are already rows of tile B.
 *
 * This rounds differently from the VNNI kernels, so it serves prompt rows always, however few, and
 * generated rows never. */
#include <math.h>

#include "kernels/x86/amx_tiles.h"
#include "kernels/x86/expand.h"
#include "kernels/x86/x86.h"

enum {
    GROUP_BLOCKS = 4, /* blocks of 32 per scale */
    GROUP = 32 * GROUP_BLOCKS,
    M_TILES = 4, /* tiles of 16 columns that share the loads of a group's two weight tiles */
};

/* --- activations: columns one after another, a scale per 128 -------------------------------------
 */

static void amx_quantise_column(const struct hd_activations *a, int64_t column)
{
    const float *x = hd_column_row(a, column);
    int8_t *q = a->q + column * a->n_block * 32;
    float *scale = a->aux + column * a->n_block * HD_AUX;
    for (int64_t begin = 0; begin < a->n_block * 32; begin += GROUP, scale++) {
        int64_t end = begin + GROUP < a->n_in ? begin + GROUP : a->n_in;
        int64_t pad = begin + GROUP < a->n_block * 32 ? begin + GROUP : a->n_block * 32;
        float amax = 0;
        for (int64_t i = begin; i < end; i++) {
            float magnitude = fabsf(x[i]);
            amax = magnitude > amax ? magnitude : amax;
        }
        float inverse = amax > 1e-30f ? 127.0f / amax : 0.0f;
        for (int64_t i = begin; i < end; i++)
            q[i] = (int8_t)(int)__builtin_rintf(x[i] * inverse);
        for (int64_t i = end > begin ? end : begin; i < pad; i++)
            q[i] = 0;
        *scale = amax / 127.0f;
    }
}

static void amx_quantise(const struct hd_activations *a, int64_t tile)
{
    for (int c = 0; c < hd_tile_width(a, tile); c++)
        amx_quantise_column(a, tile * HD_TILE_COLUMNS + c);
}

/* --- weights: one block of a packed unit to lines and scales
 * --------------------------------------- */

struct block {
    uint8_t line[8][64];      /* unsigned elements */
    float d[2][16], m[2][16]; /* per half of 16 elements: value = d · q - m */
};

static void block_scales(struct block *o, const struct hd_pack *pack, const uint8_t *unit, int b)
{
    float d[16], m[16];
    int halves = 32 / pack->group;
    if (pack->book == HD_BOOK_MXFP4) {
        for (int r = 0; r < 16; r++) {
            o->d[0][r] = hd_e8m0_half(unit[16 * b + r]);
            o->m[0][r] = o->d[0][r] * (float)pack->zero;
        }
    } else if (pack->dtype >= HD_OWN_TYPES) {
        halves_to_floats(d, unit);
        for (int r = 0; r < 16; r++) {
            o->d[0][r] = d[r];
            o->m[0][r] = d[r] * (float)unit[32 + r];
        }
    } else if (pack->unit == 64) {
        halves_to_floats(d, unit + 32 * b);
        if (!pack->zero)
            halves_to_floats(m, unit + 64 + 32 * b);
        for (int r = 0; r < 16; r++) {
            o->d[0][r] = d[r];
            o->m[0][r] = pack->zero ? d[r] * (float)pack->zero : -m[r];
        }
    } else {
        if (pack->codes)
            memcpy(d, unit, sizeof d);
        else
            halves_to_floats(d, unit);
        halves_to_floats(m, unit + 32);
        for (int h = 0; h < halves; h++) {
            const uint8_t *s = unit + 64 + 16 * (b * halves + h);
            for (int r = 0; r < 16; r++) {
                if (pack->zero) {
                    o->d[h][r] = d[r] * (float)(int8_t)s[r];
                    o->m[h][r] = o->d[h][r] * (float)pack->zero;
                } else if (pack->group == 32) {
                    o->d[h][r] = d[r] * (float)s[r];
                    o->m[h][r] = m[r] * (float)s[r + 128];
                } else {
                    o->d[h][r] = d[r] * (float)(s[r] & 15);
                    o->m[h][r] = m[r] * (float)(s[r] >> 4);
                }
            }
        }
    }
    if (halves == 1)
        for (int r = 0; r < 16; r++) {
            o->d[1][r] = o->d[0][r];
            o->m[1][r] = o->m[0][r];
        }
}

static void block_lines(struct block *o, const struct hd_pack *pack, const uint8_t *p)
{
    int bits = pack->bits;
    if (bits == 8) {
        memcpy(o->line, p, sizeof o->line);
        return;
    }
    int low = 0;
    if (bits >= 4) {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 64; j++) {
                o->line[i][j] = p[64 * i + j] & 15;
                o->line[i + 4][j] = p[64 * i + j] >> 4;
            }
        if (pack->book)
            for (int g = 0; g < 8; g++)
                for (int j = 0; j < 64; j++)
                    o->line[g][j] = hd_pack_books[pack->book][o->line[g][j]];
        p += 256;
        low = 4;
    } else {
        memset(o->line, 0, sizeof o->line);
    }
    if (bits - low >= 2) {
        for (int g = 0; g < 8; g++)
            for (int j = 0; j < 64; j++)
                o->line[g][j] |= (uint8_t)((p[g / 4 * 64 + j] >> (g % 4 * 2) & 3) << low);
        p += 128;
        low += 2;
    }
    if (bits > low)
        for (int g = 0; g < 8; g++)
            for (int j = 0; j < 64; j++)
                o->line[g][j] |= (uint8_t)((p[j] >> g & 1) << low);
}

/* --- requantising a group
 * ---------------------------------------------------------------------------- */

/* bound[r]: the largest magnitude that any element of the group's blocks can have in row r. */
static void group_bound(float bound[16], const struct block *blocks, int n,
                        const struct hd_pack *pack)
{
    float largest = (float)((1 << pack->bits) - 1), peak = (float)pack->peak;
    for (int r = 0; r < 16; r++)
        bound[r] = 0;
    for (int b = 0; b < n; b++)
        for (int h = 0; h < 2; h++)
            for (int r = 0; r < 16; r++) {
                float m = fabsf(blocks[b].m[h][r]);
                float top = fabsf(blocks[b].d[h][r] * largest - blocks[b].m[h][r]);
                m = pack->peak ? fabsf(blocks[b].d[h][r]) * peak : top > m ? top : m;
                bound[r] = m > bound[r] ? m : bound[r];
            }
}

/* One block: its eight lines become eight rows of a weight tile. */
static void requantise(int8_t (*out)[64], const struct block *o, const float inverse[16])
{
    for (int h = 0; h < 2; h++) {
        int16_t D[64], M[64]; /* per byte of a line; int16 arithmetic wraps where it must */
        for (int r = 0; r < 16; r++) {
            int16_t d = (int16_t)(int)__builtin_rintf(256.0f * o->d[h][r] * inverse[r]);
            int16_t m = (int16_t)((int)__builtin_rintf(256.0f * o->m[h][r] * inverse[r]) - 128);
            for (int j = 0; j < 4; j++) {
                D[4 * r + j] = d;
                M[4 * r + j] = m;
            }
        }
        for (int g = 4 * h; g < 4 * h + 4; g++)
            for (int j = 0; j < 64; j++) {
                int16_t v = (int16_t)((uint16_t)(o->line[g][j] * D[j]) - (uint16_t)M[j]);
                out[g][j] = (int8_t)(v >> 8);
            }
    }
}

/* Up to HD_TILE_BLOCKS blocks of a panel from unit `u` on: weight tiles, two per group, and one
 * scale per group and row. Returns the number of blocks. */
static int64_t amx_unpack(int8_t (*line)[64], float (*scale)[16], const struct hd_panel_job *job,
                          int64_t u)
{
    const struct hd_pack *pack = job->pack;
    int per_unit = pack->unit / 32;
    int64_t left = (job->n_unit - u) * per_unit;
    int64_t n = left < HD_TILE_BLOCKS ? left : HD_TILE_BLOCKS;
    uint8_t expanded[HD_EXPANDED_BYTES] __attribute__((aligned(64)));
    for (int64_t b = 0; b < n; b += GROUP_BLOCKS, scale++) {
        struct block blocks[GROUP_BLOCKS];
        int count = n - b < GROUP_BLOCKS ? (int)(n - b) : GROUP_BLOCKS;
        float bound[16], inverse[16];
        for (int i = 0; i < count; i++) {
            int64_t at = b + i;
            const uint8_t *unit = job->panel + (u + at / per_unit) * pack->unit_bytes;
            if (pack->codes) {
                if (at % per_unit == 0)
                    hd_x86_expand(expanded, pack, unit, 0, HD_PANEL);
                unit = expanded;
            }
            block_scales(&blocks[i], pack, unit, (int)(at % per_unit));
            block_lines(&blocks[i], pack,
                        unit + pack->head_bytes + at % per_unit * 64 * pack->bits);
        }
        group_bound(bound, blocks, count, pack);
        for (int r = 0; r < 16; r++) {
            inverse[r] = bound[r] > 1e-30f ? 127.0f / bound[r] : 0.0f;
            (*scale)[r] = bound[r] / 127.0f;
        }
        for (int i = 0; i < count; i++, line += 8)
            requantise(line, &blocks[i], inverse);
    }
    return n;
}

/* --- multiplying
 * ---------------------------------------------------------------------------------------- */

/* sums[i] += scale[row] · activation scale[i] · products[i], for n columns. */
static void add_scaled(float (*sums)[HD_PANEL], const int32_t (*product)[16], const float *scale,
                       const float *a_scale, int64_t a_stride, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float s = a_scale[i * a_stride];
        for (int r = 0; r < 16; r++)
            sums[i][r] += (float)product[i][r] * scale[r] * s;
    }
}

/* Two weight tiles (one if the row ends there) against M_TILES · 16 columns. */
static void group_product(int32_t (*product)[16], const int8_t (*line)[64], int n_step,
                          const int8_t *q, size_t stride)
{
    const size_t step = TILE_ROWS * stride;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int k = 0; k < n_step; k++, q += TILE_ROW_BYTES, line += TILE_ROWS) {
        TILE_LOAD(6, line, TILE_ROW_BYTES);
        TILE_LOAD(4, q, stride);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(5, q + step, stride);
        TILE_MULTIPLY(1, 5, 6);
        TILE_LOAD(4, q + 2 * step, stride);
        TILE_MULTIPLY(2, 4, 6);
        TILE_LOAD(5, q + 3 * step, stride);
        TILE_MULTIPLY(3, 5, 6);
    }
    TILE_STORE(0, product, TILE_ROW_BYTES);
    TILE_STORE(1, product + 16, TILE_ROW_BYTES);
    TILE_STORE(2, product + 32, TILE_ROW_BYTES);
    TILE_STORE(3, product + 48, TILE_ROW_BYTES);
}

/* Columns [i, i + n), n ≤ 64, against the unpacked blocks. */
static void amx_columns(const struct hd_panel_job *job, const int8_t (*line)[64],
                        const float (*scale)[16], int64_t block, int64_t n_block, int64_t i,
                        int64_t n)
{
    enum { COLUMNS = M_TILES * TILE_ROWS };
    const struct hd_activations *a = job->a;
    int64_t column = job->column + i, stride = a->n_block * 32;
    const float *a_scale = a->aux + column * a->n_block * HD_AUX + block / GROUP_BLOCKS;
    int32_t product[COLUMNS][16] __attribute__((aligned(64)));
    int8_t few[COLUMNS][GROUP] __attribute__((aligned(64)));
    for (int64_t b = 0; b < n_block; b += GROUP_BLOCKS, line += 8 * GROUP_BLOCKS, scale++) {
        int n_step = n_block - b < GROUP_BLOCKS ? (int)(n_block - b + 1) / 2 : GROUP_BLOCKS / 2;
        const int8_t *q = a->q + column * stride + (block + b) * 32;
        if (n == COLUMNS) {
            group_product(product, line, n_step, q, (size_t)stride);
        } else { /* the last columns: rows of other data must not be read as if they were there */
            memset(few, 0, sizeof few);
            for (int64_t c = 0; c < n; c++)
                memcpy(few[c], q + c * stride, (size_t)n_step * TILE_ROW_BYTES);
            group_product(product, line, n_step, few[0], GROUP);
        }
        add_scaled(job->sums + i, (const int32_t(*)[16])product, *scale, a_scale + b / GROUP_BLOCKS,
                   a->n_block * HD_AUX, n);
    }
}

static void amx_panel(const struct hd_panel_job *job)
{
    int8_t(*line)[64] = (int8_t(*)[64])job->tile;
    float(*scale)[16] = (float(*)[16])(job->tile + HD_TILE_BLOCKS * 512);
    int per_unit = job->pack->unit / 32;
    memset(job->sums, 0, (size_t)job->n * sizeof *job->sums);
    tiles_begin();
    for (int64_t u = 0; u < job->n_unit; u += HD_TILE_BLOCKS / per_unit) {
        int64_t n_block = amx_unpack(line, scale, job, u);
        for (int64_t i = 0; i < job->n; i += M_TILES * TILE_ROWS) {
            int64_t n = job->n - i < M_TILES * TILE_ROWS ? job->n - i : M_TILES * TILE_ROWS;
            amx_columns(job, (const int8_t(*)[64])line, (const float(*)[16])scale, u * per_unit,
                        n_block, i, n);
        }
    }
    tiles_end();
}
