# Made by `make docs`: do not edit.  The order of the structures is from docs/blkmig.ksy.in; the
# structures, enumerations and flags (all below "generated from schemas/") are from schemas/.
meta:
  id: blkmig
  title: QEMU block-migration stream
  application: QEMU
  license: MIT
  ks-version: 0.9
  endian: be
doc: |
  The output of QEMU's "migrate -b" (QEMU 0.12 to 9.0) and the dirty bitmaps that QEMU still migrates:
  the container with its sections, and the sections "block", "dirty-bitmap" and "ram".  A stream that
  does not begin with the magic is read as bare block records.  Names are bytes, as they may be
  invalid UTF-8.  A sector is 512 bytes.

  Kaitai Struct cannot express all of the format:

  - The size of a device's state is not in the stream.  It is found here by the section's footer, byte
    by byte.  Machine types up to 2.3 write no footers: there, what follows the first such state is
    "undecoded".
  - The bits of bitmaps in block records of dialect v1 have no length: it follows from the granularity
    of the bitmaps and the size of the disk, which are not in the stream.  All that follows the first
    such record is "undecoded".  Records of v1 without bitmaps, of v2 and of classic are read.
  - RAM with the capabilities x-ignore-shared or mapped-ram, or with postcopy of RAM, has fields that
    depend on more than the stream: such a section is skipped to its footer, as device state is.
    Without target-page-bits in the configuration, pages are taken to have 4 KiB.
  - A chunk of the section "dirty-bitmap" that has no name belongs to the device or bitmap that was
    named last, also in an earlier part.
  - Of several streams in one file the first is read, and the others are "behind".

  It accepts streams that blkmig refuses.  Use `blkmig validate` to check one.
doc-ref: docs/format.md
seq:
  - id: header
    type: file_header
    if: is_container
  - id: configuration
    type: configuration
    if: is_container and kind_after_header == section_type::configuration
  - id: objects
    type: stream_object(_index)
    repeat: until
    repeat-until: _.is_last
    if: is_container
  - id: description
    type: description
    if: is_container and objects.last.kind == section_type::eof and not _io.eof and kind_after_end == section_type::vmdescription
  - id: records
    type: block_payload(true, false)
    if: not is_container
  - id: behind
    size-eos: true
instances:
  first_word:
    pos: 0
    type: u4
  is_container:
    value: first_word == 1363498573
  kind_after_header:
    pos: 8
    type: u1
    enum: section_type
  kind_after_end:
    pos: _io.pos
    type: u1
    enum: section_type
  page_size:
    value: '(has_footers ? 1 << configuration.page_bits : 4096).as<u4>'
  ram_is_plain:
    value: not has_footers or configuration.ram_is_plain
    doc: Whether no capability is set that changes the records of RAM.
  has_footers:
    value: kind_after_header == section_type::configuration
    doc: Machine types up to 2.3 write neither a configuration nor footers.
