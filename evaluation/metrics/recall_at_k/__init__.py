"""`evaluate` loads `recall_at_k.py` by the name of this folder."""
