// A stand-in for CUDA's header, so that a C++ compiler can build the kernels and a CPU can run them: for tests where no
// GPU is. Blocks run one after the other; the threads of a block are fibers that take turns, and change only where they
// wait for each other. So what is proven is the arithmetic and the indices, not what a GPU makes of them.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

using std::abs;
using std::exp;
using std::floor;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = void*;

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid"; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

constexpr int kWarpSize = 32;
constexpr int kStackBytes = 1 << 16;

// A number of fibers that wait until all have come.
struct Barrier {
  int members = 0, arrived = 0, rounds = 0;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  dim3 index;
  int number = 0;
  bool done = false;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<uint64_t> slots;  // what a thread shows to its warp
  Barrier all;
  dim3 index, size;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  std::function<void()> kernel;
  bool moved = false;  // whether any fiber has passed a barrier or ended in this turn
};

inline Block block;

inline void wait(Barrier& barrier) {
  const int round = barrier.rounds;
  if (++barrier.arrived == barrier.members) {
    barrier.arrived = 0;
    ++barrier.rounds;
    block.moved = true;
    return;
  }
  while (barrier.rounds == round) swapcontext(&block.running->context, &block.scheduler);
}

inline Barrier& own_warp() { return block.warps[block.running->number / kWarpSize]; }

inline void run_fiber() {
  block.kernel();
  block.running->done = block.moved = true;
  --block.all.members;
  --own_warp().members;
  swapcontext(&block.running->context, &block.scheduler);
}

inline void run_block() {
  const int count = block.size.x * block.size.y;
  if (block.fibers.size() < size_t(count)) block.fibers.resize(count);
  block.slots.assign(count, 0);
  block.all = {count, 0, 0};
  block.warps.assign((count + kWarpSize - 1) / kWarpSize, Barrier{kWarpSize, 0, 0});
  if (count % kWarpSize) block.warps.back().members = count % kWarpSize;
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.index = dim3(i % block.size.x, i / block.size.x);
    fiber.number = i;
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (int left = count; left > 0;) {
    block.moved = false;
    for (int i = 0; i < count; ++i) {
      if (block.fibers[i].done) continue;
      block.running = &block.fibers[i];
      swapcontext(&block.scheduler, &block.running->context);
      left -= block.fibers[i].done;
    }
    if (left > 0 && !block.moved) {
      std::fprintf(stderr, "the threads of a block wait for each other in vain\n");
      std::abort();
    }
  }
}

}  // namespace emulation

#define threadIdx (emulation::block.running->index)
#define blockIdx (emulation::block.index)
#define blockDim (emulation::block.size)

template <typename... Parameters, typename... Arguments>
void emulate(void (*kernel)(Parameters...), dim3 grid, dim3 size, Arguments... arguments) {
  emulation::block.size = size;
  emulation::block.kernel = [=] { kernel(arguments...); };
  for (unsigned i = 0; i < grid.x; ++i) {
    emulation::block.index = dim3(i);
    emulation::run_block();
  }
}

inline void __syncthreads() { emulation::wait(emulation::block.all); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int distance) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  auto& slots = emulation::block.slots;
  const int own = emulation::block.running->number;
  __builtin_memcpy(&slots[own], &value, sizeof value);
  emulation::wait(emulation::own_warp());
  T other;
  __builtin_memcpy(&other, &slots[own ^ distance], sizeof other);
  emulation::wait(emulation::own_warp());
  return other;
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  auto& slots = emulation::block.slots;
  const int own = emulation::block.running->number, first = own / emulation::kWarpSize * emulation::kWarpSize;
  slots[own] = vote;
  emulation::wait(emulation::own_warp());
  unsigned votes = 0;
  for (int lane = 0; lane < emulation::kWarpSize && first + lane < int(slots.size()); ++lane) {
    votes |= unsigned(slots[first + lane]) << lane;
  }
  emulation::wait(emulation::own_warp());
  return votes;
}

inline int __ffs(unsigned value) { return __builtin_ffs(int(value)); }

template <typename T>
void atomicAdd(T* to, T value) {
  *to += value;
}

inline void atomicAdd(float4* to, float4 value) {
  *to = {to->x + value.x, to->y + value.y, to->z + value.z, to->w + value.w};
}
