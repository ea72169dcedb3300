"""Tables of a paper: blocks of rows, the forms that they are written in, and their values."""
