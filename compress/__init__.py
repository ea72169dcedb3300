"""The rules that decide what a tower can do without, and what they share.

Each rule is a module with a library function and a command of the same name: `scores` and `select`
make a mask; calibration, importance, repair and the command's frame are common to all.
"""
