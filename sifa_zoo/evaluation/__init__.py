"""How good a model is: scores of labelled videos, figures, the report, and comparisons.

In: weights and labelled videos. Out: figures, and a folder with tables and a page. Uses runtime and what it uses.
"""
