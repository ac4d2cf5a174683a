// The file under a spool: numbers blocks, checksums them and writes each with one write(). It lives in
// somebody else's program: a forked child gives up its copy of the descriptor, so that the lock ends with the
// writer, and nothing is written to a descriptor that the program closed and used for a file of its own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "records/records.h"
#include "records/spool_format.h"

namespace qmeter {

// Payload of one block, with room for its header in front.
struct Block {
  explicit Block(RecordKind block_kind) : kind(block_kind) {}

  RecordKind kind;
  uint32_t count = 0;
  std::vector<char> bytes = std::vector<char>(sizeof(SpoolBlockHeader));

  size_t payload_bytes() const noexcept { return bytes.size() - sizeof(SpoolBlockHeader); }
  void add(const void* data, size_t size, uint32_t num_records);
};

class BlockFile {
 public:
  // Throws Error(kIo) if `path` exists or cannot be created.
  explicit BlockFile(const std::string& path);
  ~BlockFile();
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  // Returns whether the block is in the file. After the first failure the file is left alone.
  bool write(Block& block) noexcept;
  // Write a kStats block that says nothing yet, for what must be said even when there is no space left.
  bool reserve() noexcept;
  // Put `json` into that block, in place. Nothing happens if it does not fit or cannot be written.
  void fill_reserve(const std::string& json) noexcept;
  void sync() noexcept;
  void close() noexcept;

  uint64_t num_blocks() const noexcept { return num_blocks_; }
  uint64_t num_bytes() const noexcept { return num_bytes_; }
  const std::string& error() const noexcept { return error_; }

 private:
  static void close_in_child() noexcept;
  bool has_own_file() const noexcept;
  void fail(const char* action, int error_number) noexcept;

  std::string path_;
  int fd_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  uint64_t num_blocks_ = 0;
  uint64_t num_bytes_ = 0;
  uint32_t reserve_sequence_ = 0;
  off_t reserve_offset_ = 0;
  std::string error_;
};

}  // namespace qmeter
