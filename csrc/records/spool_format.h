// A spool file is a sequence of blocks: header, then payload. Blocks are only ever appended, each with one
// write(), so that a killed process loses at most the block it was writing. All integers are little-endian.
//
// The writer holds an exclusive flock() on the file as long as it is open: a spool without one is over.
//
// The first block is kIdentity: JSON {"format": "qmeter-spool", "version": 1, "host": …, "boot_id": …, "pid":
// …, …}. The second is a kStats block of 4 KiB held in reserve, all that is ever overwritten: once a write
// has failed it becomes the statistics called "spool", which say why.
//
// A string or class is always written in an earlier block than the records that name it. String id 0 is "".
#pragma once

#include <cstdint>

namespace qmeter {

constexpr uint32_t kSpoolMagic = 0x42534D51;  // "QMSB"
constexpr uint16_t kSpoolVersion = 1;

#pragma pack(push, 1)
struct SpoolBlockHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t kind;      // RecordKind
  uint32_t sequence;  // 0, 1, 2, … in one file: a gap is a lost block
  uint32_t count;     // records in the payload (1 for JSON)
  uint32_t payload_bytes;
  uint32_t payload_crc;  // CRC-32 (zlib's polynomial) of the payload
  uint32_t header_crc;   // CRC-32 of the 24 bytes before this field
};
#pragma pack(pop)
static_assert(sizeof(SpoolBlockHeader) == 28);

}  // namespace qmeter
