// Storms on the spool, for the sanitizers to watch. Usage: spool WORK_DIR
#include "records/spool.h"

#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "require.h"

namespace {

using namespace qmeter;

constexpr int kNumThreads = 4;
constexpr int kNumAppends = 300;
constexpr size_t kBatch = 50;

std::string fresh(const std::filesystem::path& work_dir, const char* name) {
  const auto path = work_dir / name;
  std::filesystem::remove(path);
  return path.string();
}

void append_all(Spool& spool, int thread) {
  std::vector<KernelRecord> records(kBatch);
  for (int i = 0; i < kNumAppends; ++i) {
    ClassRecord kernel_class{};
    kernel_class.name = spool.intern("kernel_" + std::to_string(thread) + "_" + std::to_string(i));
    spool.write_string("request_" + std::to_string(i));
    const uint32_t class_id = spool.define_class(kernel_class);
    for (KernelRecord& record : records) record.class_id = class_id;
    spool.append(RecordKind::kKernel, records);
    if (i % 50 == 0) spool.sync();
    if (i % 20 == 0) spool.append_stats("{\"name\": \"storm\"}");
  }
}

// Every record is written or counted as dropped, whatever the budget.
void storm(const std::string& path, const SpoolOptions& options) {
  Spool spool(path, "{}", options);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kNumThreads; ++thread) {
    threads.emplace_back([&spool, thread] { append_all(spool, thread); });
  }
  for (int i = 0; i < 200; ++i) spool.stats();
  for (std::thread& thread : threads) thread.join();
  std::thread closer([&spool] { spool.close(); });
  spool.close();
  closer.join();
  const SpoolStats stats = spool.stats();
  require(stats.records + stats.dropped_records == kNumThreads * kNumAppends * kBatch,
          "all records are accounted for");
  require(stats.error.empty(), "nothing failed");
}

void fill_disk(const std::string& path) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 64 * 1024;
  setrlimit(RLIMIT_FSIZE, &small);
  {
    Spool spool(path, "{}", SpoolOptions{});
    append_all(spool, 0);
    spool.close();
    require(!spool.stats().error.empty(), "the full disk is remembered");
  }
  setrlimit(RLIMIT_FSIZE, &before);
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 2, "one argument: a folder to work in");
  const std::filesystem::path work_dir = argv[1];
  storm(fresh(work_dir, "roomy.spool"), SpoolOptions{});
  storm(fresh(work_dir, "tight.spool"), SpoolOptions{1000, 5000, 1'000'000});
  fill_disk(fresh(work_dir, "full.spool"));
  return 0;
}
