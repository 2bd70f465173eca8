/* Which surface answers which route. */
#include "api/surface.h"

#include <string.h>

const struct hd_api__surface *hd_api__surface_find(const char *pattern)
{
    static const struct hd_api__surface *const all[] = {
        &hd_api__chat_completions,
        &hd_api__completions,
    };
    for (size_t i = 0; pattern && i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->pattern, pattern))
            return all[i];
    return NULL;
}
