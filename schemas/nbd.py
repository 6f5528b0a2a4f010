"""The NBD protocol, as a client needs it: fixed newstyle handshake, requests, both kinds of replies.

Source: NBD, doc/proto.md (sections "Fixed newstyle negotiation", "Option types", "Transmission").
Every name is the specification's, without its prefix.  All numbers are big-endian; sizes are in bytes.
"""

from enum import IntEnum, IntFlag

from construct import GreedyBytes, Int16ub, Int32ub, Int64ub, Prefixed, PrefixedArray, Struct

GREETING_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

PORT = 10809  # assigned by IANA
NAME_MAX = 4096  # bytes of an export's name or a context's (section "Values": strings)
BLOCK_MINIMUM_MAX = 64 << 10  # the largest minimum block size
BLOCK_DEFAULT = 512  # the minimum block size of a server that states none
PAYLOAD_DEFAULT = 32 << 20  # the maximum block size of a server that states none


class HandshakeFlag(IntFlag):
    """The server's flags in the greeting, and the client's in its answer: the same bits."""

    FIXED_NEWSTYLE = 0x01
    NO_ZEROES = 0x02


class Option(IntEnum):
    """What a client may ask for in the handshake (NBD_OPT_*)."""

    ABORT = 2
    STARTTLS = 5
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """The types of answers to an option (NBD_REP_*); errors have the bit 31."""

    ACK = 1
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009


OPTION_ERROR = 0x80000000


class Info(IntEnum):
    """What an answer to GO describes (NBD_INFO_*)."""

    EXPORT = 0
    BLOCK_SIZE = 3


class ExportFlag(IntFlag):
    """What an export is and can do (NBD_FLAG_*)."""

    HAS_FLAGS = 0x0001
    READ_ONLY = 0x0002
    SEND_FLUSH = 0x0004
    SEND_TRIM = 0x0020
    SEND_WRITE_ZEROES = 0x0040


class Command(IntEnum):
    """The types of requests (NBD_CMD_*)."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class ChunkFlag(IntFlag):
    """The flags of a structured reply's chunk (NBD_REPLY_FLAG_*)."""

    DONE = 0x01


class Chunk(IntEnum):
    """The types of a structured reply's chunks (NBD_REPLY_TYPE_*); errors have the bit 15."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


CHUNK_ERROR = 0x8000


class ErrorNumber(IntEnum):
    """The errors of replies: Linux's numbers, whatever the server's system is."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


class Allocation(IntFlag):
    """The flags of the context ``base:allocation`` (NBD_STATE_*)."""

    HOLE = 0x01
    ZERO = 0x02


# QEMU, docs/interop/nbd.txt.
DIRTY = 0x01  # the flag of the contexts qemu:dirty-bitmap:NAME
OWN_LAYER = 1  # the value in the context qemu:allocation-depth: allocated by the export itself
BASE_ALLOCATION = "base:allocation"
ALLOCATION_DEPTH = "qemu:allocation-depth"
DIRTY_BITMAP = "qemu:dirty-bitmap:"

#: A u32 length, then that many bytes, no terminator.
String = Prefixed(Int32ub, GreedyBytes)

Greeting = Struct("magic" / Int64ub, "option_magic" / Int64ub, "flags" / Int16ub)

ClientFlags = Struct("flags" / Int32ub)

#: ``length`` bytes of data follow.
OptionHead = Struct("magic" / Int64ub, "option" / Int32ub, "length" / Int32ub)

#: ``length`` bytes of data follow; in an error, they are a message for people.
OptionReplyHead = Struct(
    "magic" / Int64ub, "option" / Int32ub, "type" / Int32ub, "length" / Int32ub
)

#: Data of GO: the export's name, and the types of Info that the client can make use of.
GoData = Struct("export" / String, "infos" / PrefixedArray(Int16ub, Int16ub))

#: Data of LIST_META_CONTEXT and SET_META_CONTEXT.
MetaContextData = Struct("export" / String, "queries" / PrefixedArray(Int32ub, String))

#: Data of an answer META_CONTEXT.
MetaContext = Struct("id" / Int32ub, "name" / GreedyBytes)

#: Data of an answer INFO begin with the type.
InfoType = Struct("type" / Int16ub)

InfoExport = Struct("type" / Int16ub, "size" / Int64ub, "flags" / Int16ub)

InfoBlockSize = Struct(
    "type" / Int16ub, "minimum" / Int32ub, "preferred" / Int32ub, "maximum" / Int32ub
)

#: The data to write follow, if it is a write.
Request = Struct(
    "magic" / Int32ub,
    "flags" / Int16ub,
    "type" / Int16ub,
    "cookie" / Int64ub,
    "offset" / Int64ub,
    "length" / Int32ub,
)

#: Both kinds of replies begin with a number that tells which it is.
ReplyMagic = Struct("magic" / Int32ub)

#: The data that were read follow, if the error is 0.
SimpleReply = Struct("magic" / Int32ub, "error" / Int32ub, "cookie" / Int64ub)

#: The head of a structured reply's chunk without its length, which is as long as a simple reply.
ChunkHead = Struct("magic" / Int32ub, "flags" / Int16ub, "type" / Int16ub, "cookie" / Int64ub)

#: ``length`` bytes follow.
ChunkLength = Struct("length" / Int32ub)

#: The first bytes of OFFSET_DATA; the others are the data.
OffsetData = Struct("offset" / Int64ub)

OffsetHole = Struct("offset" / Int64ub, "length" / Int32ub)

#: The first bytes of BLOCK_STATUS; the others are one Extent or more.
BlockStatus = Struct("context" / Int32ub)

Extent = Struct("length" / Int32ub, "flags" / Int32ub)

#: The first bytes of ERROR and ERROR_OFFSET; a message of ``length`` bytes follows.
ChunkError = Struct("error" / Int32ub, "length" / Int16ub)
