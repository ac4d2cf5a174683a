// Where each field of each spool record lies, for readers that share no header with us.
#pragma once

#include <cstddef>
#include <vector>

#include "records/records.h"

namespace qmeter {

struct FieldLayout {
  const char* name;
  const char* format;  // numpy's: "<i8", "<u4", …
  size_t offset;
};

struct RecordLayout {
  const char* name;
  RecordKind kind;
  size_t size;
  std::vector<FieldLayout> fields;
};

// Every record of fixed size.
const std::vector<RecordLayout>& record_layouts();

// Size of a record of `kind`; 0 for payloads without a fixed size (strings, JSON) and unknown kinds.
size_t record_size(RecordKind kind);

}  // namespace qmeter
