"""How a cascade searches in memory: what it holds, what stages encode when, and the ranking."""