types:
  configuration:
    seq:
      - id: head
        type: configuration_head
      - id: machine
        size: head.length
      - id: subsections
        type: subsection(_index)
        repeat: until
        repeat-until: _.is_last
        if: has_subsections
    instances:
      has_subsections:
        value: kind_after_machine == section_type::subsection
      page_bits:
        value: '(has_subsections ? subsections.last.page_bits : 12).as<u4>'
      ram_is_plain:
        value: not has_subsections or subsections.last.ram_is_plain
      kind_after_machine:
        pos: _io.pos
        type: u1
        enum: section_type
  subsection:
    params:
      - id: index
        type: u4
    seq:
      - id: head
        type: subsection_head
      - id: target_page_bits
        type: configuration_target_page_bits
        if: head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x74, 0x61, 0x72, 0x67, 0x65, 0x74, 0x2d, 0x70, 0x61, 0x67, 0x65, 0x2d, 0x62, 0x69, 0x74, 0x73]
      - id: capabilities
        type: configuration_capabilities
        if: head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x63, 0x61, 0x70, 0x61, 0x62, 0x69, 0x6c, 0x69, 0x74, 0x69, 0x65, 0x73]
      - id: uuid
        type: configuration_uuid
        if: head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x75, 0x75, 0x69, 0x64]
      - id: undecoded
        type: undecoded
        if: not is_known
    instances:
      is_known:
        value: head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x74, 0x61, 0x72, 0x67, 0x65, 0x74, 0x2d, 0x70, 0x61, 0x67, 0x65, 0x2d, 0x62, 0x69, 0x74, 0x73] or head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x63, 0x61, 0x70, 0x61, 0x62, 0x69, 0x6c, 0x69, 0x74, 0x69, 0x65, 0x73] or head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x75, 0x75, 0x69, 0x64]
      kind_after:
        pos: _io.pos
        type: u1
        enum: section_type
        if: is_known
      is_last:
        value: not is_known or kind_after != section_type::subsection
      previous:
        value: _parent.subsections[index - 1].as<subsection>
        if: index > 0
      page_bits:
        value: '(head.name.value == [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x74, 0x61, 0x72, 0x67, 0x65, 0x74, 0x2d, 0x70, 0x61, 0x67, 0x65, 0x2d, 0x62, 0x69, 0x74, 0x73] ? target_page_bits.bits : index > 0 ? previous.page_bits : 12).as<u4>'
        doc: The page size of RAM is 2 to this power, in bytes.
      ram_is_plain:
        value: '((head.name.value != [0x63, 0x6f, 0x6e, 0x66, 0x69, 0x67, 0x75, 0x72, 0x61, 0x74, 0x69, 0x6f, 0x6e, 0x2f, 0x63, 0x61, 0x70, 0x61, 0x62, 0x69, 0x6c, 0x69, 0x74, 0x69, 0x65, 0x73] or capabilities.names_count == 0) and (index == 0 or previous.ram_is_plain)).as<bool>'
  stream_object:
    doc: An object of the container.  A section's payload is part of it, its footer is an object of its own.
    params:
      - id: index
        type: u4
    seq:
      - id: start
        type: section_head
        if: is_start
      - id: reference
        type: section_reference
        if: is_part or kind == section_type::footer
      - id: command
        type: command_object
        if: kind == section_type::command
      - id: eof
        type: type_byte
        if: kind == section_type::eof
      - id: blocks
        type: block_payload(false, not_classic_before)
        if: is_section and section_id == block_id
      - id: bitmaps
        type: bitmap_payload
        if: is_section and section_id == bitmap_id
      - id: ram
        type: ram_payload(_root.page_size)
        if: is_section and section_id == ram_id
      - id: state
        type: device_state(section_id)
        if: is_state and _root.has_footers
      - id: undecoded
        type: undecoded
        if: not is_known or (is_state and not _root.has_footers)
    instances:
      kind:
        pos: _io.pos
        type: u1
        enum: section_type
      is_start:
        value: kind == section_type::start or kind == section_type::full
      is_part:
        value: kind == section_type::part or kind == section_type::end
      is_section:
        value: is_start or is_part
      is_known:
        value: is_section or kind == section_type::footer or kind == section_type::command or kind == section_type::eof
      is_last:
        value: >-
          kind == section_type::eof or not is_known or (is_state and not _root.has_footers)
          or (is_section and section_id == block_id and blocks.is_undecoded)
      is_state:
        value: is_section and section_id != block_id and section_id != bitmap_id and section_id != ram_id
      section_id:
        value: 'is_start ? start.id : reference.id'
        if: is_section or kind == section_type::footer
      previous:
        value: _parent.objects[index - 1].as<stream_object>
        if: index > 0
      block_id:
        value: '(is_start and start.name.value == [0x62, 0x6c, 0x6f, 0x63, 0x6b] and start.version == 1 ? start.id : index > 0 ? previous.block_id : -1).as<s8>'
        doc: The id of the section "block", or -1 before it begins.
      bitmap_id:
        value: '(is_start and start.name.value == [0x64, 0x69, 0x72, 0x74, 0x79, 0x2d, 0x62, 0x69, 0x74, 0x6d, 0x61, 0x70] and start.version == 1 ? start.id : index > 0 ? previous.bitmap_id : -1).as<s8>'
      ram_id:
        value: '(is_start and start.name.value == [0x72, 0x61, 0x6d] and start.version == 4 and _root.ram_is_plain and not postcopies_ram ? start.id : index > 0 ? previous.ram_id : -1).as<s8>'
      postcopies_ram:
        value: '((kind == section_type::command and command.head.command == command::postcopy_advise and command.head.length > 0) or (index > 0 and previous.postcopies_ram)).as<bool>'
      not_classic_before:
        value: '(index > 0 and previous.not_classic).as<bool>'
      not_classic:
        value: '(is_section and section_id == block_id ? blocks.not_classic : not_classic_before).as<bool>'
  command_object:
    doc: The data of a package command is the package's length; the package follows outside the command, as objects.
    seq:
      - id: head
        type: command_head
      - id: data
        size: head.length
  description:
    seq:
      - id: head
        type: description_head
      - id: json
        size: head.length
  device_state:
    doc: State of any content, up to the section's footer.
    params:
      - id: section_id
        type: u4
    seq:
      - id: steps
        type: state_step(section_id)
        repeat: until
        repeat-until: _.is_at_footer
    instances:
      size:
        value: steps.size - 1
  state_step:
    params:
      - id: section_id
        type: u4
    seq:
      - id: value
        type: u1
        if: not is_at_footer
    instances:
      here:
        pos: _io.pos
        type: section_reference
      is_at_footer:
        value: here.type == section_type::footer and here.id == section_id
  undecoded:
    seq:
      - id: bytes
        size-eos: true
  block_payload:
    doc: Records up to one with the flag EOS; bare records up to the end of the file.
    params:
      - id: is_bare
        type: bool
      - id: not_classic_before
        type: bool
    seq:
      - id: records
        type: block_record(_index)
        repeat: until
        repeat-until: '_.is_undecoded or (is_bare ? _io.eof : _.word.eos)'
    instances:
      is_undecoded:
        value: records.last.is_undecoded
      not_classic:
        value: records.last.not_classic
  block_record:
    params:
      - id: index
        type: u4
    seq:
      - id: word
        type: record_word
      - id: name
        type: device_name
        if: word.device_block
      - id: undecoded
        type: undecoded
        if: is_undecoded
      - id: range
        type: v2_range
        if: word.device_block and word.sized_bitmaps
      - id: bitmaps
        type: v2_bitmap
        repeat: expr
        repeat-expr: range.count
        if: word.device_block and word.sized_bitmaps
      - id: data
        size: 1048576
        if: has_data
    instances:
      is_undecoded:
        value: word.device_block and word.has_bitmaps and not word.sized_bitmaps
        doc: Bitmaps of dialect v1.
      not_classic:
        value: '(word.has_block or word.has_bitmaps or word.sized_bitmaps or (index > 0 ? _parent.records[index - 1].as<block_record>.not_classic : _parent.not_classic_before)).as<bool>'
        doc: Whether this record or an earlier one has dialect v1 or v2, in which data needs the flag HAS_BLOCK.
      has_data:
        value: word.device_block and not word.zero_block and not is_undecoded and (word.has_block or not not_classic)
      sector:
        value: word.upper
        if: word.device_block
      percent:
        value: word.upper
        if: word.progress and not word.device_block
  v2_bitmap:
    seq:
      - id: head
        type: v2_bitmap_head
      - id: bits
        size: head.length
  bitmap_payload:
    doc: Chunks up to one with the flag EOS.
    seq:
      - id: chunks
        type: bitmap_chunk
        repeat: until
        repeat-until: _.flags & 0x01 != 0
  bitmap_chunk:
    seq:
      - id: first_flags
        type: chunk_flags
      - id: second_flags
        type: chunk_flags
        if: first_flags.extra_flags
      - id: third_flags
        type: more_flags
        if: first_flags.extra_flags and second_flags.extra_flags
      - id: device
        type: alias
        if: flags & 0x08 != 0
      - id: bitmap
        type: alias
        if: flags & 0x04 != 0
      - id: start
        type: start
        if: is_start
      - id: range
        type: range
        if: is_bits
      - id: length
        type: bits_length
        if: is_bits and not is_clean
      - id: bits
        size: length.length
        if: is_bits and not is_clean
    instances:
      flags:
        value: 'first_flags.extra_flags ? (second_flags.extra_flags ? third_flags.flags & 0xff : second_flags.flags) : first_flags.flags'
        doc: The last byte of flags, which alone counts.
      is_start:
        value: flags & 0x10 != 0
      is_complete:
        value: not is_start and flags & 0x20 != 0
      is_bits:
        value: not is_start and not is_complete and flags & 0x40 != 0
      is_clean:
        value: flags & 0x02 != 0
  ram_payload:
    doc: Records up to one with the flag EOS.
    params:
      - id: page_size
        type: u4
    seq:
      - id: records
        type: ram_record(page_size)
        repeat: until
        repeat-until: _.kind == ram_flag::eos
  ram_record:
    params:
      - id: page_size
        type: u4
    seq:
      - id: word
        type: ram_word
      - id: block
        type: block_name
        if: has_page and not is_continued
      - id: zero
        type: ram_zero
        if: kind == ram_flag::zero
      - id: page_data
        size: page_size
        if: kind == ram_flag::page
      - id: xbzrle
        type: ram_xbzrle
        if: kind == ram_flag::xbzrle
      - id: xbzrle_data
        size: xbzrle.length
        if: kind == ram_flag::xbzrle
      - id: compress_page
        type: ram_compress_page
        if: kind == ram_flag::compress_page
      - id: compress_page_data
        size: compress_page.length
        if: kind == ram_flag::compress_page
      - id: entries
        type: mem_size_part(_index)
        repeat: until
        repeat-until: _.total >= word.word - flags
        if: kind == ram_flag::mem_size and word.word - flags > 0
    instances:
      flags:
        value: word.word % page_size
      is_continued:
        value: flags & 0x20 != 0
      kind:
        value: 'is_continued ? flags - 0x20 : flags'
        enum: ram_flag
      has_page:
        value: kind == ram_flag::zero or kind == ram_flag::page or kind == ram_flag::xbzrle or kind == ram_flag::compress_page
  mem_size_part:
    params:
      - id: index
        type: u4
    seq:
      - id: entry
        type: mem_size_entry
    instances:
      total:
        value: '(entry.length + (index > 0 ? _parent.entries[index - 1].as<mem_size_part>.total : 0)).as<u8>'
        doc: The length of this block of RAM and of those before it, in bytes.
  # -- generated from schemas/
  counted_string:
    seq:
    - id: length
      type: u1
    - id: value
      size: length
  record_word:
    doc: '``(sector << 9) | flags``, or ``(percent << 9) | flags``'
    seq:
    - id: upper_high
      type: b32
    - id: upper_low
      type: b23
    - id: unknown_8
      type: b1
    - id: unknown_7
      type: b1
    - id: sized_bitmaps
      type: b1
    - id: has_bitmaps
      type: b1
    - id: has_block
      type: b1
    - id: zero_block
      type: b1
    - id: progress
      type: b1
    - id: eos
      type: b1
    - id: device_block
      type: b1
    instances:
      upper:
        value: upper_high.as<u8> * 8388608 + upper_low
        doc: A sector, or a percentage.
  file_header:
    seq:
    - id: magic
      type: u4
      valid: 1363498573
    - id: version
      type: u4
  configuration_head:
    doc: The machine type follows, ``length`` bytes of it.
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: length
      type: u4
  subsection_head:
    doc: After the machine type; the body follows, by name.
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: name
      type: counted_string
    - id: version
      type: u4
  section_head:
    doc: 'Section start (iterable state begins) and section full (a device''s complete state). (QEMU
      7.2, migration/savevm.c: qemu_loadvm_section_start_full)'
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: id
      type: u4
    - id: name
      type: counted_string
    - id: instance
      type: u4
    - id: version
      type: u4
  section_reference:
    doc: 'Section part, section end, and footer: the type byte and the section''s id (QEMU 7.2, migration/savevm.c:
      qemu_loadvm_section_part_end, check_section_footer).'
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: id
      type: u4
  command_head:
    doc: '``length`` bytes of data follow.'
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: command
      type: u2
      enum: command
    - id: length
      type: u2
  description_head:
    doc: '``length`` bytes of JSON text follow, up to the end of the stream.'
    seq:
    - id: type
      type: u1
      enum: section_type
    - id: length
      type: u4
  type_byte:
    doc: 'A single type byte: the end of the sections.'
    seq:
    - id: type
      type: u1
      enum: section_type
  device_name:
    seq:
    - id: device
      type: counted_string
  v2_range:
    doc: 'v2, after the device name if HAS_BITMAPS: sectors covered, number of bitmaps.'
    seq:
    - id: sectors
      type: u4
    - id: count
      type: u4
  v2_bitmap_head:
    doc: v2, one per bitmap; ``length`` bytes of bits follow.
    seq:
    - id: name
      type: counted_string
    - id: flags
      type: u1
    - id: granularity
      type: u4
    - id: length
      type: u4
    instances:
      enabled:
        value: flags & 0x01 != 0
      persistent:
        value: flags & 0x02 != 0
      autoload:
        value: flags & 0x04 != 0
  chunk_flags:
    doc: '0x80 announces another flag byte, and 0x80 in that one two more; QEMU uses the last byte only
      (QEMU 7.2, migration/block-dirty-bitmap.c: qemu_get_bitmap_flags).'
    seq:
    - id: flags
      type: u1
    instances:
      eos:
        value: flags & 0x01 != 0
      zeroes:
        value: flags & 0x02 != 0
      bitmap_name:
        value: flags & 0x04 != 0
      device_name:
        value: flags & 0x08 != 0
      start:
        value: flags & 0x10 != 0
      complete:
        value: flags & 0x20 != 0
      bits:
        value: flags & 0x40 != 0
      extra_flags:
        value: flags & 0x80 != 0
  more_flags:
    seq:
    - id: flags
      type: u2
    instances:
      eos:
        value: flags & 0x01 != 0
      zeroes:
        value: flags & 0x02 != 0
      bitmap_name:
        value: flags & 0x04 != 0
      device_name:
        value: flags & 0x08 != 0
      start:
        value: flags & 0x10 != 0
      complete:
        value: flags & 0x20 != 0
      bits:
        value: flags & 0x40 != 0
      extra_flags:
        value: flags & 0x80 != 0
  alias:
    doc: The alias of a device or a bitmap; omitted where it is that of the preceding chunk.
    seq:
    - id: name
      type: counted_string
  start:
    doc: Granularity in bytes, and the flags of the bitmap.  (The comment at the top of QEMU's source
      file states a be64; dirty_bitmap_load_start reads a be32.)
    seq:
    - id: granularity
      type: u4
    - id: flags
      type: u1
    instances:
      enabled:
        value: flags & 0x01 != 0
      persistent:
        value: flags & 0x02 != 0
      autoload:
        value: flags & 0x04 != 0
  range:
    doc: The range, in sectors; unless ZEROES, the length of the bits and the bits follow.
    seq:
    - id: sector
      type: u8
    - id: sectors
      type: u4
  bits_length:
    seq:
    - id: length
      type: u8
  ram_word:
    doc: '``offset | flags``; the page size bounds the flag bits.'
    seq:
    - id: word
      type: u8
  block_name:
    doc: 'After the word of a record that carries a page, unless CONTINUE: the RAM block''s name.'
    seq:
    - id: block
      type: counted_string
  mem_size_entry:
    doc: 'MEM_SIZE: one per RAM block, until their lengths add up to the total in the word.'
    seq:
    - id: block
      type: counted_string
    - id: length
      type: u8
  configuration_target_page_bits:
    seq:
    - id: bits
      type: u4
  configuration_capabilities:
    seq:
    - id: names_count
      type: u4
    - id: names
      type: counted_string
      repeat: expr
      repeat-expr: names_count
  configuration_uuid:
    seq:
    - id: uuid
      size: 16
  ram_zero:
    seq:
    - id: fill
      type: u1
  ram_xbzrle:
    seq:
    - id: encoding
      type: u1
    - id: length
      type: u2
  ram_compress_page:
    seq:
    - id: length
      type: u4
enums:
  section_type:
    0: eof
    1: start
    2: part
    3: end
    4: full
    5: subsection
    6: vmdescription
    7: configuration
    8: command
    126: footer
  command:
    1: open_return_path
    2: ping
    3: postcopy_advise
    4: postcopy_listen
    5: postcopy_run
    6: postcopy_ram_discard
    7: packaged
    8: enable_colo
    9: postcopy_resume
    10: recv_bitmap
    11: switchover_start
  ram_flag:
    2: zero
    4: mem_size
    8: page
    16: eos
    64: xbzrle
    128: hook
    256: compress_page
    512: multifd_flush
