#include "records/spool.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread.h"
#include "records/block_file.h"

namespace qmeter {
namespace {

constexpr size_t kMaxBlockBytes = 1u << 30;  // far below what the header's 32-bit length can say

bool is_dictionary(RecordKind kind) { return kind == RecordKind::kStrings || kind == RecordKind::kClass; }

bool is_counted(RecordKind kind) {
  return !is_dictionary(kind) && kind != RecordKind::kIdentity && kind != RecordKind::kStats;
}

}  // namespace

std::string SpoolStats::json() const {
  return JsonObject()
      .add("name", "spool")
      .add("blocks", blocks)
      .add("bytes", bytes)
      .add("records", records)
      .add("dropped_records", dropped_records)
      .add_raw("error", error.empty() ? "null" : json_string(error))
      .text();
}

// Records gather in one open block per kind. A full block is sealed: it joins the queue, after the open
// blocks of strings and classes, so that what it names is earlier in the file.
class Spool::Writer {
 public:
  Writer(const std::string& path, const std::string& identity_json, const SpoolOptions& options);
  ~Writer() { close(); }

  uint32_t intern(const std::string& text);
  uint32_t write_string(const std::string& text);
  uint32_t define_class(ClassRecord record);
  void append(RecordKind kind, const void* records, size_t size, size_t count) noexcept;
  void append_json(RecordKind kind, const std::string& json) noexcept;
  void sync() noexcept;
  void close() noexcept;
  SpoolStats stats();

 private:
  Block& open_block(RecordKind kind);
  uint32_t add_string(const std::string& text);
  void add_to_dictionary(RecordKind kind, const void* data, size_t size);
  size_t add_within_budget(RecordKind kind, const char* records, size_t size, size_t count);
  void seal(RecordKind kind);
  void seal_all();
  void push(Block block);
  void write_sealed(std::unique_lock<std::mutex>& lock);
  void sync_file(std::unique_lock<std::mutex>& lock);
  void fail(const std::string& error) noexcept;
  void leave_word(std::unique_lock<std::mutex>& lock) noexcept;
  void run() noexcept;

  const SpoolOptions options_;
  BlockFile file_;  // the writer thread's own once it runs
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable synced_;
  std::map<RecordKind, Block> open_;
  std::deque<Block> sealed_;
  size_t queued_bytes_ = 0;  // payload in open and sealed blocks
  std::unordered_map<std::string, uint32_t> strings_;
  uint32_t num_strings_ = 0;
  std::unordered_map<std::string, uint32_t> classes_;  // by the record's bytes
  uint64_t sync_requested_ = 0;
  uint64_t sync_done_ = 0;
  bool is_closing_ = false;
  SpoolStats stats_;
  std::mutex close_mutex_;
  std::thread thread_;
};

Spool::Writer::Writer(const std::string& path, const std::string& identity_json, const SpoolOptions& options)
    : options_(options), file_(path) {
  if (options.block_bytes == 0 || options.block_bytes > kMaxBlockBytes || options.flush_period_ns <= 0) {
    throw Error(ErrorCode::kInvalid, "block_bytes must be 1 to 2^30 and flush_period_ns positive");
  }
  strings_.emplace("", num_strings_++);
  Block identity(RecordKind::kIdentity);
  identity.add(identity_json.data(), identity_json.size(), 1);
  if (!file_.write(identity) || !file_.reserve()) throw Error(ErrorCode::kIo, file_.error());
  stats_.blocks = file_.num_blocks();
  stats_.bytes = file_.num_bytes();
  thread_ = start_thread("qmeter-spool", [this] { run(); });
}

uint32_t Spool::Writer::intern(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [entry, is_new] = strings_.try_emplace(text, num_strings_);
  if (is_new) add_string(text);
  return entry->second;
}

uint32_t Spool::Writer::write_string(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return add_string(text);
}

uint32_t Spool::Writer::define_class(ClassRecord record) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record.class_id = 0;
  const std::string key(reinterpret_cast<const char*>(&record), sizeof record);
  const auto [entry, is_new] = classes_.emplace(key, static_cast<uint32_t>(classes_.size()));
  if (is_new) {
    record.class_id = entry->second;
    add_to_dictionary(RecordKind::kClass, &record, sizeof record);
  }
  return entry->second;
}

