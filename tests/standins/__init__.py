"""Modules with the released names, signatures and call order, written from the facts on them: no code of theirs.

They hold our own layers, so that what they compute is what our engine computes, by another loop.
"""
