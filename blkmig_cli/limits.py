"""The limits on streams and on files that accompany them, beyond which they are refused.

The limits of the formats themselves are in ``schemas/constants.py``; these are blkmig's, and each is far
above the needs of any real stream.  ``docs/commands.md`` lists them, from the comments here.
"""

#: Bytes of an object of the container that is read at once (heads, names, capabilities).
HEAD_MAX = 1 << 16
#: Bytes of a device's name, whose length byte QEMU lets wrap.
NAME_MAX = 1 << 10
#: Bytes of a machine type.
MACHINE_MAX = 1 << 12
#: Bytes of the JSON description at the end of a stream.
DESCRIPTION_MAX = 16 << 20
#: Bytes of a description that is searched for the sizes of disks.
IDENTITY_MAX = 4 << 20
#: Bytes of a device's state, and of the sum of all, that a description may state.
STATE_MAX = 1 << 48
#: Bytes before the input's end that are searched for the description of a stream without footers.
DESCRIPTION_REACH = 16 << 20
#: Places at the end of a file that are tried as the start of a description.
DESCRIPTION_TRIES_MAX = 16
#: Bytes that are read after a stream's end.
BEHIND_MAX = 64 << 20
#: Streams in one file that are counted.
STREAMS_MAX = 1 << 10
#: Bytes between the header of libvirt's save image and the stream in it.
SAVE_DATA_MAX = 64 << 20
#: Sections of a stream.
SECTIONS_MAX = 1 << 16
#: Records and headers that are in no regular order, in addition to one for every 64 bytes of a stream.
IRREGULAR_MAX = 1 << 18
#: Devices with blocks.
DEVICES_MAX = 1 << 11
#: Bitmaps of a stream.
BITMAPS_MAX = 1 << 10
#: Bitmaps in all records that conversion to v1 makes for the chunks without data.
V1_EMPTY_ENTRIES_MAX = 1 << 20
#: Bitmaps in all records of a stream that is written in v2, if each record names all of them.
V2_ENTRIES_MAX = 1 << 20
#: Bytes of one event from a pipe, which must be held in memory (in a file they are not).
PIPE_EVENT_MAX = 256 << 20
#: Bytes for the bits of all bitmaps of a stream or file: 4 TiB dirty at 512 B, 512 TiB at 64 KiB.
BITS_MAX = 1 << 30
#: Disjoint ranges of a disk that were sent: 8 TiB in single chunks.
RANGES_MAX = 1 << 22
#: Bytes that the inference of a v1 layout reads ahead.
LOOKAHEAD_MAX = 16 << 20
#: Readings of v1 records that inference follows at the same time.
READINGS_MAX = 1 << 13
#: Readings of v1 records and bitmaps that it tries in a stream, in addition to one for every 16 bytes.
READINGS_TRIED_MAX = 1 << 18
#: Blocks of RAM in one record.
RAM_BLOCKS_MAX = 1 << 12
#: Bytes by which a compressed RAM page may be larger than a page.
COMPRESSED_PAGE_SLACK = 4 << 10
#: Bytes to which an image without a known size grows (the largest file of ext4).
GROWTH_MAX = 16 << 40
#: Bytes of a disk: the largest file offset.
DISK_MAX = (1 << 63) - (1 << 20)
#: Bytes below which a bare record's first sector must be for the input to be taken for a stream.
BARE_DISK_MAX = 1 << 56
#: Bytes of memory for unpacking xz and zstd: more than their usual levels need.
UNPACKING_MAX = 256 << 20
#: Lists and objects of a JSON document; a larger one may have one for every 16 of its bytes.
JSON_PARTS_MAX = 1 << 16
#: Rows of a table or map and findings that the human output of a stream shows; the JSON has all.
SHOWN_MAX = 1 << 10
#: Dirty ranges of all bitmaps of a stream that the JSON of info and validate lists; that of map has all.
DIRTY_RANGES_MAX = 1 << 14
#: Bytes of a file of bitmaps (IMAGE.bitmaps.json).
BITMAPS_FILE_MAX = 256 << 20
#: Bytes of a journal (IMAGE.replay.json).
JOURNAL_MAX = 1 << 16
#: Bytes of a resume token (replay --print-token).
TOKEN_MAX = 1 << 16
#: Bytes of the record of an image (IMAGE.blkmig.json).
RECORD_MAX = 1 << 16
#: Bytes of a manifest.
MANIFEST_MAX = 64 << 20
#: Bytes of zeros that are hashed for a manifest, for each byte of data on the disks.
ZEROS_HASHED = 512
#: Bytes of data on the disks that are counted for that, where there are less.
ZEROS_HASHED_FOR = 8 << 20
#: Bytes of a spec that is one document.
SPEC_DOCUMENT_MAX = 64 << 20
#: Values of a spec in YAML; an alias counts as all that it refers to.
SPEC_NODES_MAX = 1 << 17
#: Bytes of one line of a spec in JSON Lines.
SPEC_LINE_MAX = 512 << 20
#: Bytes of consecutive zeros that are copied to a temporary file.
SPOOLED_ZEROS_MAX = 16 << 30
#: A temporary file leaves the 20th part of its file system free.
ROOM_LEFT = 20
#: Seconds to wait for a peer to connect.
PEER_WAIT = 3600
#: Seconds to wait for a connected peer to send or accept another byte.
PEER_SILENT = 600
#: Bytes that a peer may answer to a stream.
PEER_ANSWER_MAX = 4 << 10
#: Seconds to connect to an NBD server and to agree with it on an export.
NBD_CONNECT_WAIT = 30
#: Seconds to wait for the answer of an NBD server to a request.
NBD_ANSWER_WAIT = 300
#: Bytes of all that an NBD server says in the handshake.
NBD_HANDSHAKE_MAX = 16 << 20
#: Bytes of an NBD server's answer about the state of blocks.
NBD_STATUS_MAX = 16 << 20
#: Backing files of an image, one on the other.
BACKING_FILES_MAX = 64
#: Bytes of one message of QEMU's, or of qemu-storage-daemon's.
QMP_MESSAGE_MAX = 64 << 20
#: Seconds to wait for the greeting of a QEMU's monitor.
QMP_GREETING_WAIT = 5
#: Seconds to wait for the answer of a running QEMU to a command.
QMP_ANSWER_WAIT = 60
#: Seconds to wait for the answer of a guest agent to a command.
AGENT_WAIT = 10
#: Bytes of a guest agent's answers that are held until one is complete.
AGENT_MESSAGE_MAX = 1 << 20
#: Seconds to wait for the answer of a QEMU to a read of a snapshot.
SNAPSHOT_ANSWER_WAIT = 30
#: Milliseconds that a guest's writes may take, in the means of some seconds, before a snapshot is given up.
SNAPSHOT_LATENCY_MAX = 500
#: Bytes read while a guest is paused that are held in memory; more are in a temporary file.
HELD_MAX = 256 << 20
#: Bytes of a list of names of captures.
NAMES_MAX = 256 << 20
#: Results of captures that wait for that of an earlier one, for each process that reads them.
RESULTS_WAITING = 64
#: Bytes of a report that is kept in a catalogue.
CATALOGUE_REPORT_MAX = 16 << 20
#: Seconds to wait for another program that uses a catalogue.
CATALOGUE_WAIT = 30
#: Seconds to wait for the scheduler of a cluster.
CLUSTER_WAIT = 5
#: Requests to an object store at the same time.
REQUESTS_MAX = 64
#: Seconds to wait for a store where what was sent is to be discarded, for each of the last two requests.
DISCARD_WAIT = 10
#: Tries of one request that a store refuses as one of too many.
THROTTLED_TRIES = 8
#: Seconds, from the first refusal on, in which such a request is made again.
THROTTLED_WAIT = 60
