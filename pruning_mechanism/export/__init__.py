"""`python -m pruning_mechanism.export`: another name of the command `compress.export`.

What exports a tower is `pruning_mechanism.runtimes`; the command calibrates int8 on a corpus, which
is a floor above.
"""
