/* Passages from blocks. See chunk.h. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "kb/chunk.h"

/* The smallest piece that is never cut. */
struct unit {
    size_t begin, end, tokens;
    int64_t page;
    size_t section; /* index into sections */
    size_t block;   /* tokens of the whole block, on its first unit; else 0 */
    bool heading;
};

struct section {
    int level;         /* 0 before the first heading */
    size_t parent;     /* index; itself for the first */
    size_t begin, end; /* of the heading's text */
};

struct work {
    const struct hd_kb__doc *doc;
    struct unit *units;
    size_t n_unit, cap_unit;
    struct section *sections;
    size_t n_section, cap_section;
};

static void *grow(void *list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return list;
    size_t grown = *cap ? *cap * 2 : 64;
    void *p = realloc(list, grown * size);
    if (p)
        *cap = grown;
    return p;
}

static enum hd_err add_unit(struct work *w, size_t begin, size_t end, int64_t page, size_t section,
                            bool heading)
{
    struct unit *units = grow(w->units, w->n_unit, &w->cap_unit, sizeof *units);
    if (!units)
        return HD_ERR_NOMEM;
    w->units = units;
    w->units[w->n_unit++] =
        (struct unit){.begin = begin,
                      .end = end,
                      .tokens = hd_kb__estimate_tokens(w->doc->text.data + begin, end - begin),
                      .page = page,
                      .section = section,
                      .heading = heading};
    return HD_OK;
}

static enum hd_err add_section(struct work *w, const struct hd_kb__block *block, size_t *current)
{
    struct section *sections = grow(w->sections, w->n_section, &w->cap_section, sizeof *sections);
    if (!sections)
        return HD_ERR_NOMEM;
    w->sections = sections;
    size_t parent = *current;
    while (w->sections[parent].level >= block->level)
        parent = w->sections[parent].parent;
    *current = w->n_section;
    w->sections[w->n_section++] = (struct section){
        .level = block->level, .parent = parent, .begin = block->begin, .end = block->end};
    return HD_OK;
}

/* A sentence far above the target is cut at semicolons or commas, else at characters. */
static size_t soft_end(const char *s, size_t len)
{
    enum { HARD_MAX = 4 * HD_KB__CHUNK_TARGET };
    enum { LOOK = 8192 }; /* bytes that surely hold more than HARD_MAX tokens */
    if (hd_kb__estimate_tokens(s, len < LOOK ? len : LOOK) <= HARD_MAX)
        return len;
    size_t limit = 0, soft = 0;
    while (limit < len && hd_kb__estimate_tokens(s, limit) < HD_KB__CHUNK_TARGET) {
        size_t step = 64 < len - limit ? hd_utf8_complete(s + limit, 64) : len - limit;
        if (!step)
            step = 1;
        for (size_t i = limit; i < limit + step; i++) {
            if (s[i] == ' ' || s[i] == ';' || s[i] == ',')
                soft = i + 1;
            else if (i + 3 <= len && (!memcmp(s + i, "；", 3) || !memcmp(s + i, "，", 3)))
                soft = i + 3;
        }
        limit += step;
    }
    return soft ? soft : limit;
}

static enum hd_err add_sentences(struct work *w, const struct hd_kb__block *block, size_t section)
{
    size_t first = w->n_unit;
    const char *text = w->doc->text.data;
    enum hd_err err = HD_OK;
    for (size_t at = block->begin; at < block->end && !err;) {
        size_t len = block->end - at;
        /* A row or a code line is one piece whatever marks it holds. */
        size_t n = block->kind == HD_KB__ROW ? len : hd_kb__sentence_end(text + at, len);
        for (size_t end = at + n; at < end && !err;) {
            size_t cut = at + soft_end(text + at, end - at);
            err = add_unit(w, at, cut, block->page, section, false);
            at = cut;
        }
    }
    for (size_t i = first; i < w->n_unit; i++)
        w->units[first].block += w->units[i].tokens;
    return err;
}

static enum hd_err cut_units(struct work *w)
{
    struct hd_kb__block none = {.level = 0};
    w->sections = grow(NULL, 0, &w->cap_section, sizeof *w->sections);
    if (!w->sections)
        return HD_ERR_NOMEM;
    w->sections[w->n_section++] = (struct section){.level = none.level, .parent = 0};
    size_t current = 0;
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < w->doc->n_block && !err; i++) {
        const struct hd_kb__block *block = &w->doc->blocks[i];
        if (block->kind == HD_KB__HEADING) {
            err = add_section(w, block, &current);
            if (!err)
                err = add_unit(w, block->begin, block->end, block->page, current, true);
        } else {
            err = add_sentences(w, block, current);
        }
    }
    return err;
}