void Spool::Writer::append(RecordKind kind, const void* records, size_t size, size_t count) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t num_added = 0;
  try {
    num_added = add_within_budget(kind, static_cast<const char*>(records), size, count);
  } catch (...) {  // no memory: the rest is lost, the program goes on
  }
  stats_.dropped_records += count - num_added;
}

void Spool::Writer::append_json(RecordKind kind, const std::string& json) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_closing_ || !stats_.error.empty()) return;
  try {
    Block block(kind);
    block.add(json.data(), json.size(), 1);
    queued_bytes_ += block.payload_bytes();
    push(std::move(block));
  } catch (...) {
  }
}

void Spool::Writer::sync() noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  if (is_closing_) return;
  const uint64_t ticket = ++sync_requested_;
  wake_.notify_one();
  synced_.wait(lock, [&] { return sync_done_ >= ticket; });
}

void Spool::Writer::close() noexcept {
  const std::lock_guard<std::mutex> one_at_a_time(close_mutex_);
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closing_ = true;
    wake_.notify_one();
  }
  thread_.join();
  file_.close();
}

SpoolStats Spool::Writer::stats() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

Block& Spool::Writer::open_block(RecordKind kind) {
  const auto [entry, is_new] = open_.try_emplace(kind, kind);
  if (is_new) entry->second.bytes.reserve(sizeof(SpoolBlockHeader) + options_.block_bytes);
  return entry->second;
}

uint32_t Spool::Writer::add_string(const std::string& text) {
  const uint32_t head[2] = {num_strings_++, static_cast<uint32_t>(text.size())};
  std::string payload(reinterpret_cast<const char*>(head), sizeof head);
  payload += text;
  add_to_dictionary(RecordKind::kStrings, payload.data(), payload.size());
  return head[0];
}

// Dictionaries are exempt from the budget: without them the records that were kept would name nothing.
void Spool::Writer::add_to_dictionary(RecordKind kind, const void* data, size_t size) {
  if (is_closing_ || !stats_.error.empty()) return;
  Block& block = open_block(kind);
  block.add(data, size, 1);
  queued_bytes_ += size;
  if (block.payload_bytes() >= options_.block_bytes) seal(kind);
}

size_t Spool::Writer::add_within_budget(RecordKind kind, const char* records, size_t size, size_t count) {
  if (is_closing_ || !stats_.error.empty() || size == 0) return 0;
  const size_t room = options_.queue_bytes > queued_bytes_ ? options_.queue_bytes - queued_bytes_ : 0;
  const size_t num_fitting = std::min(count, room / size);
  size_t num_added = 0;
  while (num_added < num_fitting) {
    Block& block = open_block(kind);
    const size_t used = block.payload_bytes();
    const size_t block_room = options_.block_bytes > used ? (options_.block_bytes - used) / size : 0;
    const size_t batch = std::min(num_fitting - num_added, std::max<size_t>(block_room, used == 0 ? 1 : 0));
    block.add(records + num_added * size, batch * size, static_cast<uint32_t>(batch));
    queued_bytes_ += batch * size;
    num_added += batch;
    if (block.payload_bytes() + size > options_.block_bytes) seal(kind);
  }
  return num_added;
}

void Spool::Writer::seal(RecordKind kind) {
  if (kind != RecordKind::kStrings)
    seal(kind == RecordKind::kClass ? RecordKind::kStrings : RecordKind::kClass);
  auto block = open_.extract(kind);
  if (!block.empty()) push(std::move(block.mapped()));
}

void Spool::Writer::seal_all() {
  while (!open_.empty()) seal(open_.begin()->first);
}

void Spool::Writer::push(Block block) {
  sealed_.push_back(std::move(block));
  wake_.notify_one();
}

