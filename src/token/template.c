/* What an encoder reads: its special tokens around one text or a pair, cut to fit. */
#include <stdlib.h>
#include <string.h>

#include "token/token_impl.h"

/* --- from tokenizer.json ---------------------------------------------------------------------- */

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

static enum hd_err push(struct hd_token__template *template, enum hd_token__part_kind kind,
                        int32_t id, json_int_t type)
{
    if (template->n == HD_TOKEN_MAX_PARTS || type < 0 || type > 1)
        return HD_ERR_UNSUPPORTED;
    template->part[template->n++] =
        (struct hd_token__part){.kind = kind, .id = id, .type = (uint8_t)type};
    return HD_OK;
}

/* A special token stands for the ids that special_tokens lists. */
static enum hd_err push_special(const struct hd_tokenizer *tok, struct hd_token__template *template,
                                json_t *special, json_t *list, json_int_t type)
{
    const char *name = json_string_value(json_object_get(special, "id"));
    json_t *ids = name ? json_object_get(json_object_get(list, name), "ids") : NULL;
    enum hd_err err = json_array_size(ids) ? HD_OK : HD_ERR_FORMAT;
    for (size_t i = 0; i < json_array_size(ids) && !err; i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (!json_is_integer(json_array_get(ids, i)) || id < 0 || (size_t)id >= tok->vocab.n)
            return HD_ERR_FORMAT;
        err = push(template, HD_PART_SPECIAL, (int32_t)id, type);
    }
    return err;
}

static enum hd_err read_parts(const struct hd_tokenizer *tok, struct hd_token__template *template,
                              json_t *parts, json_t *list)
{
    enum hd_err err = HD_OK;
    template->n = 0;
    for (size_t i = 0; i < json_array_size(parts) && !err; i++) {
        json_t *part = json_array_get(parts, i);
        json_t *special = json_object_get(part, "SpecialToken");
        json_t *sequence = json_object_get(part, "Sequence");
        json_int_t type =
            json_integer_value(json_object_get(special ? special : sequence, "type_id"));
        const char *which = json_string_value(json_object_get(sequence, "id"));
        if (special)
            err = push_special(tok, template, special, list, type);
        else if (which && (!strcmp(which, "A") || !strcmp(which, "B")))
            err = push(template, *which == 'A' ? HD_PART_A : HD_PART_B, -1, type);
        else
            err = HD_ERR_FORMAT;
    }
    return err;
}

static size_t count(const struct hd_token__template *template, enum hd_token__part_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < template->n; i++)
        n += template->part[i].kind == kind;
    return n;
}

/* ["</s>", 2] in BertProcessing and RobertaProcessing. */
static int32_t named_id(const struct hd_tokenizer *tok, json_t *pair)
{
    json_t *id = json_array_get(pair, 1);
    bool fits = json_is_integer(id) && json_integer_value(id) >= 0 &&
                (size_t)json_integer_value(id) < tok->vocab.n;
    return fits ? (int32_t)json_integer_value(id) : -1;
}

static enum hd_err read_processor(struct hd_tokenizer *tok, json_t *post, int depth,
                                  struct hd_errmsg *msg)
{
    const char *type = type_of(post);
    if (!strcmp(type, "Sequence") && depth < 4) {
        json_t *list = json_object_get(post, "processors");
        enum hd_err err = HD_OK;
        for (size_t i = 0; i < json_array_size(list) && !err; i++)
            err = read_processor(tok, json_array_get(list, i), depth + 1, msg);
        return err;
    }
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing")) {
        bool roberta = *type == 'R';
        int32_t cls = named_id(tok, json_object_get(post, "cls"));
        int32_t sep = named_id(tok, json_object_get(post, "sep"));
        if (cls < 0 || sep < 0)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: %s without cls and sep", type);
        hd_token__template_ids(tok, cls, sep, roberta ? sep : -1, !roberta);
        return HD_OK;
    }
    if (!strcmp(type, "ByteLevel"))
        return HD_OK;
    if (strcmp(type, "TemplateProcessing") != 0)
        return hd_token__json_unsupported(msg, "post_processor", type);
    json_t *list = json_object_get(post, "special_tokens");
    if (read_parts(tok, &tok->single, json_object_get(post, "single"), list) ||
        read_parts(tok, &tok->pair, json_object_get(post, "pair"), list) ||
        count(&tok->single, HD_PART_A) != 1 || count(&tok->single, HD_PART_B) ||
        count(&tok->pair, HD_PART_A) > 1 || count(&tok->pair, HD_PART_B) > 1)
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: post_processor: no usable template");
    return HD_OK;
}

