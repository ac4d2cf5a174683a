#include "inject/injection.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "driver/cupti_search.h"
#include "inject/process_identity.h"

namespace qmeter {
namespace {

constexpr int64_t kPatienceNs = 10 * kNsPerSecond;
constexpr int64_t kPollPeriodNs = 20'000'000;  // 50 looks at the control block a second cost 0.02 % of a core
constexpr int64_t kFactsPeriodNs = kNsPerSecond;
constexpr int64_t kOffsetsPeriodNs = 10 * kNsPerSecond;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ';');
  return text;
}

std::string json_list(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + json_string(text);
  return "[" + list + "]";
}

}  // namespace

InjectionOptions InjectionOptions::from_environment() {
  InjectionOptions options;
  options.spool_dir = environment("QMETER_SPOOL_DIR");
  options.control_path = environment("QMETER_CONTROL");
  options.cupti_dirs = split(environment("QMETER_CUPTI_DIRS"), ':');
  // The program may grow by 128 MiB: 64 for CUPTI's buffers, 32 for the spool, the rest for code and names.
  options.tracer.buffer_bytes = 2 * 1024 * 1024;
  options.tracer.buffer_budget_bytes = 64 * 1024 * 1024;
  options.tracer.has_windows = true;
  options.spool.queue_bytes = 32 * 1024 * 1024;
  options.spool.flush_period_ns = 300'000'000;  // with 0.3 s in CUPTI, less than a second is lost to SIGKILL
  return options;
}

Injection::Injection(const InjectionOptions& options)
    : start_ns_(realtime_ns()), control_(options.control_path) {
  const ProcessIdentity identity = ProcessIdentity::of_this_process();
  spool_ =
      std::make_shared<Spool>(identity.free_spool_path(options.spool_dir), identity.json(), options.spool);
  is_recording_ = demand_at(control_.read(), realtime_ns()).is_recording;
  try {
    start_tracer(options);
  } catch (const std::exception& error) {
    error_ = one_line(error.what());
  }
  write_stats();
  if (tracer_ != nullptr) watcher_ = start_thread("qmeter-inject", [this] { run(); });
}

void Injection::start_tracer(const InjectionOptions& options) {
  const CuptiSearch found = search_cupti(options.cupti_dirs);
  if (found.cupti == nullptr) {
    throw Error(ErrorCode::kNotFound,
                "CUPTI (libcupti.so.13 or .12) was not found; tried" + found.describe_tried());
  }
  cupti_ = found.cupti;
  KernelTracerOptions tracer = options.tracer;
  tracer.is_paused = !is_recording_;
  tracer_ = std::make_unique<KernelTracer>(spool_, found, tracer);
}

void Injection::run() noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!is_closing_) {
    lock.unlock();
    int64_t pause_ns = kPollPeriodNs;
    try {
      pause_ns = attend();
    } catch (const std::exception&) {  // no memory or no thread to be had: the next turn may be better
    }
    lock.lock();
    changed_.wait_for(lock, std::chrono::nanoseconds(pause_ns), [&] { return is_closing_; });
  }
  is_over_ = true;
  changed_.notify_all();
}

// One turn of the watcher; how long it may sleep.
int64_t Injection::attend() {
  const int64_t changes_ns = follow_control();
  tracer_->tend();
  const bool had_gpus = gpus_.uuids().has_value();
  gpus_.find();
  if (had_gpus != gpus_.uuids().has_value() || monotonic_ns() >= facts_due_ns_) {
    facts_due_ns_ = monotonic_ns() + kFactsPeriodNs;
    collect_facts();
  }
  return std::clamp<int64_t>(changes_ns - realtime_ns(), 0, kPollPeriodNs);
}

// Record or pause as the control block says; when that changes next.
int64_t Injection::follow_control() {
  const ControlDemand demand = demand_at(control_.read(), realtime_ns());
  if (demand.is_recording == is_recording_ || !error_.empty()) return demand.changes_ns;
  is_recording_ = demand.is_recording;
  if (!demand.is_recording) {
    tracer_->pause();
    return demand.changes_ns;
  }
  try {
    tracer_->resume();
  } catch (const Error& error) {
    error_ = one_line(error.what());
  }
  return demand.changes_ns;
}

// CUPTI's clock is read only once the program has initialized CUDA, which shows in its GPUs.
void Injection::collect_facts() {
  if (cupti_ != nullptr && gpus_.uuids() && monotonic_ns() >= offsets_due_ns_) {
    offsets_due_ns_ = monotonic_ns() + kOffsetsPeriodNs;
    offsets_.read(*cupti_);
  }
  write_stats();
}

std::string Injection::stats_json() const {
  JsonObject object;
  object.add("name", "inject").add_raw("error", error_.empty() ? "null" : json_string(error_));
  if (tracer_ != nullptr) {
    const KernelTracerInfo info = tracer_->info();
    object.add("path", info.path).add("version", info.version).add("how", info.how);
    object.add_raw("kinds", json_list(info.kinds));
  } else {
    object.add_raw("path", cupti_ != nullptr ? json_string(cupti_->path()) : "null");
    object.add_raw("version", cupti_ != nullptr ? std::to_string(cupti_->version()) : "null");
    object.add_raw("how", "null").add_raw("kinds", "[]");
  }
  object.add_raw("gpu_uuids", gpus_.uuids() ? json_list(*gpus_.uuids()) : "null");
  object.add("start_ns", static_cast<uint64_t>(start_ns_)).add("end_ns", static_cast<uint64_t>(end_ns_));
  object.add("control", control_.is_open() ? "file" : "absent");
  offsets_.add_to(object);
  return object.text();
}

void Injection::write_stats() {
  std::string stats = stats_json();
  if (stats == written_stats_) return;
  spool_->append_stats(stats);
  written_stats_ = std::move(stats);
}

void Injection::close() noexcept {
  if (!is_owner() || end_ns_ != 0) return;
  if (watcher_.joinable()) {
    std::unique_lock<std::mutex> lock(mutex_);
    is_closing_ = true;
    changed_.notify_all();
    if (!changed_.wait_for(lock, std::chrono::nanoseconds(kPatienceNs), [&] { return is_over_; })) {
      watcher_.detach();  // the driver does not return; the program ends with us as we are
      return;
    }
    lock.unlock();
    watcher_.join();
  }
  try {
    gpus_.find();
    collect_facts();
    if (tracer_ != nullptr) tracer_->close();
    end_ns_ = realtime_ns();
    write_stats();
    spool_->sync();  // what is not written yet is not counted
    spool_->append_stats(spool_->stats().json());
  } catch (const std::exception&) {  // no memory: the spool is closed without them
  }
  spool_->close();
}

}  // namespace qmeter
