"""What the bytes of a block-migration stream are, and nothing else.

Declarative construct schemas, the constants they use, and the rules that size a payload.  Payload
bytes (disk data, bitmap bits, pages, device state) stay outside: a schema describes what stands
around them.  Imported as ``blkmig_cli.schemas``; needs construct and the standard library only.
"""