enum hd_err hd_token__template_json(struct hd_tokenizer *tok, json_t *post, struct hd_errmsg *msg)
{
    return !post || json_is_null(post) ? HD_OK : read_processor(tok, post, 0, msg);
}

void hd_token__template_ids(struct hd_tokenizer *tok, int32_t first, int32_t last, int32_t middle,
                            uint8_t type)
{
    struct hd_token__template *single = &tok->single, *pair = &tok->pair;
    single->n = pair->n = 0;
    if (first >= 0)
        push(single, HD_PART_SPECIAL, first, 0);
    push(single, HD_PART_A, -1, 0);
    if (last >= 0)
        push(single, HD_PART_SPECIAL, last, 0);
    *pair = *single;
    if (middle >= 0)
        push(pair, HD_PART_SPECIAL, middle, 0);
    push(pair, HD_PART_B, -1, type);
    if (last >= 0)
        push(pair, HD_PART_SPECIAL, last, type);
}

/* --- putting together ------------------------------------------------------------------------- */

bool hd_tokenizer_has_pairs(const struct hd_tokenizer *tok)
{
    return count(&tok->pair, HD_PART_A) == 1 && count(&tok->pair, HD_PART_B) == 1;
}

/* The tokenizers library's longest_first: both lengths are cut so that they add up to max. */
static void cut_longest(size_t *n_a, size_t *n_b, size_t max)
{
    size_t low = *n_a < *n_b ? *n_a : *n_b, high;
    if (*n_a + *n_b <= max)
        return;
    high = low > max ? low : low > max - low ? low : max - low;
    if (low + high > max) {
        low = max / 2;
        high = low + max % 2;
    }
    bool a_first = *n_a <= *n_b;
    *n_a = a_first ? low : high;
    *n_b = a_first ? high : low;
}

static enum hd_err put(struct hd_ids *out, struct hd_ids *types, const int32_t *id, size_t n,
                       uint8_t type)
{
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < n && !err; i++) {
        err = hd_ids_push(out, id[i]);
        if (!err && types)
            err = hd_ids_push(types, type);
    }
    return err;
}

enum hd_err hd_tokenizer_encode_input(const struct hd_tokenizer *tok, struct hd_ids *out,
                                      struct hd_ids *types, const struct hd_token_input *input,
                                      size_t *n_cut)
{
    const struct hd_token__template *template = input->pair ? &tok->pair : &tok->single;
    struct hd_token__template plain = {.n = 0};
    struct hd_ids a, b;
    size_t n_a = 0, n_b = 0;
    if (n_cut)
        *n_cut = 0;
    if (input->pair && !hd_tokenizer_has_pairs(tok))
        return HD_ERR_UNSUPPORTED;
    if (!template->n) {
        if (tok->bos >= 0)
            push(&plain, HD_PART_SPECIAL, tok->bos, 0);
        push(&plain, HD_PART_A, -1, 0);
        template = &plain;
    }
    size_t n_special = count(template, HD_PART_SPECIAL);
    if (input->max && input->max < n_special)
        return HD_ERR_INVALID;
    hd_ids_init(&a, HD_TOKEN_MAX_TEXT);
    hd_ids_init(&b, HD_TOKEN_MAX_TEXT);
    enum hd_err err = hd_tokenizer_encode(tok, &a, input->text, input->len, false);
    if (!err && input->pair)
        err = hd_tokenizer_encode(tok, &b, input->pair, input->pair_len, false);
    n_a = a.n;
    n_b = b.n;
    if (input->max)
        cut_longest(&n_a, &n_b, input->max - n_special);
    for (size_t i = 0; i < template->n && !err; i++) {
        const struct hd_token__part *part = &template->part[i];
        if (part->kind == HD_PART_SPECIAL)
            err = put(out, types, &part->id, 1, part->type);
        else
            err = part->kind == HD_PART_A ? put(out, types, a.id, n_a, part->type)
                                          : put(out, types, b.id, n_b, part->type);
    }
    if (!err && n_cut)
        *n_cut = a.n - n_a + b.n - n_b;
    hd_ids_dispose(&a);
    hd_ids_dispose(&b);
    return err;
}
