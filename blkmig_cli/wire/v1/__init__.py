"""Bitmaps of v1, whose lengths are not in the stream: how many bytes they have."""
