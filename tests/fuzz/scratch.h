/* A folder for the files that a fuzz target makes of its input. */
#ifndef HD_FUZZ_SCRATCH_H
#define HD_FUZZ_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

static char folder[] = "/tmp/hd_fuzz_XXXXXX";

static inline void make_folder(void)
{
    if (!mkdtemp(folder))
        abort();
}

static inline void put(const char *name, const void *data, size_t size)
{
    char *path = hd_path_join(folder, name);
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (!file)
        abort();
    fwrite(data, 1, size, file);
    fclose(file);
    free(path);
}

#endif
