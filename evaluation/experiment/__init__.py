"""First stages alone and in front of the full tower: made, searched, judged."""
