/* The one writer of a base: holds its lock, its own connection and the open transaction. */
#ifndef HD_KB_WRITE_H
#define HD_KB_WRITE_H

#include "kb/kb_impl.h"

struct hd_kb__writer;
/* BUSY where somebody else writes. options: whose access list goes on what is added; may be NULL.
 */
enum hd_err hd_kb__writer_open(struct hd_kb__writer **out, const struct hd_kb *kb,
                               const struct hd_kb_add_options *options, struct hd_errmsg *msg);
/* Rolls back what was not committed. NULL is fine. */
void hd_kb__writer_close(struct hd_kb__writer *writer);
/* Removes a document within the transaction. */
enum hd_err hd_kb__writer_remove(struct hd_kb__writer *writer, int64_t id, struct hd_errmsg *msg);
/* Writes, commits and, where something was removed, empties the log. *version: what is current. */
enum hd_err hd_kb__writer_commit(struct hd_kb__writer *writer, int64_t *version,
                                 struct hd_errmsg *msg);
struct hd_kb__store *hd_kb__writer_store(struct hd_kb__writer *writer);

#endif
