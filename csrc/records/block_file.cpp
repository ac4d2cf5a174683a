#include "records/block_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>

#include "base/error.h"
#include "records/crc32.h"

namespace qmeter {
namespace {

constexpr size_t kReserveBytes = 4096;  // an error names the spool, whose path may be as long
constexpr char kUnused[] = R"({"name": "reserve"})";

// All of `size` bytes, whatever signals and short writes come between; 0 or the error number.
int write_fully(int fd, const char* data, size_t size) noexcept {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    data += written;
    size -= static_cast<size_t>(written);
  }
  return 0;
}

void write_header(Block& block, uint32_t sequence) {
  SpoolBlockHeader header{};
  header.magic = kSpoolMagic;
  header.version = kSpoolVersion;
  header.kind = static_cast<uint16_t>(block.kind);
  header.sequence = sequence;
  header.count = block.count;
  header.payload_bytes = static_cast<uint32_t>(block.payload_bytes());
  header.payload_crc = crc32(block.bytes.data() + sizeof header, block.payload_bytes());
  header.header_crc = crc32(&header, offsetof(SpoolBlockHeader, header_crc));
  std::memcpy(block.bytes.data(), &header, sizeof header);
}

// A block of kReserveBytes: JSON may have blanks behind it.
Block reserve_block(std::string json) {
  json.resize(kReserveBytes, ' ');
  Block block(RecordKind::kStats);
  block.add(json.data(), json.size(), 1);
  return block;
}

// Open files of this process, for children that it forks. More than these keep their descriptors in the
// child.
std::array<std::atomic<const BlockFile*>, 16> open_files{};

void replace_open_file(const BlockFile* old_file, const BlockFile* new_file) noexcept {
  for (auto& place : open_files) {
    const BlockFile* expected = old_file;
    if (place.compare_exchange_strong(expected, new_file)) return;
  }
}

}  // namespace

void Block::add(const void* data, size_t size, uint32_t num_records) {
  const auto* begin = static_cast<const char*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
  count += num_records;
}

BlockFile::BlockFile(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw Error(ErrorCode::kIo, "cannot create " + path + ": " + std::strerror(errno));
  // Tells readers that we are alive: the kernel ends the lock with us. Some file systems have none.
  const int is_unlocked = flock(fd_, LOCK_EX | LOCK_NB);
  static_cast<void>(is_unlocked);
  struct stat status{};
  if (fstat(fd_, &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
  static const int registered = pthread_atfork(nullptr, nullptr, close_in_child);
  static_cast<void>(registered);
  replace_open_file(nullptr, this);
}

BlockFile::~BlockFile() { close(); }

void BlockFile::close_in_child() noexcept {
  for (auto& place : open_files) {
    const BlockFile* file = place.exchange(nullptr);
    if (file != nullptr && file->has_own_file()) ::close(file->fd_);
  }
}

bool BlockFile::has_own_file() const noexcept {
  struct stat status{};
  return fd_ >= 0 && fstat(fd_, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

bool BlockFile::write(Block& block) noexcept {
  if (!error_.empty() || fd_ < 0) return false;
  if (!has_own_file()) {
    fail("write", EBADF);
    return false;
  }
  write_header(block, static_cast<uint32_t>(num_blocks_));
  const int error_number = write_fully(fd_, block.bytes.data(), block.bytes.size());
  if (error_number != 0) {
    fail("write", error_number);
    // A disk that filled up in mid-block leaves a torn tail. Readers skip it; still, try to leave none.
    const int is_left = ftruncate(fd_, static_cast<off_t>(num_bytes_));
    static_cast<void>(is_left);
    return false;
  }
  num_blocks_ += 1;
  num_bytes_ += block.bytes.size();
  return true;
}

bool BlockFile::reserve() noexcept {
  try {
    reserve_sequence_ = static_cast<uint32_t>(num_blocks_);
    reserve_offset_ = static_cast<off_t>(num_bytes_);
    Block block = reserve_block(kUnused);
    return write(block);
  } catch (const std::exception&) {
    fail("write", ENOMEM);
    return false;
  }
}

void BlockFile::fill_reserve(const std::string& json) noexcept {
  if (reserve_offset_ == 0 || json.size() > kReserveBytes || !has_own_file()) return;
  try {
    Block block = reserve_block(json);
    write_header(block, reserve_sequence_);
    // With O_APPEND, Linux's pwrite() appends whatever the offset. Our position is at the end, as it was.
    if (fcntl(fd_, F_SETFL, 0) != 0) return;
    const ssize_t written = pwrite(fd_, block.bytes.data(), block.bytes.size(), reserve_offset_);
    static_cast<void>(written);
  } catch (const std::exception&) {  // no memory: the reserve stays empty
  }
}

void BlockFile::sync() noexcept {
  if (has_own_file() && error_.empty() && fdatasync(fd_) != 0) fail("sync", errno);
}

void BlockFile::close() noexcept {
  replace_open_file(this, nullptr);
  if (has_own_file()) flock(fd_, LOCK_UN);  // a child that was just forked may not have closed its copy yet
  if (has_own_file() && ::close(fd_) != 0 && error_.empty()) fail("close", errno);
  fd_ = -1;
}

void BlockFile::fail(const char* action, int error_number) noexcept {
  try {
    error_ = std::string("cannot ") + action + " " + path_ + ": " + std::strerror(error_number);
  } catch (...) {
    error_ = "disk error";  // fits the small-string buffer: no memory needed
  }
}

}  // namespace qmeter
