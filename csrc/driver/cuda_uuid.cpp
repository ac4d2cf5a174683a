#include "driver/cuda_uuid.h"

namespace qmeter {

std::string uuid_text(const cuda::Uuid& uuid) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text = "GPU-";
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kHex[uuid.bytes[i] >> 4];
    text += kHex[uuid.bytes[i] & 0xF];
  }
  return text;
}

}  // namespace qmeter
