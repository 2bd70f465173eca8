/* See search.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "kb/index.h"
#include "kb/search.h"

#ifndef HD_KB_K1
#define HD_KB_K1 1.2
#endif
#ifndef HD_KB_B
#define HD_KB_B 0.75
#endif
#ifndef HD_KB_HEADING
#define HD_KB_HEADING 0.5
#endif
#ifndef HD_KB_LONG
#define HD_KB_LONG 0.2 /* a dictionary word beside the pairs it is made of */
#endif
#ifndef HD_KB_PART
#define HD_KB_PART 0.6 /* a part of a code beside the whole */
#endif

enum { TOP_MAX = 10000 };

/* --- the map ------------------------------------------------------------------------------ */

void hd_kb__map_dispose(struct hd_kb__map *map)
{
    for (size_t i = 0; i < map->n_doc; i++)
        free(map->docs[i].groups);
    free(map->docs);
    free(map->chunk);
    free(map->doc);
    free(map->n_term);
    memset(map, 0, sizeof *map);
    map->version = -1;
}

static enum hd_err load_docs(struct hd_kb *kb, struct hd_kb__map *map, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(kb->store.db, "SELECT id, groups FROM documents ORDER BY id", -1, &st,
                           NULL))
        return hd_kb__sql_fail(&kb->store, msg);
    size_t cap = 0;
    int rc;
    enum hd_err err = HD_OK;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (map->n_doc == cap) {
            cap = cap ? cap * 2 : 64;
            struct hd_kb__map_doc *docs = realloc(map->docs, cap * sizeof *docs);
            if (!docs) {
                err = HD_ERR_NOMEM;
                break;
            }
            map->docs = docs;
        }
        const char *groups = (const char *)sqlite3_column_text(st, 1);
        struct hd_kb__map_doc doc = {sqlite3_column_int64(st, 0), strdup(groups ? groups : "")};
        if (!doc.groups) {
            err = HD_ERR_NOMEM;
            break;
        }
        map->docs[map->n_doc++] = doc;
    }
    if (!err && rc != SQLITE_DONE)
        err = hd_kb__sql_fail(&kb->store, msg);
    sqlite3_finalize(st);
    return err;
}

