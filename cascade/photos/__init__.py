"""A person's own images: found, told apart from what is known already, read ahead of the stages.

Places (`finding`) give a stream of rows, `changes` says what is new among them, `ahead` reads and
prepares these in threads. `addresses` is how a row is opened again at any later time.
"""
