#include "collect/kernel_classes.h"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

namespace qmeter {
namespace {

constexpr size_t kFirstTableSize = 1024;

constexpr std::array<const char*, cupti::kMemcpyPtoP + 1> kCopyNames = {
    "Memcpy",      "Memcpy HtoD", "Memcpy DtoH", "Memcpy HtoA", "Memcpy AtoH", "Memcpy AtoA",
    "Memcpy AtoD", "Memcpy DtoA", "Memcpy DtoD", "Memcpy HtoH", "Memcpy PtoP"};

std::string demangle(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(
      ::abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 && readable != nullptr ? readable.get() : mangled;
}

}  // namespace

KernelClasses::KernelClasses(std::shared_ptr<Spool> spool)
    : spool_(std::move(spool)), table_(kFirstTableSize) {}

uint32_t KernelClasses::kernel(const cupti::ActivityKernel& record) {
  const Launch launch = launch_of(record);
  if (last_ != nullptr && last_->epoch == epoch_ && is_same(last_->launch, launch)) return last_->class_id;
  Entry* entry = &find(launch);
  if (entry->epoch != epoch_) {
    if (entry->epoch == 0 && 2 * (num_entries_ + 1) > table_.size()) {
      grow();
      entry = &find(launch);
    }
    renew(*entry, launch);
  }
  last_ = entry;
  return entry->class_id;
}

uint32_t KernelClasses::memory_copy(uint8_t copy_kind) {
  const size_t index = copy_kind < copies_.size() ? copy_kind : 0;
  if (!copies_[index]) copies_[index] = define(ActivityKind::kMemcpy, kCopyNames[index], Launch{});
  return *copies_[index];
}

uint32_t KernelClasses::memory_set() {
  if (!set_) set_ = define(ActivityKind::kMemset, "Memset", Launch{});
  return *set_;
}

KernelClasses::Launch KernelClasses::launch_of(const cupti::ActivityKernel& record) noexcept {
  return {record.name,
          {record.grid_x, record.grid_y, record.grid_z, record.block_x, record.block_y, record.block_z,
           record.static_shared_memory, record.dynamic_shared_memory},
          record.registers_per_thread};
}

uint64_t KernelClasses::hash(const Launch& launch) noexcept {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // 2^64 over the golden ratio
  std::array<uint64_t, 4> words{};
  std::memcpy(words.data(), launch.shape.data(), sizeof words);
  uint64_t mixed = reinterpret_cast<uintptr_t>(launch.name) + launch.registers;
  for (const uint64_t word : words) {
    mixed = (mixed ^ word) * kMultiplier;
    mixed ^= mixed >> 32;
  }
  return mixed;
}

bool KernelClasses::is_same(const Launch& a, const Launch& b) noexcept {
  return a.name == b.name && a.shape == b.shape && a.registers == b.registers;
}

KernelClasses::Entry& KernelClasses::find(const Launch& launch) noexcept {
  const size_t mask = table_.size() - 1;
  size_t slot = hash(launch) & mask;
  while (table_[slot].epoch != 0 && !is_same(table_[slot].launch, launch)) slot = (slot + 1) & mask;
  return table_[slot];
}

// First sight of an entry in this buffer: new, known, or known by a pointer that now means another kernel.
void KernelClasses::renew(Entry& entry, const Launch& launch) {
  const char* text = launch.name != nullptr ? launch.name : "(unnamed kernel)";
  if (entry.epoch == 0 || *entry.name != text) {
    const auto found = demangled_.try_emplace(text).first;
    if (found->second.empty()) found->second = demangle(found->first);
    const uint32_t class_id = define(ActivityKind::kKernel, found->second, launch);
    if (entry.epoch == 0) ++num_entries_;
    entry = {launch, epoch_, class_id, &found->first};
  }
  entry.epoch = epoch_;
}

void KernelClasses::grow() {
  last_ = nullptr;  // it points into the table
  std::vector<Entry> old(2 * table_.size());
  old.swap(table_);
  for (const Entry& entry : old) {
    if (entry.epoch != 0) find(entry.launch) = entry;
  }
}

uint32_t KernelClasses::define(ActivityKind kind, const std::string& name, const Launch& launch) {
  if (spool_ == nullptr) return num_defined_++;
  ClassRecord record{};
  record.name = spool_->intern(name);
  record.kind = static_cast<uint8_t>(kind);
  record.grid_x = launch.shape[0];
  record.grid_y = launch.shape[1];
  record.grid_z = launch.shape[2];
  record.block_x = launch.shape[3];
  record.block_y = launch.shape[4];
  record.block_z = launch.shape[5];
  record.static_shared_bytes = launch.shape[6];
  record.dynamic_shared_bytes = launch.shape[7];
  record.registers = launch.registers;
  return spool_->define_class(record);
}

}  // namespace qmeter
