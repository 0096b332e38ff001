"""Many videos: their lists in any format, and clips of them as model input.

In: what a user names as data, and the settings of clips. Out: lists of labelled videos, and datasets whose items are
clips `(C, T, H, W)`. Uses video.
"""
