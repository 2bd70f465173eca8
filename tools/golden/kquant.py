"""Plain quantisers for the block types that the `gguf` package can only decode.

They exist to make test files, not to make good ones: every block takes its scale from its own range
and nothing is searched for. Layouts: model-file block formats of GGUF (Q4_K, Q5_K, Q6_K), checked in
make_tiny.py against the package's own decoder.
"""
import numpy as np

BLOCK = 256


def _f16(x):
    return x.astype(np.float16)


def _pack_scale_min(sc, mn):
    """Eight 6-bit scales and eight 6-bit minima per block in 12 bytes."""
    out = np.zeros((sc.shape[0], 12), np.uint8)
    lo_s, hi_s, lo_m, hi_m = sc[:, :4], sc[:, 4:], mn[:, :4], mn[:, 4:]
    out[:, 0:4] = lo_s | ((hi_s >> 4) << 6)
    out[:, 4:8] = lo_m | ((hi_m >> 4) << 6)
    out[:, 8:12] = (hi_s & 15) | ((hi_m & 15) << 4)
    return out


def _q45_k(w, levels):
    """Common part of Q4_K and Q5_K: (d, dmin, packed scales, integer levels [n, 8, 32])."""
    b = w.reshape(-1, 8, 32).astype(np.float64)
    mn = np.minimum(b.min(-1), 0)
    scale = (b.max(-1) - mn) / levels
    d = _f16(scale.max(-1, keepdims=True) / 63)
    dmin = _f16((-mn).max(-1, keepdims=True) / 63)
    with np.errstate(divide="ignore", invalid="ignore"):
        sc = np.nan_to_num(np.rint(scale / d.astype(np.float64))).clip(0, 63)
        m = np.nan_to_num(np.rint(-mn / dmin.astype(np.float64))).clip(0, 63)
        step = (d * sc)[..., None]
        q = np.nan_to_num((b + (dmin * m)[..., None]) / step)
    q = np.rint(q).clip(0, levels).astype(np.uint8)
    return d, dmin, _pack_scale_min(sc.astype(np.uint8), m.astype(np.uint8)), q


def q4_k(w):
    d, dmin, scales, q = _q45_k(w, 15)
    pairs = q.reshape(-1, 4, 2, 32)
    qs = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    return np.hstack([d.view(np.uint8), dmin.view(np.uint8), scales, qs])


def q5_k(w):
    d, dmin, scales, q = _q45_k(w, 31)
    pairs = (q & 15).reshape(-1, 4, 2, 32)
    qs = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    qh = np.zeros((q.shape[0], 32), np.uint8)
    for j in range(8):
        qh |= (q[:, j] >> 4) << j
    return np.hstack([d.view(np.uint8), dmin.view(np.uint8), scales, qh, qs])


def q6_k(w):
    b = w.reshape(-1, 16, 16).astype(np.float64)
    scale = np.abs(b).max(-1) / 31
    d = _f16(scale.max(-1, keepdims=True) / 127)
    with np.errstate(divide="ignore", invalid="ignore"):
        sc = np.nan_to_num(np.rint(scale / d.astype(np.float64))).clip(-128, 127)
        q = np.nan_to_num(b / (d * sc)[..., None])
    q = (np.rint(q).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    ql = np.stack([low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)], axis=2)
    qh = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    return np.hstack([ql.reshape(-1, 128), qh.reshape(-1, 64),
                      sc.astype(np.int8).view(np.uint8), d.view(np.uint8)])


def quantize_rows(w, fn):
    """[rows, n] float → [rows, bytes] uint8; n is a multiple of 256."""
    assert w.shape[-1] % BLOCK == 0
    return np.ascontiguousarray(fn(np.ascontiguousarray(w))).reshape(*w.shape[:-1], -1)
