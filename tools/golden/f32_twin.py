"""A GGUF file's F32 twin: the same metadata, every tensor decoded by the `gguf` package (MIT), an implementation of the
block formats that is independent of ours. One tensor at a time, so that real models fit.

    python tools/golden/f32_twin.py FILE.gguf TWIN.gguf
"""
import sys

import gguf
import numpy as np


def copy_metadata(reader, dst):
    """A writer with the reader's keys and values."""
    writer = gguf.GGUFWriter(dst, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub)
    return writer


def write(src, dst):
    reader = gguf.GGUFReader(src)
    writer = copy_metadata(reader, dst)
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        writer.add_tensor_info(t.name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for t in reader.tensors:
        writer.write_tensor_data(np.ascontiguousarray(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32))
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])
