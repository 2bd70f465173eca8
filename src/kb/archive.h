/* Zip archives in memory (DOCX, EPUB), read with suspicion. */
#ifndef HD_KB_ARCHIVE_H
#define HD_KB_ARCHIVE_H

#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct hd_kb__archive; /* borrows the bytes it was opened on */

enum hd_err hd_kb__archive_open(struct hd_kb__archive **out, const char *data, size_t len,
                                struct hd_errmsg *msg);
void hd_kb__archive_close(struct hd_kb__archive *archive); /* NULL is fine */
/* Reads a whole member. NOTFOUND where there is none; LIMIT where it, or all read so far, is larger
 * than a document may be, or unpacks suspiciously well. */
enum hd_err hd_kb__archive_read(struct hd_kb__archive *archive, struct hd_buf *out,
                                const char *name, struct hd_errmsg *msg);

/* Parses XML from memory without network, entities or external files; a document type declaration
 * is refused. The result is a libxml2 document (xmlDocPtr). */
struct _xmlDoc;
enum hd_err hd_kb__xml_parse(struct _xmlDoc **out, const char *data, size_t len, const char *name,
                             struct hd_errmsg *msg);

#endif
