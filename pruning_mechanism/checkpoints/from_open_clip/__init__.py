"""Models of open_clip, by its names of them, as Hugging Face directories.

`open_clip:NAME`, `open_clip:NAME:TAG`, `open_clip:NAME:FILE.safetensors`, `open_clip:DIRECTORY` (in
the layout of open_clip's models on the hub) and `open_clip:NAME:random` stand wherever a checkpoint
is named. What is named so is converted once, into this user's cache; whatever loads a checkpoint
asks `directory_of` where it lies. Data goes: naming → plain or whole, preparing → converting.
"""
