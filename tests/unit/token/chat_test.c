/* Chat forms against what the published templates render (tests/golden/chat). */
#include "support.h"

static const struct form {
    const char *file;
    enum hd_chat_form form;
    const char *added[12]; /* tokens of the small tokenizer; "!" marks special ones */
    const char *config;
    int32_t first_special, bos; /* in the goldens: ids from here on, and bos, are special */
} forms[] = {
    {"deepseek-r1",
     HD_CHAT_DEEPSEEK_R1,
     {"!<｜begin▁of▁sentence｜>", "!<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
      "<think>", "</think>"},
     "{\"chat_template\": \"ns.is_first_sp\"}",
     128000,
     1},
    {"deepseek-r1-distill",
     HD_CHAT_DEEPSEEK_R1_DISTILL,
     {"!<｜begin▁of▁sentence｜>", "!<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
      "<think>", "</think>", "<|fim_prefix|>"},
     NULL,
     151643,
     -1},
    {"chatml",
     HD_CHAT_CHATML,
     {"!<|im_start|>", "!<|im_end|>", "!<|endoftext|>"},
     "{\"chat_template\": \"x '<|im_start|>system\\\\n' + m + '<|im_end|>' y "
     "'<|im_start|>system\\\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
     "assistant.<|im_end|>\\\\n' z\"}",
     151643,
     -1},
    {"llama3",
     HD_CHAT_LLAMA3,
     {"!<|begin_of_text|>", "!<|start_header_id|>", "!<|end_header_id|>", "!<|eot_id|>"},
     NULL,
     128000,
     -1},
};

static json_t *golden(const char *form)
{
    char path[512];
    snprintf(path, sizeof path, HD_TEST_ROOT "/golden/chat/%s.json", form);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    assert_true(json_array_size(json_object_get(root, "cases")) > 10);
    return root;
}

static enum hd_err render(const struct hd_tokenizer *tok, struct hd_ids *ids, json_t *c,
                          struct hd_errmsg *msg)
{
    struct hd_chat_message messages[32] = {0};
    json_t *list = json_object_get(c, "messages"), *options = json_object_get(c, "options");
    size_t n = json_array_size(list);
    assert_true(n && n <= 32);
    for (size_t i = 0; i < n; i++) {
        json_t *m = json_array_get(list, i);
        messages[i].role = json_string_value(json_object_get(m, "role"));
        messages[i].content = json_string_value(json_object_get(m, "content"));
    }
    struct hd_chat_options o = {.no_think = json_is_true(json_object_get(options, "no_think"))};
    return hd_chat_render(tok, ids, messages, n, &o, msg);
}

static size_t golden_specials(const struct form *form, json_t *c)
{
    json_t *ids = json_object_get(c, "ids");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        count += id >= form->first_special || id <= form->bos;
    }
    return count;
}

/* On a small tokenizer: the rendered text, and as many special tokens as the reference places, so
 * that look-alikes inside messages are plain text. */
static void check_form(const struct form *form)
{
    struct kit kit;
    json_t *root = golden(form->file), *cases = json_object_get(root, "cases"), *c;
    size_t i;
    assert_int_equal(load_json(&kit, make_json(NULL, form->added), form->config), 0);
    assert_int_equal(hd_chat_form(kit.tok), form->form);
    assert_string_equal(hd_chat_form_name(form->form), form->file);
    json_array_foreach(cases, i, c)
    {
        struct hd_ids ids;
        struct hd_buf text;
        size_t n_special = 0;
        hd_ids_init(&ids, 1 << 20);
        hd_buf_init(&text, 1 << 20);
        assert_int_equal(render(kit.tok, &ids, c, &kit.msg), 0);
        for (size_t k = 0; k < ids.n; k++)
            n_special += ids.id[k] >= 256;
        assert_int_equal(hd_tokenizer_decode(kit.tok, &text, ids.id, ids.n, true, NULL), 0);
        assert_string_equal(text.data, json_string_value(json_object_get(c, "text")));
        assert_int_equal(n_special, golden_specials(form, c));
        hd_ids_dispose(&ids);
        hd_buf_dispose(&text);
    }
    json_decref(root);
    kit_free(&kit);
}

