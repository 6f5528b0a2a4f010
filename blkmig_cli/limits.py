"""What a stream may claim before it is refused.  All sizes in bytes.

The limits of the formats themselves are in ``schemas/constants.py``; these are ours, and each is
far above what any real stream needs.
"""

#: An object that a schema reads whole (heads, names, capabilities).
HEAD_MAX = 1 << 20
#: A device's name, whose length byte QEMU lets wrap.
NAME_MAX = 1 << 10
#: A machine type.
MACHINE_MAX = 1 << 16
#: The JSON description at the end of a stream.
DESCRIPTION_MAX = 64 << 20
#: One event's payloads from a pipe, which must be held in memory (in a file they are not).
PIPE_EVENT_MAX = 256 << 20
#: Bitmaps in one v1 record (the wire has 32 bits for it).
V1_BITMAPS_MAX = 1024
#: How far inference of a v1 layout looks ahead, and how many readings it follows at once.
LOOKAHEAD_MAX = 16 << 20
READINGS_MAX = 1 << 13
#: Blocks of RAM that are announced in one record.
RAM_BLOCKS_MAX = 1 << 12
#: A compressed RAM page may be this many bytes larger than a page.
COMPRESSED_PAGE_SLACK = 4096
#: An image without a known size grows no further than this (the largest file of ext4).
GROWTH_MAX = 16 << 40
#: Disks are no larger than this: what a file offset can say.
DISK_MAX = (1 << 63) - (1 << 20)
#: A bare record's first sector must lie below this many bytes for the input to count as a stream.
BARE_DISK_MAX = 1 << 60
#: A file of bitmaps (IMAGE.bitmaps.json).
BITMAPS_FILE_MAX = 1 << 30
#: Dirty granules of one bitmap in such a file (a disk of 4 TiB, all dirty, at 512 bytes).
GRANULES_MAX = 1 << 33
#: A spec that is one document, and one line of a spec in JSON Lines.
SPEC_DOCUMENT_MAX = 64 << 20
SPEC_LINE_MAX = 512 << 20
#: Seconds to wait for a peer to call, and for one that has called to send or take another byte.
PEER_WAIT = 3600
PEER_SILENT = 600
#: What a peer may answer to a stream.
PEER_ANSWER_MAX = 4096
