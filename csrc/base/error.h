// The one exception of the native core. `code` is short and stable; bindings hand both to Python.
#pragma once

#include <stdexcept>
#include <string>

namespace qmeter {

enum class ErrorCode { kNotFound, kForbidden, kTaken, kDeviceLost, kIo, kInvalid, kUnsupported };

// The code's name in Python: "not_found", "forbidden", …
const char* error_code_name(ErrorCode code) noexcept;

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace qmeter
