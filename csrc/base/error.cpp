#include "base/error.h"

namespace qmeter {

const char* error_code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kForbidden:
      return "forbidden";
    case ErrorCode::kTaken:
      return "taken";
    case ErrorCode::kDeviceLost:
      return "device_lost";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kUnsupported:
      return "unsupported";
  }
  return "invalid";
}

}  // namespace qmeter
