-- A dissector of Tributary's datagrams and frames for Wireshark and tshark:
--
--   tshark -X lua_script:tools/wireshark/tributary.lua -r annotated.pcapng -Y tributary -T fields -e tributary.sequence
--   cp tools/wireshark/tributary.lua ~/.local/lib/wireshark/plugins/
--
-- Heuristic: what begins with the magic number and version over UDP or TCP is ours, whatever the port. In a super-packet the
-- first header is shown; the datagrams behind it follow at its stride.

local tributary = Proto("tributary", "Tributary")

local types = {
  [0] = "HELLO", [1] = "COOKIE", [2] = "OFFER", [3] = "REQUEST", [4] = "DATA", [5] = "DONE", [6] = "CANCEL", [7] = "BLOCKS",
  [8] = "ERROR", [9] = "PING", [10] = "BYE",
}

local fields = {
  kind = ProtoField.uint8("tributary.type", "Type", base.DEC, types, 0x0f),
  version = ProtoField.uint8("tributary.version", "Version", base.DEC, nil, 0xf0),
  flags = ProtoField.uint8("tributary.flags", "Flags", base.DEC),
  flow = ProtoField.uint32("tributary.flow", "Flow", base.DEC),
  sequence = ProtoField.uint64("tributary.sequence", "Sequence", base.DEC),
  send_time = ProtoField.uint64("tributary.send_time", "Send time (ns of CLOCK_REALTIME)", base.DEC),
  offset = ProtoField.uint64("tributary.offset", "Object offset", base.DEC),
  payload_length = ProtoField.uint16("tributary.payload_length", "Payload length", base.DEC),
  stride = ProtoField.uint32("tributary.datagrams", "Datagrams in the super-packet", base.DEC),
}
for _, field in pairs(fields) do table.insert(tributary.fields, field) end

local HEADER = 32

local function is_ours(buffer)
  return buffer:len() >= HEADER and buffer(0, 2):uint() == 0x5442 and bit.rshift(buffer(2, 1):uint(), 4) == 1
    and types[bit.band(buffer(2, 1):uint(), 0x0f)] ~= nil
end

function tributary.dissector(buffer, info, tree)
  if not is_ours(buffer) then return 0 end
  info.cols.protocol = "TRIBUTARY"
  local kind = bit.band(buffer(2, 1):uint(), 0x0f)
  local payload = buffer(30, 2):uint()
  local branch = tree:add(tributary, buffer(0, HEADER))
  branch:add(fields.version, buffer(2, 1))
  branch:add(fields.kind, buffer(2, 1))
  branch:add(fields.flags, buffer(3, 1))
  branch:add(fields.flow, buffer(4, 4))
  branch:add(fields.sequence, buffer(8, 8))
  branch:add(fields.send_time, buffer(16, 8))
  branch:add(fields.offset, buffer(24, 6), buffer(24, 6):uint64())
  branch:add(fields.payload_length, buffer(30, 2))
  local stride = HEADER + payload
  local whole = buffer:reported_len()
  if whole > stride then branch:add(fields.stride, math.ceil(whole / stride)):set_generated() end
  info.cols.info = string.format("%s flow %u seq %s", types[kind], buffer(4, 4):uint(), tostring(buffer(8, 8):uint64()))
  return buffer:len()
end

local function heuristic(buffer, info, tree)
  if not is_ours(buffer) then return false end
  tributary.dissector(buffer, info, tree)
  return true
end

tributary:register_heuristic("udp", heuristic)
tributary:register_heuristic("tcp", heuristic)
