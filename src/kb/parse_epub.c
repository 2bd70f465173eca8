/* EPUB: container → package → the spine's chapters in reading order. */
#include <stdlib.h>
#include <string.h>

#include <libxml/tree.h>

#include "kb/archive.h"
#include "kb/doc.h"
#include "kb/parse.h"
#include "kb/text.h"

enum { CHAPTERS_MAX = 10000 };

static bool is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name);
}

static const xmlNode *child(const xmlNode *node, const char *name)
{
    for (const xmlNode *c = node ? node->children : NULL; c; c = c->next)
        if (is(c, name))
            return c;
    return NULL;
}

static xmlChar *property(const xmlNode *node, const char *name)
{
    return xmlGetProp((xmlNode *)node, (const xmlChar *)name);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* Joins the package's folder and a link: percent escapes undone, fragment off, "." and ".." walked.
 * The result names a member of the archive, never a file. Owned. */
static char *resolve(const char *package, const char *href)
{
    const char *slash = strrchr(package, '/');
    size_t base = slash ? (size_t)(slash - package) + 1 : 0;
    char *path = malloc(base + strlen(href) + 1), *out = NULL;
    if (!path)
        return NULL;
    memcpy(path, package, base);
    size_t n = base;
    for (const char *p = href; *p && *p != '#'; p++) {
        if (*p == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
            path[n++] = (char)(hex(p[1]) * 16 + hex(p[2]));
            p += 2;
        } else {
            path[n++] = *p;
        }
    }
    path[n] = '\0';
    out = calloc(1, n + 1);
    size_t k = 0;
    for (char *part = path; out && *part;) {
        size_t len = strcspn(part, "/");
        if (len == 2 && !memcmp(part, "..", 2)) {
            while (k > 0 && out[--k] != '/')
                ;
            out[k] = '\0';
        } else if (len && !(len == 1 && part[0] == '.')) {
            if (k)
                out[k++] = '/';
            memcpy(out + k, part, len);
            k += len;
            out[k] = '\0';
        }
        part += len + (part[len] == '/');
    }
    free(path);
    return out;
}

static enum hd_err read_xml(xmlDocPtr *doc, struct hd_kb__archive *archive, const char *name,
                            struct hd_errmsg *msg)
{
    struct hd_buf xml;
    hd_buf_init(&xml, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__archive_read(archive, &xml, name, msg);
    if (!err)
        err = hd_kb__xml_parse(doc, hd_buf_str(&xml), xml.len, name, msg);
    hd_buf_dispose(&xml);
    return err;
}

static enum hd_err chapter(struct hd_buf *records, struct hd_kb__archive *archive, const char *name,
                           struct hd_errmsg *msg)
{
    struct hd_buf data, text;
    hd_buf_init(&data, HD_KB__TEXT_MAX);
    hd_buf_init(&text, HD_KB__TEXT_MAX);
    enum hd_err err = hd_kb__archive_read(archive, &data, name, msg);
    if (err == HD_ERR_NOTFOUND)
        err = HD_OK; /* a dangling link costs only its chapter */
    else if (!err && data.len)
        err = hd_kb__decode(&text, data.data, data.len, NULL, msg);
    if (!err && text.len)
        err = hd_kb__html_blocks(records, text.data, text.len, false);
    hd_buf_dispose(&data);
    hd_buf_dispose(&text);
    return err;
}

/* The link of a manifest item, owned by libxml2 (xmlFree), or NULL. */
static xmlChar *href_of(const xmlNode *manifest, const xmlChar *id)
{
    for (const xmlNode *item = manifest ? manifest->children : NULL; item; item = item->next) {
        if (!is(item, "item"))
            continue;
        xmlChar *own = property(item, "id");
        bool match = own && !xmlStrcmp(own, id);
        xmlFree(own);
        if (match)
            return property(item, "href");
    }
    return NULL;
}

static enum hd_err spine(struct hd_buf *records, struct hd_kb__archive *archive, xmlDocPtr doc,
                         const char *package, struct hd_errmsg *msg)
{
    const xmlNode *root = xmlDocGetRootElement(doc);
    const xmlNode *title = child(child(root, "metadata"), "title");
    enum hd_err err = HD_OK;
    if (title) {
        xmlChar *text = xmlNodeGetContent((xmlNode *)title);
        if (text)
            err = hd_kb__put(records, HD_KB__TITLE, 1, (const char *)text,
                             strlen((const char *)text));
        xmlFree(text);
    }
    const xmlNode *manifest = child(root, "manifest"), *list = child(root, "spine");
    size_t n = 0;
    for (const xmlNode *ref = list ? list->children : NULL; ref && !err; ref = ref->next) {
        if (!is(ref, "itemref"))
            continue;
        if (++n > CHAPTERS_MAX)
            return hd_fail(msg, HD_ERR_LIMIT, "more than %d chapters", CHAPTERS_MAX);
        xmlChar *id = property(ref, "idref");
        xmlChar *href = id ? href_of(manifest, id) : NULL;
        char *path = href ? resolve(package, (const char *)href) : NULL;
        if (path)
            err = chapter(records, archive, path, msg);
        free(path);
        xmlFree(href);
        xmlFree(id);
    }
    return err;
}

enum hd_err hd_kb__parse_epub(struct hd_buf *records, const char *data, size_t len,
                              struct hd_errmsg *msg)
{
    struct hd_kb__archive *archive = NULL;
    xmlDocPtr container = NULL, package = NULL;
    xmlChar *path = NULL;
    enum hd_err err = hd_kb__archive_open(&archive, data, len, msg);
    if (!err)
        err = read_xml(&container, archive, "META-INF/container.xml", msg);
    if (err == HD_ERR_NOTFOUND)
        err = hd_fail(msg, HD_ERR_FORMAT, "not an EPUB (no META-INF/container.xml in it)");
    if (err)
        goto out;
    const xmlNode *rootfile =
        child(child(xmlDocGetRootElement(container), "rootfiles"), "rootfile");
    path = rootfile ? property(rootfile, "full-path") : NULL;
    if (!path) {
        err = hd_fail(msg, HD_ERR_FORMAT, "META-INF/container.xml: it names no package");
        goto out;
    }
    err = read_xml(&package, archive, (const char *)path, msg);
    if (!err)
        err = spine(records, archive, package, (const char *)path, msg);
out:
    xmlFree(path);
    if (container)
        xmlFreeDoc(container);
    if (package)
        xmlFreeDoc(package);
    hd_kb__archive_close(archive);
    return err;
}