/* "Title > Chapter > Section"; the title is left out where a heading repeats it. */
static char *heading_path(const struct work *w, size_t section)
{
    size_t path[16], n = 0;
    for (size_t s = section; s != 0 && n < 16; s = w->sections[s].parent)
        path[n++] = s;
    struct hd_buf buf;
    hd_buf_init(&buf, 8192);
    const char *title = w->doc->title;
    const char *text = w->doc->text.data;
    bool repeated = false;
    for (size_t i = 0; i < n; i++) {
        const struct section *s = &w->sections[path[i]];
        repeated |= s->end - s->begin == strlen(title) &&
                    !memcmp(text + s->begin, title, s->end - s->begin);
    }
    if (title[0] && !repeated)
        hd_buf_puts(&buf, title);
    while (n-- > 0) {
        const struct section *s = &w->sections[path[n]];
        size_t len = s->end - s->begin;
        if (buf.len)
            hd_buf_puts(&buf, " > ");
        hd_buf_append(&buf, text + s->begin,
                      len > 300 ? hd_utf8_complete(text + s->begin, 300) : len);
    }
    char *taken = buf.err ? NULL : strdup(hd_buf_str(&buf));
    hd_buf_dispose(&buf);
    return taken;
}

/* Whether a passage of `tokens` so far ends before unit i. */
enum { LIMIT = HD_KB__CHUNK_TARGET + HD_KB__CHUNK_TARGET / 7 };
static bool cuts_before(const struct work *w, size_t first, size_t i, size_t tokens, bool whole)
{
    const struct unit *unit = &w->units[i], *before = &w->units[i - 1];
    if (unit->page != before->page)
        return true;
    if (before->heading)
        return false; /* a heading stays with what follows */
    if (whole)
        return false;
    if (tokens + unit->tokens > LIMIT)
        return true;
    /* A paragraph that will not fit whole goes to the next passage, if this one is half full. */
    if (unit->block && tokens >= HD_KB__CHUNK_TARGET / 2 && tokens + unit->block > LIMIT &&
        unit->block <= LIMIT)
        return true;
    /* A new section begins a new passage, unless what there is so far is tiny. */
    return unit->section != w->units[first].section && unit->heading &&
           tokens >= HD_KB__CHUNK_TARGET / 4;
}

static size_t common_section(const struct work *w, size_t a, size_t b)
{
    while (a != b) { /* parents have smaller indexes */
        if (a > b)
            a = w->sections[a].parent;
        else
            b = w->sections[b].parent;
    }
    return a;
}

static enum hd_err add_chunk(struct hd_kb__chunks *out, const struct work *w, size_t first,
                             size_t end)
{
    struct hd_kb__chunk *items = grow(out->items, out->n, &out->cap, sizeof *items);
    if (!items)
        return HD_ERR_NOMEM;
    out->items = items;
    /* Where a passage opens with a heading and stays under it, that heading is its own. */
    size_t section = w->units[first].section;
    for (size_t i = first + 1; i < end; i++)
        section = common_section(w, section, w->units[i].section);
    const char *text = w->doc->text.data;
    struct hd_kb__chunk chunk = {
        .begin = w->units[first].begin, .end = w->units[end - 1].end, .page = w->units[first].page};
    while (chunk.end > chunk.begin && (text[chunk.end - 1] == ' ' || text[chunk.end - 1] == '\n'))
        chunk.end--;
    chunk.heading = heading_path(w, section);
    if (!chunk.heading)
        return HD_ERR_NOMEM;
    const struct hd_kb__chunk *before = out->n ? &out->items[out->n - 1] : NULL;
    size_t from = before ? before->end : 0, cp = before ? before->cp_end : 0;
    chunk.cp_begin = cp + hd_utf8_count(text + from, chunk.begin - from);
    chunk.cp_end = chunk.cp_begin + hd_utf8_count(text + chunk.begin, chunk.end - chunk.begin);
    out->items[out->n++] = chunk;
    return HD_OK;
}

enum hd_err hd_kb__chunk(struct hd_kb__chunks *out, const struct hd_kb__doc *doc)
{
    struct work w = {.doc = doc};
    memset(out, 0, sizeof *out);
    enum hd_err err = cut_units(&w);
    size_t total = 0, first = 0, tokens = 0;
    for (size_t i = 0; i < w.n_unit; i++)
        total += w.units[i].tokens;
    for (size_t i = 0; i < w.n_unit && !err; i++) {
        if (i > first && cuts_before(&w, first, i, tokens, total <= HD_KB__CHUNK_WHOLE)) {
            err = add_chunk(out, &w, first, i);
            first = i;
            tokens = 0;
        }
        tokens += w.units[i].tokens;
    }
    if (!err && first < w.n_unit)
        err = add_chunk(out, &w, first, w.n_unit);
    free(w.units);
    free(w.sections);
    if (err)
        hd_kb__chunks_dispose(out);
    return err;
}

void hd_kb__chunks_dispose(struct hd_kb__chunks *chunks)
{
    for (size_t i = 0; i < chunks->n; i++)
        free(chunks->items[i].heading);
    free(chunks->items);
    memset(chunks, 0, sizeof *chunks);
}
