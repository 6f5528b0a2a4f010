"""The byte layout of a block-migration stream, and nothing else.

Declarative construct schemas, the constants they use, and the rules that size a payload.  Payload
bytes (disk data, bitmap bits, pages, device state) are not described: a schema describes what
surrounds them.  Imported as ``blkmig_cli.schemas``; needs construct and the standard library only.
"""
