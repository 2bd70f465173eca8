/* The AMX kernel with emulated tiles, for the test of the kernel on machines without AMX. */
#define HD_AMX_EMULATED 1
#include "kernels/x86/amx_impl.h"

const struct hd_x86_kernels hd_kernels_amx_emulated = {.quantise = amx_quantise,
                                                       .panel = amx_panel};
