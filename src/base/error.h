/* Errors: one enum, one optional sentence for people.
 *
 * Every fallible call returns enum hd_err: 0 is success, negative is failure.
 * Boundary calls take a nullable struct hd_errmsg * and write one sentence,
 * "WHAT: WHY (HINT)", that a user can act on. */
#ifndef HD_BASE_ERROR_H
#define HD_BASE_ERROR_H

/* X(name, value, text, HTTP status) */
#define HD_ERR_LIST(X)                                                                             \
    X(OK, 0, "ok", 200)                                                                            \
    X(NOMEM, -1, "out of memory", 503)                                                             \
    X(IO, -2, "input/output error", 500)                                                           \
    X(NOTFOUND, -3, "not found", 404)                                                              \
    X(INVALID, -4, "invalid argument", 400)                                                        \
    X(FORMAT, -5, "malformed data", 400)                                                           \
    X(UNSUPPORTED, -6, "not supported", 400)                                                       \
    X(LIMIT, -7, "limit exceeded", 413)                                                            \
    X(BUSY, -8, "busy", 429)                                                                       \
    X(CANCELLED, -9, "cancelled", 499)                                                             \
    X(TIMEOUT, -10, "timed out", 504)                                                              \
    X(EXISTS, -11, "already exists", 409)                                                          \
    X(DENIED, -12, "not allowed", 403)                                                             \
    X(UNAVAILABLE, -13, "not available now", 503)                                                  \
    X(INTERNAL, -14, "internal error", 500)                                                        \
    X(USAGE, -15, "wrong usage", 400)

enum hd_err {
#define X(name, value, text, http) HD_ERR_##name = value,
    HD_ERR_LIST(X)
#undef X
};
#define HD_OK HD_ERR_OK

/* The sentence for people; caller-allocated, always terminated. */
struct hd_errmsg {
    char text[512];
};

const char *hd_err_name(enum hd_err err); /* "NOTFOUND" */
const char *hd_err_text(enum hd_err err); /* "not found" */
int hd_err_http_status(enum hd_err err);  /* 404 */

/* Writes the sentence (msg may be NULL) and returns err, so that
 * `return hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));` reads well.
 * A message already there is replaced. */
enum hd_err hd_fail(struct hd_errmsg *msg, enum hd_err err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
