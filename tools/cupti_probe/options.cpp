#include "options.h"

#include <exception>
#include <map>

#include "base/error.h"

namespace probe {
namespace {

using qmeter::Error;
using qmeter::ErrorCode;

Attach parse_attach(const std::string& text) {
  if (text == "none") return Attach::kNone;
  if (text == "subscribed") return Attach::kSubscribed;
  if (text == "recording") return Attach::kRecording;
  throw Error(ErrorCode::kInvalid, "attach=" + text + ": expected none, subscribed or recording");
}

uint64_t parse_number(const std::string& key, const std::string& text) {
  size_t used = 0;
  uint64_t value = 0;
  try {
    value = std::stoull(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size()) {
    throw Error(ErrorCode::kInvalid, key + "=" + text + ": expected a whole number");
  }
  return value;
}

void set(Options& options, const std::string& key, const std::string& value) {
  const std::map<std::string, bool*> switches = {{"copies", &options.records_copies},
                                                 {"launches", &options.records_launches},
                                                 {"late", &options.is_loaded_late},
                                                 {"markers", &options.has_markers},
                                                 {"pinned", &options.is_pinned}};
  const std::map<std::string, uint64_t*> numbers = {{"device_buffer_bytes", &options.device_buffer_bytes},
                                                    {"activity_buffer_bytes", &options.activity_buffer_bytes},
                                                    {"flush_period_ms", &options.flush_period_ms},
                                                    {"batch", &options.batch},
                                                    {"kernel_ns", &options.kernel_ns},
                                                    {"soak_nodes", &options.soak_nodes},
                                                    {"soak_s", &options.soak_s}};
  if (key == "cupti") {
    options.cupti = value;
  } else if (key == "attach") {
    options.attach = parse_attach(value);
  } else if (const auto found = switches.find(key); found != switches.end()) {
    *found->second = parse_number(key, value) != 0;
  } else if (const auto number = numbers.find(key); number != numbers.end()) {
    *number->second = parse_number(key, value);
  } else {
    throw Error(ErrorCode::kInvalid, "unknown option: " + key);
  }
}

}  // namespace

Options parse_options(int argc, char** argv) {
  if (argc < 2) {
    throw Error(ErrorCode::kInvalid, "usage: cupti_probe replay|switching|late|clock|soak [key=value …]");
  }
  Options options;
  options.experiment = argv[1];
  for (int index = 2; index < argc; ++index) {
    const std::string argument = argv[index];
    const size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      throw Error(ErrorCode::kInvalid, argument + ": expected key=value");
    }
    set(options, argument.substr(0, equals), argument.substr(equals + 1));
  }
  if (options.experiment != "replay" && options.attach != Attach::kRecording) {
    throw Error(ErrorCode::kInvalid, options.experiment + " needs attach=recording");
  }
  return options;
}

}  // namespace probe