// Writes what is sealed now; what others seal meanwhile waits for the next turn, so that a sync always ends.
void Spool::Writer::write_sealed(std::unique_lock<std::mutex>& lock) {
  for (size_t left = sealed_.size(); left > 0; --left) {
    Block block = std::move(sealed_.front());
    sealed_.pop_front();
    lock.unlock();
    const bool is_written = file_.write(block);
    lock.lock();
    queued_bytes_ -= block.payload_bytes();
    stats_.blocks = file_.num_blocks();
    stats_.bytes = file_.num_bytes();
    if (!is_written) fail(file_.error());
    if (is_counted(block.kind)) (is_written ? stats_.records : stats_.dropped_records) += block.count;
  }
}

void Spool::Writer::sync_file(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  file_.sync();
  lock.lock();
  if (!file_.error().empty()) fail(file_.error());
}

void Spool::Writer::fail(const std::string& error) noexcept {
  try {
    if (stats_.error.empty()) stats_.error = error;
  } catch (...) {
    stats_.error = "out of memory";  // fits the small-string buffer
  }
}

// Say why writing failed where there is room for it.
void Spool::Writer::leave_word(std::unique_lock<std::mutex>& lock) noexcept {
  std::string json;
  try {
    json = stats_.json();
  } catch (const std::exception&) {  // no memory: readers see that the end is missing
    return;
  }
  lock.unlock();
  file_.fill_reserve(json);
  lock.lock();
}

void Spool::Writer::run() noexcept {
  const auto period = std::chrono::nanoseconds(options_.flush_period_ns);
  std::unique_lock<std::mutex> lock(mutex_);
  int64_t flush_due_ns = monotonic_ns() + options_.flush_period_ns;
  bool is_last = false;
  bool is_said = false;  // that writing failed: at once, as a SIGKILL may come, and with the final counts
  while (!is_last) {
    wake_.wait_for(lock, period,
                   [&] { return is_closing_ || !sealed_.empty() || sync_requested_ != sync_done_; });
    is_last = is_closing_;
    const uint64_t ticket = sync_requested_;
    const bool is_sync = is_last || ticket != sync_done_;
    try {
      if (is_sync || monotonic_ns() >= flush_due_ns) {
        seal_all();
        flush_due_ns = monotonic_ns() + options_.flush_period_ns;
      }
    } catch (...) {
      fail("out of memory");
    }
    write_sealed(lock);
    if (is_sync) sync_file(lock);
    if (!stats_.error.empty() && (is_last || !is_said)) {
      leave_word(lock);
      is_said = true;
    }
    sync_done_ = ticket;
    synced_.notify_all();
  }
}

Spool::Spool(const std::string& path, const std::string& identity_json, const SpoolOptions& options)
    : writer_(std::make_unique<Writer>(path, identity_json, options)) {}

Spool::~Spool() {
  if (!guard_.is_owner()) writer_.release();  // its thread and perhaps its locks are the parent's
}

uint32_t Spool::intern(const std::string& text) { return guard_.is_owner() ? writer_->intern(text) : 0; }

uint32_t Spool::write_string(const std::string& text) {
  return guard_.is_owner() ? writer_->write_string(text) : 0;
}

uint32_t Spool::define_class(ClassRecord record) {
  return guard_.is_owner() ? writer_->define_class(record) : 0;
}

void Spool::append(RecordKind kind, const void* records, size_t size, size_t count) noexcept {
  if (guard_.is_owner()) writer_->append(kind, records, size, count);
}

void Spool::append_stats(const std::string& json) noexcept {
  if (guard_.is_owner()) writer_->append_json(RecordKind::kStats, json);
}

void Spool::sync() noexcept {
  if (guard_.is_owner()) writer_->sync();
}

SpoolStats Spool::stats() const { return guard_.is_owner() ? writer_->stats() : SpoolStats{}; }

void Spool::close() noexcept {
  if (guard_.is_owner()) writer_->close();
}

}  // namespace qmeter
