"""One video: its frames and their times, exact.

In: the path or the bytes of a video, or a folder of pictures. Out: frames as arrays, their times, facts, `VideoError`.
Uses no other room.
"""
