/* multilingual-e5-small as its package carries it (format "E5S1") into GGUF that llama.cpp reads
 * too: `bert` with mean pooling, a Unigram tokenizer with its normaliser as a precompiled_charsmap.
 *
 * E5S1, little endian: magic, u32 1; i32 hidden, layers, heads, ffn, vocab, positions, token types;
 * f32 epsilon; i32 32 (block) | i32 pieces, bos, eos, pad, unk; u64 bytes; u32 offsets[pieces + 1];
 * f32 scores[pieces]; the pieces' bytes | i32 n, u32 bytes, then n times u32 code point, u8 m, u32
 * replacement[m] | i32 tensors, each u16 length, name, u8 type (0 F32, 1 Q4_0), u32 elements, u64
 * offset in the file, u64 bytes. */
#ifndef HD_STORE_E5_CONVERT_H
#define HD_STORE_E5_CONVERT_H

#include "base/error.h"

/* Reads `path` piece by piece and writes GGUF to fd; weights are carried over bit for bit. Memory:
 * the tokenizer's few MB, whatever the file claims. The same input gives the same bytes. Errors
 * name the field or tensor. */
enum hd_err hd_e5_convert(int fd, const char *path, struct hd_errmsg *msg);

#endif
