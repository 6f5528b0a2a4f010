-- Made by `make docs`: do not edit.  The order of the structures is from docs/blkmig.lua.in, the
-- structures, flags and numbers are from schemas/.
--
-- A dissector for Wireshark: QEMU's migration over TCP with block records and dirty bitmaps, on any
-- port, if the capture has the beginning of the stream.  Copy it to Wireshark's folder of personal
-- Lua plugins (Help, About, Folders), or use it once: tshark -X lua_script:blkmig.lua -r FILE
-- (Wireshark 4.4 runs no Lua scripts as root.)
--
-- A packet that is missing in the capture makes what follows it wrong: give dumpcap a large buffer (-B 256).
--
-- Not decoded: what follows the first block record with bitmaps of dialect v1; RAM records that
-- capabilities or postcopy change (skipped to the section's footer); multifd channels.

local structures = {
    record_word = { { "word", 8 } },
    file_header = { { "magic", 4 }, { "version", 4 } },
    configuration_head = { { "type", 1 }, { "length", 4 } },
    subsection_head = { { "type", 1 }, { "name", "counted" }, { "version", 4 } },
    section_head = { { "type", 1 }, { "id", 4 }, { "name", "counted" }, { "instance", 4 }, { "version", 4 } },
    section_reference = { { "type", 1 }, { "id", 4 } },
    command_head = { { "type", 1 }, { "command", 2 }, { "length", 2 } },
    return_path_head = { { "type", 2 }, { "length", 2 } },
    description_head = { { "type", 1 }, { "length", 4 } },
    type_byte = { { "type", 1 } },
    device_name = { { "device", "counted" } },
    v2_range = { { "sectors", 4 }, { "count", 4 } },
    v2_bitmap_head = { { "name", "counted" }, { "flags", 1 }, { "granularity", 4 }, { "length", 4 } },
    chunk_flags = { { "flags", 1 } },
    more_flags = { { "flags", 2 } },
    alias = { { "name", "counted" } },
    start = { { "granularity", 4 }, { "flags", 1 } },
    range = { { "sector", 8 }, { "sectors", 4 } },
    bits_length = { { "length", 8 } },
    ram_word = { { "word", 8 } },
    block_name = { { "block", "counted" } },
    mem_size_entry = { { "block", "counted" }, { "length", 8 } },
    configuration_target_page_bits = { { "bits", 4 } },
    configuration_capabilities = { { "names_count", 4 }, { "names", "counted", "names_count" } },
    configuration_uuid = { { "uuid", 16 } },
    ram_zero = { { "fill", 1 } },
    ram_xbzrle = { { "encoding", 1 }, { "length", 2 } },
    ram_compress_page = { { "length", 4 } },
}
local flags_of = {
    BlockFlag = { { "DEVICE_BLOCK", 0x01 }, { "EOS", 0x02 }, { "PROGRESS", 0x04 }, { "ZERO_BLOCK", 0x08 }, { "HAS_BLOCK", 0x10 }, { "HAS_BITMAPS", 0x20 }, { "SIZED_BITMAPS", 0x40 } },
    BitmapFlag = { { "EOS", 0x01 }, { "ZEROES", 0x02 }, { "BITMAP_NAME", 0x04 }, { "DEVICE_NAME", 0x08 }, { "START", 0x10 }, { "COMPLETE", 0x20 }, { "BITS", 0x40 }, { "EXTRA_FLAGS", 0x80 } },
    RamFlag = { { "ZERO", 0x02 }, { "MEM_SIZE", 0x04 }, { "PAGE", 0x08 }, { "EOS", 0x10 }, { "CONTINUE", 0x20 }, { "XBZRLE", 0x40 }, { "HOOK", 0x80 }, { "COMPRESS_PAGE", 0x100 }, { "MULTIFD_FLUSH", 0x200 } },
}
local section_types = { [0] = "EOF", [1] = "START", [2] = "PART", [3] = "END", [4] = "FULL", [5] = "SUBSECTION", [6] = "VMDESCRIPTION", [7] = "CONFIGURATION", [8] = "COMMAND", [126] = "FOOTER" }
local names_of = {
    ["configuration_head.type"] = section_types,
    ["subsection_head.type"] = section_types,
    ["section_head.type"] = section_types,
    ["section_reference.type"] = section_types,
    ["command_head.type"] = section_types,
    ["description_head.type"] = section_types,
    ["type_byte.type"] = section_types,
    ["command_head.command"] = { [1] = "OPEN_RETURN_PATH", [2] = "PING", [3] = "POSTCOPY_ADVISE", [4] = "POSTCOPY_LISTEN", [5] = "POSTCOPY_RUN", [6] = "POSTCOPY_RAM_DISCARD", [7] = "PACKAGED", [8] = "ENABLE_COLO", [9] = "POSTCOPY_RESUME", [10] = "RECV_BITMAP", [11] = "SWITCHOVER_START" },
}

local proto = Proto("blkmig", "QEMU migration with block records")
local fields, object_field = {}, ProtoField.string("blkmig.object", "Object")
proto.fields = { object_field }
for structure, parts in pairs(structures) do
    for _, part in ipairs(parts) do
        local name = structure .. "." .. part[1]
        local kind = part[2]
        if kind == "counted" or kind == 16 then
            fields[name] = ProtoField.new(part[1], "blkmig." .. name, kind == 16 and ftypes.BYTES or ftypes.STRING)
        else
            local types = { ftypes.UINT8, ftypes.UINT16, nil, ftypes.UINT32, nil, nil, nil, ftypes.UINT64 }
            fields[name] = ProtoField.new(part[1], "blkmig." .. name, types[kind], names_of[name],
                names_of[name] and base.DEC or base.DEC_HEX)
        end
        table.insert(proto.fields, fields[name])
    end
end

local function has(value, flag)
    return math.floor(value / flag) % 2 == 1
end

local function flag_names(value, kind)
    local found = {}
    for _, flag in ipairs(flags_of[kind]) do
        if has(value, flag[2]) then table.insert(found, flag[1]) end
    end
    return table.concat(found, ", ")
end

-- A reader of one object: raises { need = n } where n more bytes are needed (0: not known how many).
local Reader = {}
Reader.__index = Reader

function Reader:take(length)
    local at = self.at
    if at + length > self.tvb:len() then error({ need = at + length - self.tvb:len() }) end
    self.at = at + length
    -- An empty range at the end of the data is an error in Wireshark.
    return length > 0 and self.tvb(at, length) or nil
end

-- The values of a structure, by field; numbers of 64 bits are UInt64.
function Reader:structure(name)
    local values = {}
    for _, part in ipairs(structures[name]) do
        for _ = 1, part[3] and values[part[3]] or 1 do
            local range, value
            if part[2] == "counted" then
                range = self:take(self:take(1):uint())
                value = range and range:raw() or ""
            else
                range = self:take(part[2])
                value = part[2] == 8 and range:uint64() or part[2] <= 4 and range:uint() or range:raw()
            end
            values[part[1]] = value
            if range then table.insert(self.items, { fields[name .. "." .. part[1]], range }) end
        end
    end
    return values
end

-- Of a UInt64: the upper bits and the low bits.  (math.floor makes integers in Lua 5.3 and later.)
local function split(word, bits)
    return math.floor(word:rshift(bits):tonumber()), math.floor(word:band(UInt64(2 ^ bits - 1)):tonumber())
end

local function peek(reader, length)
    local at = reader.at
    local range = reader:take(length)
    reader.at = at
    return range
end

-- Each reads one object and returns a line about it; it changes the state of the stream.
local read = {}

function read.object(reader, state)
    local kind = peek(reader, 1):uint()
    if kind == 0x01 or kind == 0x04 then
        local head = reader:structure("section_head")
        state.section = { id = head.id, name = head.name, version = head.version }
        state.sections[head.id] = state.section
    elseif kind == 0x02 or kind == 0x03 then
        local id = reader:structure("section_reference").id
        state.section = state.sections[id] or { id = id, name = "?", version = 0 }
    elseif kind == 0x7e then
        return "footer " .. reader:structure("section_reference").id
    elseif kind == 0x08 then
        local head = reader:structure("command_head")
        reader:take(head.length)
        if head.command == 0x03 and head.length > 0 then state.plain_ram = false end
        return "command " .. head.command
    elseif kind == 0x07 then
        state.footers = true
        local machine = reader:take(reader:structure("configuration_head").length)
        return "configuration " .. (machine and machine:raw() or "")
    elseif kind == 0x05 then
        local head = reader:structure("subsection_head")
        if head.name == "configuration/target-page-bits" then
            local body = reader:structure("configuration_target_page_bits")
            state.page_bits = body.bits
        elseif head.name == "configuration/capabilities" then
            local body = reader:structure("configuration_capabilities")
            if body.names_count > 0 then state.plain_ram = false end
        elseif head.name == "configuration/uuid" then
            local body = reader:structure("configuration_uuid")
        else return read.undecoded(reader, state) end
        return "subsection " .. head.name
    elseif kind == 0x00 then
        reader:structure("type_byte")
        return "eof"
    elseif kind == 0x06 then
        reader:take(reader:structure("description_head").length)
        return "description"
    else
        return read.undecoded(reader, state)
    end
    local name, version = state.section.name, state.section.version
    if name == "block" and version == 1 then
        state.read = read.block
    elseif name == "dirty-bitmap" and version == 1 then
        state.read = read.bitmap
    elseif name == "ram" and version == 4 and state.plain_ram then
        state.read = read.ram
    else
        state.read = state.footers and read.state or read.undecoded
    end
    return string.format("section %d %s", kind, name)
end

function read.header(reader, state)
    reader:structure("file_header")
    state.read = read.object
    return "header"
end

function read.undecoded(reader, state)
    reader:take(reader.tvb:len() - reader.at)
    state.read = read.undecoded
    return "undecoded"
end

-- State of any content, up to the section's footer.
function read.state(reader, state)
    local id, data = state.section.id, reader.tvb:raw(reader.at)
    local footer = string.char(0x7e, math.floor(id / 0x1000000) % 256, math.floor(id / 0x10000) % 256,
        math.floor(id / 0x100) % 256, id % 256)
    local found = string.find(data, footer, 1, true)
    if not found then error({ need = 0 }) end
    reader:take(found - 1)
    state.read = read.object
    return "state " .. found - 1
end

function read.block(reader, state)
    local upper, flags = split(reader:structure("record_word").word, 9)
    if has(flags, 0x02) then state.read = read.object end
    reader.flags = flag_names(flags, "BlockFlag")
    if not has(flags, 0x01) then return string.format("word %d %d", upper, flags) end
    local device = reader:structure("device_name").device
    local sized = has(flags, 0x40)
    if has(flags, 0x20) and not sized then return read.undecoded(reader, state) end
    if sized then
        for _ = 1, reader:structure("v2_range").count do
            reader:take(reader:structure("v2_bitmap_head").length)
        end
    end
    local has_block = has(flags, 0x10)
    state.not_classic = state.not_classic or sized or has_block
    if not has(flags, 0x08) and (has_block or not state.not_classic) then
        reader:take(1048576)
    end
    return string.format("block %d %d %s", upper, flags, device)
end

function read.bitmap(reader, state)
    local flags = reader:structure("chunk_flags").flags
    if has(flags, 0x80) then
        flags = reader:structure("chunk_flags").flags
        if has(flags, 0x80) then flags = reader:structure("more_flags").flags % 256 end
    end
    reader.flags = flag_names(flags, "BitmapFlag")
    if has(flags, 0x08) then state.device = reader:structure("alias").name end
    if has(flags, 0x04) then state.bitmap = reader:structure("alias").name end
    if has(flags, 0x01) then state.read = read.object end
    if has(flags, 0x10) then
        reader:structure("start")
    elseif not has(flags, 0x20) and has(flags, 0x40) then
        reader:structure("range")
        if not has(flags, 0x02) then
            reader:take(math.floor(reader:structure("bits_length").length:tonumber()))
        end
    elseif not has(flags, 0x20) then
        return "chunk " .. flags
    end
    return string.format("chunk %d %s/%s", flags, state.device, state.bitmap)
end

function read.ram(reader, state)
    local word = reader:structure("ram_word").word
    local bits = state.page_bits
    local offset, flags = split(word, bits)
    local page_size = math.floor(2 ^ bits)
    offset = offset * page_size
    local continued = has(flags, 0x20)
    local kind = continued and flags - 0x20 or flags
    reader.flags = flag_names(flags, "RamFlag")
    if kind == 0x04 then
        local total = offset
        while total > 0 do
            total = total - reader:structure("mem_size_entry").length:tonumber()
        end
    elseif (kind == 0x02 or kind == 0x08 or kind == 0x40 or kind == 0x100) then
        if not continued then reader:structure("block_name") end
        if kind == 0x02 then reader:structure("ram_zero") end
        if kind == 0x08 then reader:take(page_size) end
        if kind == 0x40 then reader:take(reader:structure("ram_xbzrle").length) end
        if kind == 0x100 then reader:take(reader:structure("ram_compress_page").length) end
    end
    if kind == 0x10 then state.read = read.object end
    return string.format("ram %.0f %d", offset, flags)
end

function read.return_path(reader, state)
    local head = reader:structure("return_path_head")
    reader:take(head.length)
    return "return path " .. head.type
end

-- By both ends of a connection: the end that sends the stream, and by end the state.  By frame, buffer (a
-- frame may end one object in a reassembled buffer and begin others in its own) and place in it: the state
-- there, for when a frame is dissected again.
local connections, states = {}, {}

function proto.init()
    connections, states = {}, {}
end

local function state_of(pinfo)
    local from = tostring(pinfo.src) .. " " .. pinfo.src_port
    local to = tostring(pinfo.dst) .. " " .. pinfo.dst_port
    local name = from < to and from .. " " .. to or to .. " " .. from
    connections[name] = connections[name] or { source = from }
    local connection = connections[name]
    connection[from] = connection[from] or {
        read = from == connection.source and read.header or read.return_path,
        offset = 0, sections = {}, plain_ram = true, page_bits = 12,
    }
    return connection[from]
end

local function copy(state)
    local found = {}
    for key, value in pairs(state) do found[key] = value end
    return found
end

function proto.dissector(tvb, pinfo, tree)
    pinfo.cols.protocol = "QEMU"
    local at = 0
    while at < tvb:len() do
        local key = pinfo.number .. ":" .. tvb:offset() .. ":" .. at
        local current = not pinfo.visited and state_of(pinfo)
        local known = current or states[key]
        if not known then return at end
        local state = copy(known)
        local reader = setmetatable({ tvb = tvb, at = at, items = {} }, Reader)
        local good, line = pcall(state.read, reader, state)
        if not good then
            if type(line) ~= "table" then error(line, 0) end
            pinfo.desegment_offset = at
            pinfo.desegment_len = line.need > 0 and line.need or DESEGMENT_ONE_MORE_SEGMENT
            return tvb:len()
        end
        if current then
            states[key] = copy(current)
            state.offset = current.offset + reader.at - at
            for name, value in pairs(state) do current[name] = value end
        end
        local branch = tree:add(proto, tvb(at, reader.at - at))
        branch:add(object_field, tvb(at, reader.at - at), states[key].offset .. " " .. line)
        if reader.flags and reader.flags ~= "" then branch:append_text(", " .. reader.flags) end
        for _, item in ipairs(reader.items) do branch:add(item[1], item[2]) end
        pinfo.cols.info:set(line)
        at = reader.at
    end
    return tvb:len()
end

proto:register_heuristic("tcp", function(tvb, pinfo, tree)
    if tvb:len() < 8 or tvb(0, 4):uint() ~= 1363498573 then return false end
    proto.dissector(tvb, pinfo, tree)
    pinfo.conversation = proto
    return true
end)
