"""Photographs as people have them, made of pictures: camera files and web-sized ones.

`python -m demo.photographs` writes them.
"""
