/* The parts of a URL that the client's rules are about. */
#ifndef HD_NET_URL_H
#define HD_NET_URL_H

#include <stdbool.h>

#include "base/error.h"

struct hd_url {
    char *text; /* normalised, without fragment; owned, like the rest */
    char *scheme;
    char *host;
    char *port; /* always there: the scheme's own if the text names none */
    bool has_credentials;
};

/* Parses `text`; where `base` is not NULL, text may be relative to it (a Location header). */
enum hd_err hd_url_parse(struct hd_url *out, const char *base, const char *text,
                         struct hd_errmsg *msg);
void hd_url_dispose(struct hd_url *url);
bool hd_url_same_origin(const struct hd_url *a, const struct hd_url *b);

/* The path that file:///… names, %XX decoded; owned; NULL if it is no such address. */
char *hd_url_file_path(const char *url);

#endif
