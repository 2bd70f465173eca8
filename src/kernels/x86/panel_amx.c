/* The AMX back end's kernel table: prompts by tiles, everything else by AVX-512. */
#include "kernels/x86/amx_impl.h"

static void quantise(const struct hd_activations *a, int64_t tile)
{
    if (a->form == HD_FORM_PROMPT)
        amx_quantise(a, tile);
    else
        hd_kernels_avx512.quantise(a, tile);
}

static void panel(const struct hd_panel_job *job)
{
    if (job->form == HD_FORM_PROMPT)
        amx_panel(job);
    else
        hd_kernels_avx512.panel(job);
}

static void panel_float(const struct hd_panel_job *job)
{
    hd_kernels_avx512.panel_float(job);
}

static void silu_mul(float *out, const float *gate, const float *up, int64_t n)
{
    hd_kernels_avx512.silu_mul(out, gate, up, n);
}

const struct hd_x86_kernels hd_kernels_amx = {
    .quantise = quantise,
    .panel = panel,
    .panel_float = panel_float,
    .silu_mul = silu_mul,
    .prompt_group = GROUP,
};

/* The probe: tile products on loaded tiles, one load to each as in the kernel. */
double hd_x86_int8_work_amx(int64_t steps)
{
    static const int8_t zeros[TILE_BYTES] __attribute__((aligned(64)));
    int32_t sums[TILE_ROWS][16];
    tiles_begin();
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    TILE_LOAD(6, zeros, TILE_ROW_BYTES);
    for (int64_t s = 0; s < steps / 16; s++) {
        TILE_LOAD(4, zeros, TILE_ROW_BYTES);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(5, zeros, TILE_ROW_BYTES);
        TILE_MULTIPLY(1, 5, 6);
        TILE_LOAD(4, zeros, TILE_ROW_BYTES);
        TILE_MULTIPLY(2, 4, 6);
        TILE_LOAD(5, zeros, TILE_ROW_BYTES);
        TILE_MULTIPLY(3, 5, 6);
    }
    TILE_STORE(0, sums, TILE_ROW_BYTES);
    tiles_end();
    return 2.0 * 4 * 16 * 16 * 64 * (double)(steps / 16);
}
