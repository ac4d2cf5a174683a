// Kernels that move bytes and do little else: they show how fast DRAM and L2 can be read and written.
//
// Compiled at run time (NVRTC), so without any header. Accesses are 16 bytes a thread and go past L1 (.cg),
// so that what is measured is L2 or DRAM. A vector is 16 bytes; all sizes are counted in vectors.

namespace {

constexpr int kInFlight = 4;  // loads a thread has under way: 2048 threads x 4 x 16 bytes = 128 KiB an SM

__device__ unsigned fold(uint4 value) { return value.x ^ value.y ^ value.z ^ value.w; }

__device__ size_t first_vector() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ size_t stride() { return size_t(gridDim.x) * blockDim.x; }

}  // namespace

// Reads all of `source`, `num_passes` times. `sink` has one word for each block and keeps the compiler from
// dropping the loads. A pass begins a block's vectors later than the one before: no thread reads again what
// it read last.
extern "C" __global__ void qmeter_read(const uint4* __restrict__ source, size_t num_vectors, int num_passes,
                                       unsigned* sink) {
  unsigned folded = 0;
  const size_t step = stride();
  size_t first = first_vector();
  for (int pass = 0; pass < num_passes; ++pass) {
    size_t index = first;
    first = first + blockDim.x < step ? first + blockDim.x : first + blockDim.x - step;
    for (; index + (kInFlight - 1) * step < num_vectors; index += kInFlight * step) {
      uint4 values[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) values[i] = __ldcg(source + index + i * step);
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) folded ^= fold(values[i]) + pass;
    }
    for (; index < num_vectors; index += step) folded ^= fold(__ldcg(source + index)) + pass;
  }
  atomicXor(sink + blockIdx.x, folded);
}

// Writes all of `target` with numbers that toggle about half of their bits from one vector to the next.
extern "C" __global__ void qmeter_write(uint4* __restrict__ target, size_t num_vectors, unsigned seed) {
  for (size_t index = first_vector(); index < num_vectors; index += stride()) {
    unsigned mixed = (unsigned(index) ^ seed) * 0x9E3779B9u;  // the golden ratio: multiplicative hashing
    mixed ^= mixed >> 15;
    __stcg(target + index, make_uint4(mixed, mixed * 0x85EBCA6Bu, ~mixed, mixed * 0xC2B2AE35u));
  }
}

// Copies all of `source` to `target`.
extern "C" __global__ void qmeter_copy(const uint4* __restrict__ source, uint4* __restrict__ target,
                                       size_t num_vectors) {
  const size_t step = stride();
  size_t index = first_vector();
  for (; index + (kInFlight - 1) * step < num_vectors; index += kInFlight * step) {
    uint4 values[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) values[i] = __ldcg(source + index + i * step);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) __stcg(target + index + i * step, values[i]);
  }
  for (; index < num_vectors; index += step) __stcg(target + index, __ldcg(source + index));
}
