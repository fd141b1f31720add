"""Score tables: ensemble, re-distribute, pseudo-label, submit.

`fasttrain.scores.table` is what other rooms read and write; the folders beside it work on such tables.
"""
