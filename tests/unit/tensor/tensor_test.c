/* Tensor handles: strides, row and column slices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tensor/tensor.h"

static void contiguous_strides(void **state)
{
    struct hd_tensor t = hd_tensor_at(NULL, 64, HD_F32, 10, 3, 5, 1);
    assert_int_equal(t.n_dim, 3);
    assert_int_equal(t.nb[0], 4);
    assert_int_equal(t.nb[1], 40);
    assert_int_equal(t.nb[2], 120);
    assert_int_equal(t.nb[3], 600);
    assert_int_equal(hd_tensor_elements(&t), 150);
    assert_int_equal(hd_tensor_bytes(&t), 600);
    t = hd_tensor_at(NULL, 0, HD_Q8_0, 64, 2, 1, 1);
    assert_int_equal(t.nb[1], 68);
    assert_int_equal(hd_tensor_bytes(&t), 136);
}

static void slices(void **state)
{
    struct hd_tensor t = hd_tensor_at(NULL, 0, HD_F32, 8, 4, 6, 1);
    struct hd_tensor r = hd_tensor_rows(t, 2, 3); /* of the last dimension used */
    assert_int_equal(r.offset, 2 * 128);
    assert_int_equal(r.ne[2], 3);
    assert_int_equal(r.ne[1], 4);
    struct hd_tensor c = hd_tensor_cols(r, 3, 5);
    assert_int_equal(c.offset, 2 * 128 + 12);
    assert_int_equal(c.ne[0], 5);
    assert_int_equal(c.nb[1], 32);
    struct hd_tensor m = hd_tensor_at(NULL, 0, HD_F32, 8, 4, 1, 1);
    r = hd_tensor_rows(m, 1, 2);
    assert_int_equal(r.offset, 32);
    assert_int_equal(r.ne[1], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contiguous_strides),
        cmocka_unit_test(slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
