"""What makes a cascade last: a view of a store in memory, promotions on their way to it, records.

`cascade.collection` joins these with the stores of `cascade.storing`.
"""
