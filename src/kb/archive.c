/* Zip members and XML. See archive.h. */
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>
#include <zip.h>

#include "kb/archive.h"
#include "kb/doc.h"

enum {
    TOTAL_MAX = 256 << 20, /* bytes unpacked from one archive */
    RATIO_MAX = 250,       /* unpacked to packed, for members above RATIO_FROM */
    RATIO_FROM = 4 << 20
};

struct hd_kb__archive {
    zip_t *zip;
    size_t total; /* bytes unpacked so far */
};

enum hd_err hd_kb__archive_open(struct hd_kb__archive **out, const char *data, size_t len,
                                struct hd_errmsg *msg)
{
    *out = NULL;
    zip_error_t error;
    zip_error_init(&error);
    enum hd_err err = HD_OK;
    struct hd_kb__archive *archive = calloc(1, sizeof *archive);
    zip_source_t *source = archive ? zip_source_buffer_create(data, len, 0, &error) : NULL;
    if (source)
        archive->zip = zip_open_from_source(source, ZIP_RDONLY, &error);
    if (!source) {
        err = HD_ERR_NOMEM;
    } else if (!archive->zip) {
        err = hd_fail(msg, HD_ERR_FORMAT, "not a zip archive: %s", zip_error_strerror(&error));
        zip_source_free(source);
    }
    zip_error_fini(&error);
    if (err)
        free(archive);
    else
        *out = archive;
    return err;
}

void hd_kb__archive_close(struct hd_kb__archive *archive)
{
    if (!archive)
        return;
    zip_discard(archive->zip);
    free(archive);
}

static enum hd_err unpack(struct hd_kb__archive *archive, struct hd_buf *out, const char *name,
                          size_t packed, struct hd_errmsg *msg)
{
    zip_file_t *file = zip_fopen(archive->zip, name, 0);
    if (!file)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %s", name, zip_strerror(archive->zip));
    enum hd_err err = HD_OK;
    char block[16384];
    zip_int64_t n;
    size_t size = 0;
    while (!err && (n = zip_fread(file, block, sizeof block)) > 0) {
        size += (size_t)n;
        archive->total += (size_t)n;
        if (archive->total > TOTAL_MAX || (size > RATIO_FROM && size / RATIO_MAX > packed))
            err = hd_fail(msg, HD_ERR_LIMIT, "%s: it unpacks to far more than a document holds",
                          name);
        else
            err = hd_buf_append(out, block, (size_t)n);
    }
    if (!err && n < 0)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: %s", name, zip_file_strerror(file));
    if (err == HD_ERR_LIMIT && msg && !msg->text[0])
        hd_fail(msg, err, "%s: it is too large", name);
    zip_fclose(file);
    return err;
}

enum hd_err hd_kb__archive_read(struct hd_kb__archive *archive, struct hd_buf *out,
                                const char *name, struct hd_errmsg *msg)
{
    zip_stat_t stat;
    if (zip_stat(archive->zip, name, 0, &stat))
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: no such part in the archive", name);
    size_t packed = stat.valid & ZIP_STAT_COMP_SIZE ? (size_t)stat.comp_size : 0;
    return unpack(archive, out, name, packed, msg);
}

enum hd_err hd_kb__xml_parse(struct _xmlDoc **out, const char *data, size_t len, const char *name,
                             struct hd_errmsg *msg)
{
    *out = NULL;
    if (len > HD_KB__TEXT_MAX)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: it is too large", name);
    xmlDocPtr doc = xmlReadMemory(data, (int)len, NULL, NULL,
                                  XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                      XML_PARSE_COMPACT);
    if (!doc)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: not well-formed XML", name);
    if (doc->intSubset) {
        xmlFreeDoc(doc);
        return hd_fail(msg, HD_ERR_FORMAT, "%s: document type declarations are not accepted", name);
    }
    *out = doc;
    return HD_OK;
}
