// room: kb
/* The document parsers on hostile bytes: the first byte picks the format; what a parser gives must
 * read back and cut into passages that lie within the text. */
#include <stdint.h>
#include <stdlib.h>

#include "kb/chunk.h"
#include "kb/doc.h"
#include "kb/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const hd_kb__parse_fn parsers[] = {hd_kb__parse_html, hd_kb__parse_markdown,
                                              hd_kb__parse_docx, hd_kb__parse_epub,
                                              hd_kb__parse_text, hd_kb__parse_pages};
    if (size < 1 || size > 1 << 16)
        return 0;
    hd_kb__parse_fn parse = parsers[data[0] % (sizeof parsers / sizeof *parsers)];
    struct hd_buf records;
    struct hd_kb__doc doc;
    struct hd_kb__chunks chunks = {0};
    hd_buf_init(&records, HD_KB__TEXT_MAX);
    hd_kb__doc_init(&doc);
    if (!parse(&records, (const char *)data + 1, size - 1, NULL) &&
        !hd_kb__doc_read(&doc, hd_buf_str(&records), records.len, NULL) &&
        !hd_kb__chunk(&chunks, &doc))
        for (size_t i = 0; i < chunks.n; i++)
            if (chunks.items[i].begin >= chunks.items[i].end || chunks.items[i].end > doc.text.len)
                abort();
    hd_kb__chunks_dispose(&chunks);
    hd_kb__doc_dispose(&doc);
    hd_buf_dispose(&records);
    return 0;
}