static size_t doc_index(const struct hd_kb__map *map, int64_t id)
{
    size_t lo = 0, hi = map->n_doc;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (map->docs[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static enum hd_err load_chunks(struct hd_kb *kb, struct hd_kb__map *map, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(&kb->store, HD_KB__ST_CHUNK_ALL,
                                   "SELECT id, doc, n_term FROM chunks ORDER BY id", msg);
    if (!st)
        return HD_ERR_IO;
    size_t cap = 0;
    double total = 0;
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (map->n == cap) {
            cap = cap ? cap * 2 : 1024;
            int64_t *chunk = realloc(map->chunk, cap * sizeof *chunk);
            if (chunk)
                map->chunk = chunk;
            uint32_t *doc = realloc(map->doc, cap * sizeof *doc);
            if (doc)
                map->doc = doc;
            uint32_t *n_term = realloc(map->n_term, cap * sizeof *n_term);
            if (n_term)
                map->n_term = n_term;
            if (!chunk || !doc || !n_term) {
                sqlite3_reset(st);
                return HD_ERR_NOMEM;
            }
        }
        size_t doc = doc_index(map, sqlite3_column_int64(st, 1));
        if (doc >= map->n_doc)
            continue; /* a chunk without a document: hd_kb__store_check reports it */
        map->chunk[map->n] = sqlite3_column_int64(st, 0);
        map->doc[map->n] = (uint32_t)doc;
        map->n_term[map->n] = (uint32_t)sqlite3_column_int64(st, 2);
        total += map->n_term[map->n++];
    }
    map->mean_term = map->n && total > 0 ? total / (double)map->n : 1;
    enum hd_err err = rc == SQLITE_DONE ? HD_OK : hd_kb__sql_fail(&kb->store, msg);
    sqlite3_reset(st);
    return err;
}

/* Brings the map to the version that the open transaction sees. */
static enum hd_err refresh_map(struct hd_kb *kb, int64_t version, struct hd_errmsg *msg)
{
    if (kb->map.version == version)
        return HD_OK;
    hd_kb__map_dispose(&kb->map);
    enum hd_err err = load_docs(kb, &kb->map, msg);
    if (!err)
        err = load_chunks(kb, &kb->map, msg);
    if (err)
        hd_kb__map_dispose(&kb->map);
    else
        kb->map.version = version;
    return err;
}

/* --- the query ---------------------------------------------------------------------------- */

void hd_kb__query_dispose(struct hd_kb__query *query)
{
    hd_kb__terms_dispose(&query->terms);
    free(query->items);
    query->items = NULL;
    query->n = 0;
}

static double kind_weight(const struct hd_kb__term *term)
{
    if (term->kind == HD_KB__TERM_LONG)
        return HD_KB_LONG;
    return term->part ? HD_KB_PART : 1;
}

/* Adds the distinct terms of one text. Their bytes stay in query->terms (the first text's) only
 * where `keep`. */
static enum hd_err add_terms(struct hd_kb *kb, struct hd_kb__query *query,
                             const struct hd_kb__terms *terms, double weight, bool keep,
                             struct hd_errmsg *msg)
{
    struct hd_kb__query_term *items =
        realloc(query->items, (query->n + terms->n + 1) * sizeof *items);
    if (!items)
        return HD_ERR_NOMEM;
    query->items = items;
    double n_chunk = (double)query->n_chunk;
    for (size_t i = 0; i < terms->n; i++) {
        struct hd_kb__term_ref ref;
        enum hd_err err = hd_kb__term_find(&kb->store, hd_kb__term_text(terms, i),
                                           terms->items[i].len, &ref, msg);
        if (err)
            return err;
        if (!ref.id && !keep)
            continue;
        size_t j = 0;
        while (j < query->n &&
               (ref.id ? items[j].id != ref.id
                       : items[j].id || strcmp(hd_kb__term_text(&query->terms, items[j].term),
                                               hd_kb__term_text(terms, i)) != 0))
            j++;
        if (j < query->n)
            continue;
        double df = (double)ref.df;
        items[query->n++] =
            (struct hd_kb__query_term){.id = ref.id,
                                       .df = ref.df,
                                       .idf = log(1 + (n_chunk - df + 0.5) / (df + 0.5)),
                                       .weight = weight * kind_weight(&terms->items[i]),
                                       .term = keep ? (uint32_t)i : UINT32_MAX};
    }
    return HD_OK;
}

static enum hd_err make_query(struct hd_kb *kb, struct hd_kb__query *query,
                              const struct hd_kb__query_text *texts, size_t n_text,
                              struct hd_errmsg *msg)
{
    query->n_chunk = (int64_t)kb->map.n;
    enum hd_err err = HD_OK;
    struct hd_kb__terms more;
    hd_kb__terms_init(&more);
    for (size_t i = 0; i < n_text && !err; i++) {
        struct hd_kb__terms *terms = i ? &more : &query->terms;
        const char *text = texts[i].text;
        err = hd_kb__analyse(kb->analyser, terms, text, strlen(text), HD_KB__QUERY);
        /* "谁?" alone, "what is it": better all words than none. */
        if (!err && i == 0 && terms->n == 0)
            err = hd_kb__analyse(kb->analyser, terms, text, strlen(text), 0);
        if (!err)
            err = add_terms(kb, query, terms, texts[i].weight, i == 0, msg);
    }
    hd_kb__terms_dispose(&more);
    return err;
}

/* --- scoring ------------------------------------------------------------------------------ */

struct scan {
    const struct hd_kb__map *map;
    const bool *visible; /* [n_doc] */
    float *score;        /* [n chunks] */
    double weight;       /* of the term being scanned, with idf */
    size_t at;           /* postings ascend: where the last one was found */
};

static void score_posting(void *ud, int64_t chunk, uint32_t n_text, uint32_t n_heading)
{
    struct scan *scan = ud;
    const struct hd_kb__map *map = scan->map;
    size_t lo = scan->at, hi = lo + 1;
    while (hi < map->n && map->chunk[hi] < chunk) { /* gallop, then halve */
        size_t step = hi - lo;
        lo = hi;
        hi += step * 2;
    }
    if (hi > map->n)
        hi = map->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (map->chunk[mid] < chunk)
            lo = mid + 1;
        else
            hi = mid;
    }
    scan->at = lo < map->n ? lo : scan->at;
    if (lo >= map->n || map->chunk[lo] != chunk || !scan->visible[map->doc[lo]])
        return;
    double norm = 1 - HD_KB_B + HD_KB_B * map->n_term[lo] / map->mean_term;
    double tf = n_text / norm + HD_KB_HEADING * n_heading;
    scan->score[lo] += (float)(scan->weight * tf * (HD_KB_K1 + 1) / (tf + HD_KB_K1));
}

struct ranked {
    float score;
    uint32_t slot;
};

static int best_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Chunks with a score, best first; per document only the best unless `passages`. */
static enum hd_err rank(const struct scan *scan, const struct hd_kb_search_options *options,
                        struct ranked **out, size_t *n_out)
{
    const struct hd_kb__map *map = scan->map;
    size_t n = 0, top = options->top && options->top < TOP_MAX ? options->top : TOP_MAX;
    struct ranked *ranked = malloc((map->n ? map->n : 1) * sizeof *ranked);
    bool *seen = calloc(map->n_doc + 1, 1);
    if (!ranked || !seen) {
        free(ranked);
        free(seen);
        return HD_ERR_NOMEM;
    }
    for (size_t i = 0; i < map->n; i++)
        if (scan->score[i] > 0)
            ranked[n++] = (struct ranked){scan->score[i], (uint32_t)i};
    qsort(ranked, n, sizeof *ranked, best_first);
    size_t kept = 0;
    for (size_t i = 0; i < n && kept < top; i++) {
        uint32_t doc = map->doc[ranked[i].slot];
        if (!options->passages && seen[doc])
            continue;
        seen[doc] = true;
        ranked[kept++] = ranked[i];
    }
    free(seen);
    *out = ranked;
    *n_out = kept;
    return HD_OK;
}

static char *column_text(sqlite3_stmt *st, int column)
{
    const unsigned char *text = sqlite3_column_text(st, column);
    return strdup(text ? (const char *)text : "");
}

/* A piece of a document's stored text, without loading the rest of it. */
static enum hd_err read_range(struct hd_kb *kb, int64_t doc, int64_t at, int64_t len, char **out,
                              struct hd_errmsg *msg)
{
    sqlite3_blob *blob = NULL;
    if (sqlite3_blob_open(kb->store.db, "main", "documents", "text", doc, 0, &blob)) {
        sqlite3_blob_close(blob);
        return hd_kb__sql_fail(&kb->store, msg);
    }
    enum hd_err err = HD_OK;
    if (at < 0 || len < 0 || at + len > sqlite3_blob_bytes(blob))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s/kb.db: a passage lies outside its document",
                      kb->folder);
    else if (!(*out = calloc(1, (size_t)len + 1)))
        err = HD_ERR_NOMEM;
    else if (sqlite3_blob_read(blob, *out, (int)len, (int)at))
        err = hd_kb__sql_fail(&kb->store, msg);
    sqlite3_blob_close(blob);
    return err;
}

