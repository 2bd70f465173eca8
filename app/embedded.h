/* The web page's files as bytes (made by tools/embed_web.py when building). */
#ifndef HD_APP_EMBEDDED_H
#define HD_APP_EMBEDDED_H

#include <stddef.h>

struct hd_embedded {
    const char *name; /* "index.html"; NULL ends the table */
    const char *content_type;
    const unsigned char *data;
    size_t len;
};
extern const struct hd_embedded hd_embedded_files[];

#endif
