// CRC-32 with zlib's polynomial: crc32(data) here equals zlib.crc32(data) in Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qmeter {

uint32_t crc32(const void* data, size_t size) noexcept;

}  // namespace qmeter
