"""`evaluate` loads `agreement_at_k.py` by the name of this folder."""
