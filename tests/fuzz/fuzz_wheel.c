// room: pull
/* Any bytes as a wheel: refused, or exactly the bytes that were asked for. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pull/wheel.h"

static enum hd_err count(const void *data, size_t len, void *ud)
{
    *(uint64_t *)ud += len;
    return HD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t part = 300;
    uint64_t total = 0;
    char path[64];
    int fd = memfd_create("wheel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return 0;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum hd_err err = hd_wheel_extract(path, "p/data/part01.bin", part, count, &total, NULL);
    if (total > part || (!err && total != part))
        abort();
    close(fd);
    return 0;
}
