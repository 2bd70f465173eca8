// room: pull
/* Any bytes as a catalogue: refused or sound, and what is sound keeps its promises. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pull/catalogue.h"

static void must(bool good)
{
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_catalogue *c;
    char out[512];
    if (hd_catalogue_parse(&c, (const char *)data, size, "fuzz", NULL))
        return 0;
    for (size_t i = 0; i < hd_catalogue_count(c); i++) {
        const struct hd_catalogue_model *m = hd_catalogue_at(c, i);
        must(!strchr(m->file, '/') && m->file[0] != '.' && m->n_source > 0);
        must(hd_catalogue_find(c, m->name) == m);
        for (size_t j = 0; j < m->n_source; j++) {
            const struct hd_source *s = &m->source[j];
            if (s->type != HD_SOURCE_WHEELS)
                continue;
            must(s->package[0] != '-' && !strstr(s->member, "/.") && s->sha256 && s->size);
            must(s->part_bytes * (uint64_t)s->parts >= s->size);
            hd_catalogue_expand(out, sizeof out, s->member, s->parts);
        }
    }
    hd_catalogue_free(c);
    return 0;
}