static void renders_r1(void **state)
{
    check_form(&forms[0]);
}

static void renders_r1_distill(void **state)
{
    check_form(&forms[1]);
}

static void renders_chatml(void **state)
{
    check_form(&forms[2]);
}

static void renders_llama3(void **state)
{
    check_form(&forms[3]);
}

/* Id by id, where the real tokenizer is here. */
static void check_ids(const struct form *form, const char *name)
{
    struct kit kit;
    char *path = real_tokenizer(name);
    json_t *root = golden(form->file), *cases = json_object_get(root, "cases"), *c;
    size_t i;
    if (!path) {
        print_message("skipped %s: no tokenizer %s (HOLDFAST_TOKENIZERS)\n", form->file, name);
        json_decref(root);
        return;
    }
    assert_int_equal(load_path(&kit, path), 0);
    assert_int_equal(hd_chat_form(kit.tok), form->form);
    json_array_foreach(cases, i, c)
    {
        struct hd_ids ids;
        json_t *want = json_object_get(c, "ids");
        hd_ids_init(&ids, 1 << 20);
        assert_int_equal(render(kit.tok, &ids, c, &kit.msg), 0);
        assert_int_equal(ids.n, json_array_size(want));
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(ids.id[k], json_integer_value(json_array_get(want, k)));
        hd_ids_dispose(&ids);
    }
    kit_free(&kit);
    json_decref(root);
    free(path);
}

static void real_tokenizers_give_the_reference_ids(void **state)
{
    check_ids(&forms[0], "deepseek_r1");
    check_ids(&forms[2], "qwen2_5");
    check_ids(&forms[3], "llama3_1");
}

static void refuses_what_it_cannot_render(void **state)
{
    static const char *const added[] = {"!<|im_start|>", "!<|im_end|>", NULL};
    struct kit kit;
    struct hd_ids ids;
    struct hd_chat_message wizard = {.role = "wizard", .content = "x"}, empty = {.role = "user"},
                           user = {.role = "user", .content = "x"};
    hd_ids_init(&ids, 100);
    assert_int_equal(load_json(&kit, make_json(NULL, added), NULL), 0);
    assert_int_equal(hd_chat_render(kit.tok, &ids, &wizard, 1, NULL, &kit.msg), HD_ERR_INVALID);
    assert_non_null(strstr(kit.msg.text, "messages[0].role"));
    assert_int_equal(hd_chat_render(kit.tok, &ids, &empty, 1, NULL, &kit.msg), HD_ERR_INVALID);
    kit_free(&kit);
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    assert_int_equal(hd_chat_form(kit.tok), HD_CHAT_NONE);
    assert_int_equal(hd_chat_render(kit.tok, &ids, &user, 1, NULL, &kit.msg), HD_ERR_UNSUPPORTED);
    assert_int_equal(ids.n, 0);
    kit_free(&kit);
    hd_ids_dispose(&ids);
}

static void limits_the_prompt(void **state)
{
    struct kit kit;
    struct hd_ids ids;
    struct hd_chat_message user = {.role = "user", .content = "far too long for five ids"};
    hd_ids_init(&ids, 5);
    assert_int_equal(load_json(&kit, make_json(NULL, forms[2].added), NULL), 0);
    assert_int_equal(hd_chat_render(kit.tok, &ids, &user, 1, NULL, &kit.msg), HD_ERR_LIMIT);
    kit_free(&kit);
    hd_ids_dispose(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_r1),
        cmocka_unit_test(renders_r1_distill),
        cmocka_unit_test(renders_chatml),
        cmocka_unit_test(renders_llama3),
        cmocka_unit_test(real_tokenizers_give_the_reference_ids),
        cmocka_unit_test(refuses_what_it_cannot_render),
        cmocka_unit_test(limits_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
