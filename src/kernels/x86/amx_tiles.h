/* The few things that amx_impl.h needs from the processor, in two versions: the AMX instructions,
 * or (HD_AMX_EMULATED) plain C with the same meaning, so that the kernel is tested on any machine.
 * Tiles are 16 rows of 64 bytes; their numbers must be constants. */
#ifndef HD_KERNELS_X86_AMX_TILES_H
#define HD_KERNELS_X86_AMX_TILES_H

#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

enum { TILE_ROWS = 16, TILE_ROW_BYTES = 64, TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES };

#if defined(HD_AMX_EMULATED)

struct emulated_tile {
    int8_t byte[TILE_ROWS][TILE_ROW_BYTES];
};
static _Thread_local struct emulated_tile tile_file[8];

static inline void tiles_begin(void)
{
}
static inline void tiles_end(void)
{
}
static inline void tile_zero(int t)
{
    memset(&tile_file[t], 0, TILE_BYTES);
}
static inline void tile_load(int t, const void *p, size_t stride)
{
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy(tile_file[t].byte[r], (const char *)p + (size_t)r * stride, TILE_ROW_BYTES);
}
static inline void tile_store(int t, void *p, size_t stride)
{
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy((char *)p + (size_t)r * stride, tile_file[t].byte[r], TILE_ROW_BYTES);
}
/* c[m][n] += Σ_k Σ_j a[m][4k + j] · b[k][4n + j], signed bytes, 32-bit sums (Intel SDM, TDPBSSD).
 */
static inline void tile_multiply(int c, int a, int b)
{
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            int32_t sum;
            memcpy(&sum, &tile_file[c].byte[m][4 * n], 4);
            for (int k = 0; k < 16; k++)
                for (int j = 0; j < 4; j++)
                    sum += tile_file[a].byte[m][4 * k + j] * tile_file[b].byte[k][4 * n + j];
            memcpy(&tile_file[c].byte[m][4 * n], &sum, 4);
        }
}
#define TILE_ZERO(t) tile_zero(t)
#define TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define TILE_MULTIPLY(c, a, b) tile_multiply(c, a, b)

static inline void halves_to_floats(float out[16], const uint8_t *p)
{
    for (int i = 0; i < 16; i++)
        out[i] = hd_f16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

#else

#include <immintrin.h>

/* Palette 1: eight tiles of 16 × 64. A thread that holds tiles pays for them at every switch, so a
 * panel takes and gives them back. */
static inline void tiles_begin(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = TILE_ROW_BYTES;
        config.rows[i] = TILE_ROWS;
    }
    _tile_loadconfig(&config);
}
static inline void tiles_end(void)
{
    _tile_release();
}
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, p, stride) _tile_loadd(t, p, stride)
#define TILE_STORE(t, p, stride) _tile_stored(t, p, stride)
#define TILE_MULTIPLY(c, a, b) _tile_dpbssd(c, a, b)

static inline void halves_to_floats(float out[16], const uint8_t *p)
{
    _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)));
}

#endif
#endif
