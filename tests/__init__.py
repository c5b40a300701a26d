"""Tests of ggblock, room by room; ``tests.naive`` and ``tests.oracle`` hold what they compare with."""
