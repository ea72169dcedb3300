"""What a tower costs in measured seconds: latency tables, and how they are measured."""
