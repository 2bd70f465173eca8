/* Arithmetic over one row of logits, as wide as a vocabulary: what every generated token costs
 * beside the model. Results depend on the row alone, not on the processor: lanes and order are
 * fixed. Any thread; nothing is allocated. */
#ifndef HD_ENGINE_ROW_H
#define HD_ENGINE_ROW_H

#include <stdint.h>

/* Sum of exp((x[i] - max) * scale), scale > 0, max ≥ all x; terms below e^-87 count as that. */
double hd_row_sum_exp(const float *x, int n, float max, float scale);
/* Log of the sum of exponentials: what turns logits into log-probabilities. */
double hd_row_log_norm(const float *x, int n);
/* The largest of the finite ones, ties to the lowest; -1 where none is. */
int32_t hd_row_argmax(const float *x, int n);

#endif
