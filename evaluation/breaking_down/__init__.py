"""Where the time from the bytes of a photograph to its embedding goes."""
