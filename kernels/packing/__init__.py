"""Weight formats, one module each, in plain torch: quantize, pack, unpack. Layouts are tested word by word."""
