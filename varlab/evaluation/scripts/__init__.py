"""The model half of each benchmark: one file each that runs anywhere its network does, and imports nothing of varlab.

``varlab adapter BENCHMARK`` prints such a file. What a benchmark's own code does to a picture before its network sees
it is done here alike, and every option that changes scores is written beside the result.
"""