static enum hd_err fetch_hit(struct hd_kb *kb, int64_t chunk, double score, struct hd_kb_hit *hit,
                             struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(
        &kb->store, HD_KB__ST_CHUNK_GET,
        "SELECT d.id, d.name, d.revision, c.page, c.cp_begin, c.cp_end, c.heading, c.at, c.len "
        "FROM chunks c JOIN documents d ON d.id = c.doc WHERE c.id = ?1",
        msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, chunk);
    if (sqlite3_step(st) != SQLITE_ROW)
        return hd_kb__sql_fail(&kb->store, msg);
    *hit = (struct hd_kb_hit){
        .document = {sqlite3_column_int64(st, 0), column_text(st, 1), column_text(st, 2)},
        .score = score,
        .chunk = chunk,
        .page = sqlite3_column_int64(st, 3),
        .span = {sqlite3_column_int64(st, 4), sqlite3_column_int64(st, 5)},
        .heading = column_text(st, 6)};
    int64_t at = sqlite3_column_int64(st, 7), len = sqlite3_column_int64(st, 8);
    sqlite3_reset(st);
    if (!hit->document.name || !hit->document.revision || !hit->heading)
        return HD_ERR_NOMEM;
    return read_range(kb, hit->document.id, at, len, &hit->text, msg);
}

