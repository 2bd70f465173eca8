/* Files: whole reads, read-only maps, atomic writes, folders. */
#ifndef HD_BASE_FILE_H
#define HD_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A read-only map of a whole file. Immutable after opening; may be read from any thread. */
struct hd_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
    int fd;
};
enum hd_err hd_map_open(struct hd_map *out, const char *path, struct hd_errmsg *msg);
void hd_map_close(struct hd_map *map);
/* Says that a piece of a map is wanted soon (the kernel reads ahead), or not any more: its whole
 * pages go from memory, and are read again if touched. */
void hd_map_advise(const void *data, size_t bytes, bool wanted);

/* Reads a whole file of at most max bytes; *out is owned, NUL-terminated. */
enum hd_err hd_file_read(char **out, size_t *out_len, const char *path, size_t max,
                         struct hd_errmsg *msg);
/* Reads a descriptor to its end, at most max bytes. */
enum hd_err hd_fd_read(char **out, size_t *out_len, int fd, size_t max, struct hd_errmsg *msg);
/* Writes beside the target, syncs, renames, syncs the folder: all or nothing. */
enum hd_err hd_file_write(const char *path, const void *data, size_t len, struct hd_errmsg *msg);
enum hd_err hd_mkdirs(const char *path, struct hd_errmsg *msg); /* mkdir -p, mode 0755 */
bool hd_path_exists(const char *path);
bool hd_path_is_dir(const char *path);
/* Joins with one slash; owned; NULL when out of memory. */
char *hd_path_join(const char *a, const char *b);
/* The home of all state (design decision 14): `home` if not empty, else $HOLDFAST_HOME, else
 * $XDG_DATA_HOME/holdfast, else ~/.local/share/holdfast. Owned. */
char *hd_path_home(const char *home);

#endif
