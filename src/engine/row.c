#include "engine/row.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Four lanes are what every processor here has without asking. Several accumulators hide the
 * latency of an addition; a piece is short enough for float sums and stays in the first cache. */
typedef float lanes __attribute__((vector_size(16)));
typedef int32_t masks __attribute__((vector_size(16)));
enum { LANES = 4, N_SUM = 4, PIECE = 4096 };

static inline lanes load(const float *x)
{
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline lanes all(float x)
{
    return (lanes){x, x, x, x};
}

static inline lanes either(masks which, lanes a, lanes b)
{
    return (lanes)((which & (masks)a) | (~which & (masks)b));
}

/* e^x for x ≤ 0; what is below -87, or no number, counts as -87. x = n ln 2 + r, |r| ≤ ln 2 / 2;
 * the polynomial of e^r is the one of the Cephes library (expf.c), relative error 2e-7. */
static inline lanes exp_of(lanes x)
{
    const lanes shift = all(12582912.0f); /* 1.5 · 2^23: the integer ends in the low bits */
    x = either(x > all(-87.0f), x, all(-87.0f));
    lanes shifted = x * all(1.44269504088896341f) + shift;
    lanes n = shifted - shift;
    lanes r = x - n * all(0.693359375f);
    r = r - n * all(-2.12194440e-4f);
    lanes p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * r * r + r + all(1.0f);
    masks power = ((masks)shifted - (masks)shift + 127) << 23; /* 2^n */
    return p * (lanes)power;
}

static double sum_piece(const float *x, int n, float max, float scale)
{
    lanes sum[N_SUM] = {{0}};
    double total = 0;
    int i = 0;
    for (; i + N_SUM * LANES <= n; i += N_SUM * LANES)
        for (int j = 0; j < N_SUM; j++)
            sum[j] += exp_of((load(x + i + j * LANES) - all(max)) * all(scale));
    for (int j = 0; j < N_SUM; j++)
        for (int k = 0; k < LANES; k++)
            total += (double)sum[j][k];
    for (; i < n; i++)
        total += (double)exp_of(all((x[i] - max) * scale))[0];
    return total;
}

double hd_row_sum_exp(const float *x, int n, float max, float scale)
{
    double sum = 0;
    for (int i = 0; i < n; i += PIECE)
        sum += sum_piece(x + i, n - i < PIECE ? n - i : PIECE, max, scale);
    return sum;
}

/* The largest; with finite, what is no finite number counts as -infinity. */
static float largest(const float *x, int n, bool finite)
{
    lanes best[N_SUM];
    for (int j = 0; j < N_SUM; j++)
        best[j] = all(-INFINITY);
    int i = 0;
    for (; i + N_SUM * LANES <= n; i += N_SUM * LANES)
        for (int j = 0; j < N_SUM; j++) {
            lanes v = load(x + i + j * LANES);
            masks better = v > best[j];
            if (finite)
                better &= v < all(INFINITY);
            best[j] = either(better, v, best[j]);
        }
    float max = -INFINITY;
    for (int j = 0; j < N_SUM; j++)
        for (int k = 0; k < LANES; k++)
            max = best[j][k] > max ? best[j][k] : max;
    for (; i < n; i++)
        if (x[i] > max && (!finite || x[i] < INFINITY))
            max = x[i];
    return max;
}

double hd_row_log_norm(const float *x, int n)
{
    float max = largest(x, n, false);
    return max + log(hd_row_sum_exp(x, n, max, 1));
}

int32_t hd_row_argmax(const float *x, int n)
{
    float max = largest(x, n, true);
    for (int32_t i = 0; max > -INFINITY && i < n; i++)
        if (x[i] >= max && x[i] < INFINITY)
            return i;
    return -1;
}
