// Just enough JSON to write statistics.
#pragma once

#include <cstdint>
#include <string>

namespace qmeter {

// `text` as a JSON string, with its quotes. Bytes above ASCII pass as they are: we take UTF-8 for granted.
std::string json_string(const std::string& text);

class JsonObject {
 public:
  JsonObject& add(const char* key, const std::string& text) { return add_raw(key, json_string(text)); }
  JsonObject& add(const char* key, uint64_t value) { return add_raw(key, std::to_string(value)); }
  // `json` is a JSON value already.
  JsonObject& add_raw(const char* key, const std::string& json);

  std::string text() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

}  // namespace qmeter
