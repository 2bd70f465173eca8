/* A small seeded generator (splitmix64, Steele et al. 2014): same seed, same numbers, everywhere.
 */
#ifndef HD_BASE_RNG_H
#define HD_BASE_RNG_H

#include <stdint.h>

struct hd_rng {
    uint64_t state;
};

static inline uint64_t hd_rng_next(struct hd_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* Uniform in [0, 1). */
static inline double hd_rng_uniform(struct hd_rng *rng)
{
    return (double)(hd_rng_next(rng) >> 11) * 0x1p-53;
}

#endif
