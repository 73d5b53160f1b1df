// SPDX-License-Identifier: MIT
#include "bench/lib/memory_read.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/buffer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::bench {
namespace {

/// A part is a multiple of this: a page, which holds four streams of whole cache lines.
constexpr std::size_t kPage = 4096;
constexpr int kTrials = 5;
/// The minimum part of a thread; reading it takes about as long as waking a thread. Smaller buffers are read
/// by fewer threads, as small layers are.
constexpr std::size_t kMinPart = std::size_t{64} << 10;

/// ORs all bits of a part of memory, so that no load can be optimised away. `bytes` is a multiple of kPage.
using Read = std::uint64_t (*)(const std::uint8_t* data, std::size_t bytes);

#if defined(__x86_64__)

// One stream, line after line, or four, each a quarter of the part. kDistance is the prefetch distance in
// bytes, into L1 or, as in the kernels, L2. (_MM_HINT_T0 is an enumerator for gcc and a number for clang.)
template <int kStreams, int kDistance, auto kHint = _MM_HINT_T0>
[[gnu::target("avx512f")]] std::uint64_t read_64(const std::uint8_t* data, std::size_t bytes) {
  const std::size_t apart = kStreams == 4 ? bytes / 4 : 64;
  const std::size_t step = kStreams == 4 ? 64 : 256;
  __m512i a = _mm512_setzero_si512();
  __m512i b = a;
  __m512i c = a;
  __m512i d = a;
  for (std::size_t at = 0; at < bytes / kStreams; at += step) {
    const std::uint8_t* line = data + at;
    if constexpr (kDistance > 0) {
      for (std::size_t i = 0; i < 4; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(line + i * apart + kDistance), kHint);
      }
    }
    a = _mm512_or_si512(a, _mm512_load_si512(line));
    b = _mm512_or_si512(b, _mm512_load_si512(line + apart));
    c = _mm512_or_si512(c, _mm512_load_si512(line + 2 * apart));
    d = _mm512_or_si512(d, _mm512_load_si512(line + 3 * apart));
  }
  a = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, a);
  return words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7];
}

template <int kStreams, int kDistance>
[[gnu::target("avx2")]] std::uint64_t read_32(const std::uint8_t* data, std::size_t bytes) {
  const std::size_t apart = kStreams == 4 ? bytes / 4 : 64;
  const std::size_t step = kStreams == 4 ? 64 : 256;
  __m256i a = _mm256_setzero_si256();
  __m256i b = a;
  for (std::size_t at = 0; at < bytes / kStreams; at += step) {
    for (std::size_t i = 0; i < 4; ++i) {
      const auto* line = reinterpret_cast<const __m256i*>(data + at + i * apart);
      if constexpr (kDistance > 0) {
        _mm_prefetch(reinterpret_cast<const char*>(line) + kDistance, _MM_HINT_T0);
      }
      a = _mm256_or_si256(a, _mm256_load_si256(line));
      b = _mm256_or_si256(b, _mm256_load_si256(line + 1));
    }
  }
  alignas(32) std::uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), _mm256_or_si256(a, b));
  return words[0] | words[1] | words[2] | words[3];
}

std::uint64_t read_16(const std::uint8_t* data, std::size_t bytes) {
  __m128i a = _mm_setzero_si128();
  __m128i b = a;
  for (std::size_t at = 0; at < bytes; at += 64) {
    const auto* line = reinterpret_cast<const __m128i*>(data + at);
    _mm_prefetch(reinterpret_cast<const char*>(line) + 8192, _MM_HINT_T0);
    a = _mm_or_si128(a, _mm_or_si128(_mm_load_si128(line), _mm_load_si128(line + 1)));
    b = _mm_or_si128(b, _mm_or_si128(_mm_load_si128(line + 2), _mm_load_si128(line + 3)));
  }
  a = _mm_or_si128(a, b);
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_or_si128(a, _mm_unpackhi_epi64(a, a))));
}

std::vector<Read> candidates() {
  if (__builtin_cpu_supports("avx512f")) {
    return {read_64<1, 0>, read_64<1, 2048>, read_64<1, 8192>, read_64<1, 8192, _MM_HINT_T1>,
            read_64<4, 0>, read_64<4, 1024>, read_64<4, 2048>, read_64<4, 2048, _MM_HINT_T1>};
  }
  if (__builtin_cpu_supports("avx2")) {
    return {read_32<1, 0>, read_32<1, 2048>, read_32<1, 8192>,
            read_32<4, 0>, read_32<4, 1024>, read_32<4, 2048>};
  }
  return {read_16};
}

#else

std::uint64_t read_words(const std::uint8_t* data, std::size_t bytes) {
  std::uint64_t all = 0;
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    std::uint64_t word;
    std::memcpy(&word, data + at, sizeof(word));
    all |= word;
  }
  return all;
}

std::vector<Read> candidates() { return {read_words}; }

#endif

}  // namespace

struct MemoryRead::State {
  Parallel& parallel;
  std::size_t threads;  // that read
  std::size_t part;     // bytes of one thread in one slice
  std::size_t slices;   // the parts of a thread are contiguous
  AlignedBuffer data;
  Read read = nullptr;
  std::size_t next = 0;
  std::atomic<std::uint64_t> sink{0};

  void run() {
    const auto read_part = [this](std::int64_t thread) {
      const std::size_t first = (static_cast<std::size_t>(thread) * slices + next) * part;
      sink |= read(data.data() + first, part);
    };
    if (threads == 1) {
      read_part(0);
    } else {
      parallel.run(static_cast<std::int64_t>(threads), read_part);
    }
    next = next + 1 == slices ? 0 : next + 1;
  }

  // Rounds over all candidates, minimum time of each: neighbours on the machine can only slow one down.
  void choose() {
    const std::vector<Read> all = candidates();
    std::vector<double> best(all.size(), 1e30);
    const std::size_t runs = std::max<std::size_t>(1, (std::size_t{8} << 20) / part);
    for (int trial = 0; trial < kTrials; ++trial) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        read = all[i];
        run();
        const auto start = std::chrono::steady_clock::now();
        for (std::size_t j = 0; j < runs; ++j) {
          run();
        }
        best[i] = std::min(best[i],
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
    }
    read = all[static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin())];
  }
};

MemoryRead::MemoryRead(Parallel& parallel, std::size_t bytes, std::size_t slice_bytes) {
  const std::size_t slice = slice_bytes == 0 ? bytes : std::min(slice_bytes, bytes);
  const auto threads =
      std::clamp<std::size_t>(slice / kMinPart, 1, static_cast<std::size_t>(parallel.threads()));
  const std::size_t part = ((slice + threads - 1) / threads + kPage - 1) / kPage * kPage;
  const std::size_t slices = (bytes + part * threads - 1) / (part * threads);
  state_.reset(new State{parallel, threads, part, slices, AlignedBuffer(part * slices * threads)});
  // The thread that reads a part touches it first, so that it is near. Untouched pages would share one zero page.
  parallel.run(static_cast<std::int64_t>(threads), [this](std::int64_t thread) {
    const std::size_t own = state_->part * state_->slices;
    std::memset(state_->data.data() + static_cast<std::size_t>(thread) * own, 1, own);
  });
  state_->choose();
}
MemoryRead::~MemoryRead() = default;

void MemoryRead::run() { state_->run(); }
std::size_t MemoryRead::bytes() const { return state_->part * state_->threads; }

}  // namespace trit::bench
