// Kernel classes: one id per name and launch configuration, found without touching strings.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "abi/cupti.h"
#include "records/spool.h"

namespace qmeter {

class KernelClasses {
 public:
  // Ids are the spool's; without a spool they count up from 0.
  explicit KernelClasses(std::shared_ptr<Spool> spool);

  // Call before each buffer. A kernel's name pointer may be reused once its module is unloaded, so the text
  // behind a pointer is compared again once per buffer; within a buffer, one pointer has one text.
  void begin_buffer() noexcept { ++epoch_; }

  uint32_t kernel(const cupti::ActivityKernel& record);
  uint32_t memory_copy(uint8_t copy_kind);
  uint32_t memory_set();

 private:
  struct Launch {
    const char* name;
    std::array<int32_t, 8> shape;  // grid, block, static and dynamic shared memory
    uint16_t registers;
  };
  struct Entry {
    Launch launch{};
    uint64_t epoch = 0;  // 0: free
    uint32_t class_id = 0;
    const std::string* name = nullptr;
  };

  static Launch launch_of(const cupti::ActivityKernel& record) noexcept;
  static uint64_t hash(const Launch& launch) noexcept;
  static bool is_same(const Launch& a, const Launch& b) noexcept;
  Entry& find(const Launch& launch) noexcept;
  void renew(Entry& entry, const Launch& launch);
  void grow();
  uint32_t define(ActivityKind kind, const std::string& name, const Launch& launch);

  std::shared_ptr<Spool> spool_;
  uint32_t num_defined_ = 0;
  uint64_t epoch_ = 1;
  Entry* last_ = nullptr;
  std::vector<Entry> table_;  // open addressing, a power of two
  size_t num_entries_ = 0;
  std::unordered_map<std::string, std::string> demangled_;  // mangled name → readable name
  std::array<std::optional<uint32_t>, cupti::kMemcpyPtoP + 1> copies_;
  std::optional<uint32_t> set_;
};

}  // namespace qmeter
