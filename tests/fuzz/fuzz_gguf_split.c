// room: store
/* Any bytes as a model in two GGUF files: the input is cut at its second "GGUF". Refused, or every
 * tensor of both lies inside its file. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/store.h"

static volatile unsigned touched;

/* A folder in which the two names are links to the descriptors. */
static const char *folder(int a, int b)
{
    static char path[] = "/tmp/holdfast-fuzz-XXXXXX";
    static bool made;
    char name[64], target[64];
    if (!made && !mkdtemp(path))
        abort();
    made = true;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s/m-0000%d-of-00002.gguf", path, i + 1);
        snprintf(target, sizeof target, "/proc/self/fd/%d", i ? b : a);
        unlink(name);
        if (symlink(target, name))
            abort();
    }
    return path;
}

static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("part", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *second = size > 4 ? memmem(data + 4, size - 4, "GGUF", 4) : NULL;
    size_t cut = second ? (size_t)(second - data) : size;
    int a = file_of(data, cut), b = file_of(data + cut, size - cut);
    char path[64];
    snprintf(path, sizeof path, "%s/m-0000%d-of-00002.gguf", folder(a, b), 1 + (int)(size & 1));
    for (int header = 0; header < 2; header++) {
        struct hd_errmsg msg;
        struct hd_store *store;
        size_t bytes;
        if (header ? hd_store_open_header(&store, path, &msg) : hd_store_open(&store, path, &msg))
            continue;
        for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
            const struct hd_store_tensor *tensor = hd_store_tensor_at(store, i);
            touched += (unsigned)strlen(tensor->name);
            if (tensor->data && tensor->bytes)
                touched += ((const uint8_t *)tensor->data)[0] +
                           ((const uint8_t *)tensor->data)[tensor->bytes - 1];
        }
        for (size_t i = 0; hd_store_file_at(store, i, &bytes); i++)
            touched += (unsigned)bytes;
        for (size_t i = 0; hd_store_missing_part(store, i); i++)
            touched++;
        hd_store_close(store);
    }
    close(a);
    close(b);
    return 0;
}