static enum hd_err scan_all(struct hd_kb *kb, const struct hd_principal *who,
                            const struct hd_kb__query *query,
                            const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                            struct hd_errmsg *msg)
{
    const struct hd_kb__map *map = &kb->map;
    struct ranked *ranked = NULL;
    size_t n = 0;
    bool *visible = malloc(map->n_doc + 1);
    struct scan scan = {
        .map = map, .visible = visible, .score = calloc(map->n + 1, sizeof *scan.score)};
    enum hd_err err = visible && scan.score ? HD_OK : HD_ERR_NOMEM;
    for (size_t i = 0; i < map->n_doc && !err; i++)
        visible[i] = hd_kb__may_see(map->docs[i].groups, who);
    for (size_t i = 0; i < query->n && !err; i++) {
        if (!query->items[i].df)
            continue;
        scan.at = 0;
        scan.weight = query->items[i].idf * query->items[i].weight;
        err = hd_kb__postings(&kb->store, query->items[i].id, score_posting, &scan, msg);
    }
    if (!err)
        err = rank(&scan, options, &ranked, &n);
    if (!err && n) {
        out->items = calloc(n, sizeof *out->items);
        err = out->items ? HD_OK : HD_ERR_NOMEM;
    }
    for (size_t i = 0; i < n && !err; i++) {
        err = fetch_hit(kb, map->chunk[ranked[i].slot], ranked[i].score, &out->items[i], msg);
        out->n = i + 1;
    }
    free(ranked);
    free(visible);
    free(scan.score);
    return err;
}

enum hd_err hd_kb__search(struct hd_kb *kb, const struct hd_principal *who,
                          const struct hd_kb__query_text *texts, size_t n_text,
                          const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                          struct hd_kb__query *query, struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    memset(query, 0, sizeof *query);
    hd_kb__terms_init(&query->terms);
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (err)
        return err;
    pthread_mutex_lock(&kb->mu);
    err = hd_kb__begin(&kb->store, false, msg);
    if (!err)
        err = hd_kb__version(&kb->store, &out->version, msg);
    if (!err)
        err = refresh_map(kb, out->version, msg);
    if (!err)
        err = make_query(kb, query, texts, n_text, msg);
    if (!err)
        err = scan_all(kb, who, query, options, out, msg);
    hd_kb__end_read(&kb->store);
    pthread_mutex_unlock(&kb->mu);
    if (err)
        hd_kb_hits_dispose(out);
    return err;
}

enum hd_err hd_kb_search(struct hd_kb *kb, const struct hd_principal *who, const char *query,
                         const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                         struct hd_errmsg *msg)
{
    struct hd_kb__query_text text = {query, 1};
    struct hd_kb__query parsed;
    enum hd_err err = hd_kb__search(kb, who, &text, 1, options, out, &parsed, msg);
    hd_kb__query_dispose(&parsed);
    return err;
}

void hd_kb_hits_dispose(struct hd_kb_hits *hits)
{
    for (size_t i = 0; i < hits->n; i++) {
        free(hits->items[i].document.name);
        free(hits->items[i].document.revision);
        free(hits->items[i].heading);
        free(hits->items[i].text);
    }
    free(hits->items);
    memset(hits, 0, sizeof *hits);
}
