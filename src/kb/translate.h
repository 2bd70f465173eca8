/* A question in the documents' other language, by the model itself.
 *
 * Words do not meet across languages, so a base that answers in Chinese is not found by an English
 * question. Where a reading model finds nothing, the question is translated in one short request
 * and searched for again; what is found is read with the question as it was asked, so a poor
 * translation costs a passage but never changes the question. */
#ifndef HD_KB_TRANSLATE_H
#define HD_KB_TRANSLATE_H

#include "base/buf.h"
#include "kb/kb.h"

enum { HD_KB__TRANSLATE_MESSAGES = 7 };

struct hd_kb__translator {
    struct hd_message messages[HD_KB__TRANSLATE_MESSAGES];
    char *said[3]; /* owned: what the user says */
    struct hd_buf text;
    struct hd_request request;
};

/* From Chinese into English, from anything else into Chinese. model and who are borrowed. Dispose
 * even after an error. */
enum hd_err hd_kb__translator_init(struct hd_kb__translator *t, const char *question,
                                   const char *model, const struct hd_principal *who,
                                   double timeout_s);
void hd_kb__translator_feed(struct hd_kb__translator *t, const char *text, size_t len);
/* Once its request is done: the first line, trimmed; "" where there is none that could be a
 * translation. The translator's. */
const char *hd_kb__translator_text(struct hd_kb__translator *t);
void hd_kb__translator_dispose(struct hd_kb__translator *t);

#endif
