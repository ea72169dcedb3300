"""A person's own images: found, told apart from what is known already, read ahead of the stages.

Places (`finding`) give a stream of rows, `changes` says what is new among them, by what `identity`
says of their bytes; `preparing` reads these (`reading`, or no more than a thumbnail takes:
`sparing`) and prepares them, in threads. `addresses` is how a row is opened again at any later
time.
"""
