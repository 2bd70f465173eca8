/* Time. */
#ifndef HD_BASE_CLOCK_H
#define HD_BASE_CLOCK_H

#include <stdint.h>

double hd_clock_seconds(void);   /* monotonic, for durations */
int64_t hd_clock_unix(void);     /* seconds since 1970 */
void hd_clock_iso(char out[21]); /* now as 2026-01-31T12:00:00Z */

#endif
