"""What a collection costs over its lifetime: how many images a stream of queries brings up."""
