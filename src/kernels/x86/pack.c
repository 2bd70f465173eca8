/* Repacking at load. A unit of each of the 16 rows is taken apart into plain integers (one function
 * per type), transposed by 4-byte groups, and put together as bit planes; all loops over bytes are
 * simple enough for the compiler to vectorise. */
#include "kernels/x86/pack.h"

#include <string.h>

#include "base/checked.h"

/* One unit of one row: unsigned elements and what scales them. */
struct unit_row {
    uint8_t q[256];
    uint16_t d[2], m[2]; /* f16 bits: of the two blocks, or d[0] and m[0] = dmin of a K type */
    uint8_t scale[16], min[16];
};

const struct hd_pack *hd_pack_of(enum hd_dtype dtype)
{
    size_t slot = (size_t)HD_PACK_SLOT(dtype);
    if (slot >= sizeof hd_packs / sizeof hd_packs[0] || !hd_packs[slot].unit)
        return NULL;
    return &hd_packs[slot];
}

/* --- taking apart: the layouts are those of tensor/dequantise.c --------------------------------
 */

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void nibbles(uint8_t *q, const uint8_t *p, int n)
{
    for (int i = 0; i < n; i++) {
        q[i] = p[i] & 15;
        q[i + n] = p[i] >> 4;
    }
}

/* Adds 16 where the bit of the element is set. */
static void fifth_bits(uint8_t *q, const uint8_t *p)
{
    for (int i = 0; i < 32; i++)
        q[i] |= (uint8_t)((p[i / 8] >> (i % 8) & 1) << 4);
}

/* Blocks of 32: block b of a unit of two. */
static void take_block(struct unit_row *u, enum hd_dtype dtype, const uint8_t *p, int b)
{
    bool has_min = dtype == HD_Q4_1 || dtype == HD_Q5_1;
    if (dtype == HD_MXFP4) {
        u->d[b] = p[0]; /* the exponent */
        nibbles(u->q + 32 * b, p + 1, 16);
        return;
    }
    u->d[b] = u16_at(p);
    u->m[b] = has_min ? u16_at(p + 2) : 0;
    p += has_min ? 4 : 2;
    uint8_t *q = u->q + 32 * b;
    if (dtype == HD_Q8_0) {
        for (int i = 0; i < 32; i++)
            q[i] = p[i] ^ 0x80; /* plus 128 */
    } else if (dtype == HD_Q4_0 || dtype == HD_Q4_1 || dtype == HD_IQ4_NL) {
        nibbles(q, p, 16);
    } else {
        nibbles(q, p + 4, 16);
        fifth_bits(q, p);
    }
}

