"""Small JPEG files by a decoder that is called alone, where one is installed: see `small`.

`head` reads what a file says of itself, `decoders` is the table of decoders, `small` decodes.
"""
