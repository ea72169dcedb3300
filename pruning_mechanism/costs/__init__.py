"""What a tower costs: MACs, parameters and measured seconds."""