static void take_q2_q3(struct unit_row *u, enum hd_dtype dtype, const uint8_t *p)
{
    const uint8_t *qs = dtype == HD_Q2_K ? p + 16 : p + 32;
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            u->q[32 * j + i] = qs[j / 4 * 32 + i] >> (j % 4 * 2) & 3;
    if (dtype == HD_Q2_K) {
        memcpy(u->scale, p, 16);
        u->d[0] = u16_at(p + 80);
        u->m[0] = u16_at(p + 82);
        return;
    }
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            u->q[32 * j + i] |= (uint8_t)((p[i] >> j & 1) << 2);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? p[96 + g] & 15 : p[96 + g - 8] >> 4;
        u->scale[g] = (uint8_t)((low | (p[104 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32);
    }
    u->d[0] = u16_at(p + 108);
}

static void take_q4_q5(struct unit_row *u, enum hd_dtype dtype, const uint8_t *p)
{
    const uint8_t *s = p + 4, *high = p + 16, *qs = dtype == HD_Q4_K ? p + 16 : p + 48;
    u->d[0] = u16_at(p);
    u->m[0] = u16_at(p + 2);
    for (int j = 0; j < 4; j++) {
        u->scale[j] = s[j] & 63;
        u->min[j] = s[j + 4] & 63;
        u->scale[j + 4] = (uint8_t)((s[j + 8] & 15) | s[j] >> 6 << 4);
        u->min[j + 4] = (uint8_t)(s[j + 8] >> 4 | s[j + 4] >> 6 << 4);
        nibbles(u->q + 64 * j, qs + 32 * j, 32);
    }
    if (dtype == HD_Q5_K)
        for (int j = 0; j < 8; j++)
            for (int i = 0; i < 32; i++)
                u->q[32 * j + i] |= (uint8_t)((high[i] >> j & 1) << 4);
}

static void take_q6(struct unit_row *u, const uint8_t *p)
{
    for (int j = 0; j < 8; j++) { /* 32 elements each */
        const uint8_t *low = p + j / 4 * 64 + j % 2 * 32, *high = p + 128 + j / 4 * 32;
        int shift = j % 4 / 2 * 4, shift_h = j % 4 * 2;
        for (int i = 0; i < 32; i++)
            u->q[32 * j + i] = (uint8_t)((low[i] >> shift & 15) | (high[i] >> shift_h & 3) << 4);
    }
    memcpy(u->scale, p + 192, 16);
    u->d[0] = u16_at(p + 208);
}

static void take_iq4_xs(struct unit_row *u, const uint8_t *p)
{
    unsigned high = u16_at(p + 2);
    u->d[0] = u16_at(p);
    for (int j = 0; j < 8; j++) {
        unsigned scale = (p[4 + j / 2] >> 4 * (j % 2) & 15u) | (high >> 2 * j & 3) << 4;
        u->scale[j] = (uint8_t)(scale - 32);
        nibbles(u->q + 32 * j, p + 8 + 16 * j, 16);
    }
}

/* INT4 and INT8 rows, whose last block is padded. */
static void take_own(struct unit_row *u, const struct hd_pack *pack, const uint8_t *p)
{
    u->d[0] = u16_at(p);
    u->min[0] = p[2];
    for (int i = 0; i < pack->unit; i++)
        u->q[i] = pack->bits == 8 ? p[3 + i] : p[3 + i / 2] >> (i % 2 * 4) & 15;
}

static void take_unit(struct unit_row *u, const struct hd_pack *pack, const uint8_t *row,
                      int64_t unit, int64_t n_in)
{
    const struct hd_dtype_info *info = hd_dtype_info(pack->dtype);
    if (pack->dtype >= HD_OWN_TYPES) {
        take_own(u, pack, row + (size_t)unit * (size_t)info->block_bytes);
        return;
    }
    if (pack->unit == 64) {
        int64_t blocks = n_in / 32 - 2 * unit; /* the row may end with half a unit */
        for (int b = 0; b < 2 && b < blocks; b++)
            take_block(u, pack->dtype, row + (size_t)(2 * unit + b) * (size_t)info->block_bytes, b);
        return;
    }
    const uint8_t *p = row + (size_t)unit * (size_t)info->block_bytes;
    if (pack->dtype == HD_Q6_K)
        take_q6(u, p);
    else if (pack->dtype == HD_Q4_K || pack->dtype == HD_Q5_K)
        take_q4_q5(u, pack->dtype, p);
    else if (pack->dtype == HD_IQ4_XS)
        take_iq4_xs(u, p);
    else
        take_q2_q3(u, pack->dtype, p);
}

/* --- putting together --------------------------------------------------------------------------
 */

/* line[g]: 64 bytes of group g. Writes the planes of one block, returns the end. */
static uint8_t *put_planes(uint8_t *out, int bits, uint8_t line[8][64])
{
    if (bits == 8) {
        memcpy(out, line, 512);
        return out + 512;
    }
    if (bits >= 4) {
        for (int i = 0; i < 4; i++, out += 64)
            for (int j = 0; j < 64; j++)
                out[j] = (uint8_t)((line[i][j] & 15) | line[i + 4][j] << 4);
    }
    int low = bits >= 4 ? 4 : 0; /* bits already stored */
    if (bits - low >= 2) {
        for (int i = 0; i < 2; i++, out += 64)
            for (int j = 0; j < 64; j++)
                out[j] =
                    (uint8_t)((line[4 * i][j] >> low & 3) | (line[4 * i + 1][j] >> low & 3) << 2 |
                              (line[4 * i + 2][j] >> low & 3) << 4 |
                              (line[4 * i + 3][j] >> low & 3) << 6);
        low += 2;
    }
    if (bits > low) {
        memset(out, 0, 64);
        for (int g = 0; g < 8; g++)
            for (int j = 0; j < 64; j++)
                out[j] |= (uint8_t)((line[g][j] >> low & 1) << g);
        out += 64;
    }
    return out;
}

static void put_head(uint8_t *out, const struct hd_pack *pack, const struct unit_row *rows)
{
    uint16_t *half = (uint16_t *)out;
    for (int r = 0; r < HD_PANEL; r++) {
        const struct unit_row *u = &rows[r];
        if (pack->dtype == HD_MXFP4) {
            out[r] = (uint8_t)u->d[0];
            out[16 + r] = (uint8_t)u->d[1];
            continue;
        }
        half[r] = u->d[0];
        if (pack->dtype >= HD_OWN_TYPES) {
            out[32 + r] = u->min[0];
            continue;
        }
        if (pack->unit == 64) {
            half[16 + r] = u->d[1];
            if (!pack->zero) {
                half[32 + r] = u->m[0];
                half[48 + r] = u->m[1];
            }
            continue;
        }
        half[16 + r] = pack->zero ? 0 : u->m[0];
        for (int g = 0; g < 256 / pack->group; g++)
            out[64 + 16 * g + r] = u->scale[g];
        if (pack->group == 32 && !pack->zero)
            for (int g = 0; g < 8; g++)
                out[192 + 16 * g + r] = u->min[g];
    }
}

static void put_unit(uint8_t *out, const struct hd_pack *pack, const struct unit_row *rows)
{
    put_head(out, pack, rows);
    out += pack->head_bytes;
    for (int b = 0; b < pack->unit / 32; b++) {
        uint8_t line[8][64];
        for (int r = 0; r < HD_PANEL; r++)
            for (int g = 0; g < 8; g++)
                memcpy(&line[g][4 * r], &rows[r].q[32 * b + 4 * g], 4);
        out = put_planes(out, pack->bits, line);
    }
}

static void put_floats(uint8_t *out, const struct hd_weight *w, const uint8_t *row, int n_row)
{
    size_t size = (size_t)hd_dtype_info(w->dtype)->block_bytes;
    memset(out, 0, hd_pack_panel_bytes(w));
    for (int r = 0; r < n_row; r++)
        for (int64_t k = 0; k < w->n_in; k++)
            memcpy(out + ((size_t)k * HD_PANEL + (size_t)r) * size,
                   row + (size_t)r * w->row_bytes + (size_t)k * size, size);
}

/* The blocks of 256 as they are, unit by unit; missing rows are zeros. */
static void put_codes(uint8_t *out, const struct hd_weight *w, const uint8_t *row, int n_row)
{
    size_t block = (size_t)w->pack->unit_bytes / HD_PANEL;
    memset(out, 0, hd_pack_panel_bytes(w));
    for (int64_t u = 0; u < hd_pack_units(w->pack, w->n_in); u++)
        for (int r = 0; r < n_row; r++)
            memcpy(out + ((size_t)u * HD_PANEL + (size_t)r) * block,
                   row + (size_t)r * w->row_bytes + (size_t)u * block, block);
}

/* Float codes: f32 scale and codes of every block. */
static void put_float_codes(uint8_t *out, const struct hd_weight *w, const uint8_t *row, int n_row)
{
    size_t block = (size_t)hd_dtype_info(w->dtype)->block_bytes;
    memset(out, 0, hd_pack_panel_bytes(w));
    for (int r = 0; r < n_row; r++) {
        const uint8_t *p = row + (size_t)r * w->row_bytes;
        uint8_t *unit = out;
        for (size_t b = 0; b < w->row_bytes / block; b++, p += block, unit += w->pack->unit_bytes) {
            memcpy(unit + 4 * r, p, 4);
            for (size_t i = 0; i < block - 4; i++)
                unit[64 + 16 * i + (size_t)r] = p[4 + i];
        }
    }
}

/* --- the whole weight --------------------------------------------------------------------------
 */

/* A panel of the rows `row`, w->row_bytes apart, the first n_in elements of each. */
static void pack_rows(uint8_t *out, const struct hd_weight *w, const uint8_t *row, int n_row)
{
    if (w->pack->is_float) {
        (w->pack->unit > 1 ? put_float_codes : put_floats)(out, w, row, n_row);
        return;
    }
    if (w->pack->codes) {
        put_codes(out, w, row, n_row);
        return;
    }
    for (int64_t u = 0; u < hd_pack_units(w->pack, w->n_in); u++) {
        struct unit_row rows[HD_PANEL];
        memset(rows, 0, sizeof rows);
        for (int r = 0; r < n_row; r++)
            take_unit(&rows[r], w->pack, row + (size_t)r * w->row_bytes, u, w->n_in);
        put_unit(out + (size_t)u * (size_t)w->pack->unit_bytes, w->pack, rows);
    }
}

/* Piece by piece: as if the panel were that of a matrix as wide as a unit. */
static void pack_source(uint8_t *out, const struct hd_weight *w, int64_t matrix, int64_t row,
                        int n_row)
{
    enum { FLOATS = 64, BLOCK_BYTES = 256 };
    const struct hd_dtype_info *info = hd_dtype_info(w->dtype);
    uint8_t rows[HD_PANEL * BLOCK_BYTES];
    struct hd_weight piece = *w;
    int64_t step = w->pack->unit > 1 ? w->pack->unit : FLOATS;
    for (int64_t i = 0; i < w->n_in; i += step) {
        piece.n_in = w->n_in - i < step ? w->n_in - i : step;
        piece.row_bytes = hd_dtype_row_bytes(w->dtype, piece.n_in);
        w->source->read(w->source, rows, matrix, row, n_row, i / info->block,
                        (int64_t)piece.row_bytes / info->block_bytes);
        pack_rows(out, &piece, rows, n_row);
        out += hd_pack_panel_bytes(&piece);
    }
}

void hd_pack_panel_to(uint8_t *out, const struct hd_weight *w, int64_t matrix, int64_t panel)
{
    int64_t row = panel * HD_PANEL, left = w->n_out - row;
    int n_row = left < HD_PANEL ? (int)left : HD_PANEL;
    if (w->source)
        pack_source(out, w, matrix, row, n_row);
    else
        pack_rows(out, w, w->data + (size_t)(matrix * w->n_out + row) * w->row_bytes, n_row);
}

void hd_pack_part(const struct hd_weight *w, size_t begin, size_t end)
{
    int64_t n_panel = hd_pack_panels(w);
    for (size_t i = begin; i < end; i++) {
        int64_t matrix = (int64_t)i / n_panel, panel = (int64_t)i % n_panel;
        hd_pack_panel_to((uint8_t *)hd_pack_panel(w, matrix, panel), w, matrix, panel);
    }
}

enum hd_err hd_pack_plan(struct hd_weight *w, struct hd_errmsg *msg)
{
    w->pack = hd_pack_of(w->dtype);
    if (!w->pack)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "weight: no vector kernels for type %s (use ref)",
                       hd_dtype_gguf_name(w->dtype));
    w->n_part = (size_t)(hd_pack_panels(w) * w->n_matrix);
    if (!hd_mul(&w->packed_bytes, w->n_part, hd_pack_panel_bytes(w)))
        return hd_fail(msg, HD_ERR_LIMIT, "weight: %zu panels of %zu bytes: more than can be",
                       w->n_part, hd_pack_panel_bytes(w));
    return HD_OK;
}
