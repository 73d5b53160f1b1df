// SPDX-License-Identifier: MIT
//
// Which kernel norm_quant with group scales or a rotation uses for 16-bit rows that a block holds in registers:
//
//   norm_quant_few               at most a row a multiprocessor: one row's time counts
//   norm_quant_rotated           a rotation of 512 or 1024, rows of a multiple of 2048 up to 8192
//   norm_quant_groups_registers  all others up to 16,384 inputs
#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/norm_quant_few.cuh"
#include "cuda/rows/norm_quant_groups_registers.cuh"
#include "cuda/rows/norm_quant_rotated.cuh"

namespace trit::cuda {
namespace {

/// Calls call.operator()<type, norm>(), of 16-bit inputs.
template <typename Call>
void for_row_type(const NormQuant& args, const Call& call) {
  const bool norm = args.norm == Norm::rms;
  if (args.x_type == DataType::bfloat16) {
    norm ? call.template operator()<DataType::bfloat16, true>()
         : call.template operator()<DataType::bfloat16, false>();
  } else {
    norm ? call.template operator()<DataType::float16, true>()
         : call.template operator()<DataType::float16, false>();
  }
}

/// What all three kernels want.
bool fits(const NormQuant& args, const GroupArguments& arguments) {
  return args.x_type != DataType::float32 && args.in_features % 8 == 0 &&
         (arguments.block == 0 || args.group % 128 == 0) && args.x_stride % 8 == 0 &&
         is_aligned(args.x, 16) && is_aligned(args.norm_weight, 16) && is_aligned(args.rotation_signs, 8);
}

/// As many blocks as run at a time, each of which takes rows in turn. `threads`: of a multiprocessor at most. A block
/// takes 1 KiB of shared memory more.
LaunchShape shape_of_blocks(const Device& device, const NormQuant& args, std::int64_t threads_of_block,
                            std::int64_t threads, std::int64_t bytes) {
  const std::int64_t of_one =
      std::min(threads / threads_of_block, (device.shared_bytes + 1024) / (bytes + 1024));
  return {.grid = {static_cast<unsigned>(std::min(args.tokens, of_one * device.multiprocessors))},
          .block = {static_cast<unsigned>(threads_of_block)},
          .shared_bytes = static_cast<unsigned>(bytes),
          .programmatic = args.programmatic};
}

/// Launches norm_quant_few where it takes such rows, a block for each on a multiprocessor of its own.
bool launch_few(const Device& device, const NormQuant& args, const GroupArguments& arguments, Stream stream) {
  const bool rotated = arguments.block > 0;
  const std::int64_t threads = args.in_features / kFewHeld;
  const std::int64_t bytes = few_shared_bytes(args.in_features, rotated);
  if (args.tokens > device.multiprocessors || arguments.block > 1024 || args.in_features % 1024 != 0 ||
      threads > kMostFewThreads || bytes > device.shared_bytes || !is_aligned(args.rotation_signs, 16)) {
    return false;
  }
  const LaunchShape shape{.grid = {static_cast<unsigned>(args.tokens)},
                          .block = {static_cast<unsigned>(threads)},
                          .shared_bytes = static_cast<unsigned>(bytes),
                          .programmatic = args.programmatic};
  for_row_type(args, [&]<DataType kType, bool kNorm>() {
    if (rotated) {
      launch<norm_quant_few_kernel<kType, kNorm, true>>("norm_quant_few", shape, stream, arguments);
    } else {
      launch<norm_quant_few_kernel<kType, kNorm, false>>("norm_quant_few", shape, stream, arguments);
    }
  });
  return true;
}

/// Launches norm_quant_rotated where it takes such rows.
bool launch_rotated(const Device& device, const NormQuant& args, const GroupArguments& arguments,
                    Stream stream) {
  const std::int64_t threads = args.in_features / kRotatedHeld;
  const std::int64_t bytes = rotated_shared_bytes(args.in_features);
  if ((arguments.block != 512 && arguments.block != 1024) || args.in_features % kRotatedInputsPerWarp != 0 ||
      threads > kRotatedThreads || bytes > device.shared_bytes) {
    return false;
  }
  const LaunchShape shape =
      shape_of_blocks(device, args, threads, std::int64_t{kRotatedThreads} * kRotatedBlocks, bytes);
  for_row_type(args, [&]<DataType kType, bool kNorm>() {
    if (arguments.block == 512) {
      launch<norm_quant_rotated_kernel<kType, kNorm, 512>>("norm_quant_rotated", shape, stream, arguments);
    } else {
      launch<norm_quant_rotated_kernel<kType, kNorm, 1024>>("norm_quant_rotated", shape, stream, arguments);
    }
  });
  return true;
}

/// Launches norm_quant_groups_registers where it takes such rows.
bool launch_registers(const Device& device, const NormQuant& args, const GroupArguments& arguments,
                      Stream stream) {
  const bool rotated = arguments.block > 0;
  const std::int64_t warps = ceil_div<std::int64_t>(args.in_features, kInputsPerWarp);
  const std::int64_t threads = 32 * warps;
  const std::int64_t padded = kInputsPerWarp * warps;
  const std::int64_t pieces = padded / (rotated ? 128 : 32);
  const std::int64_t bytes = kRowsAhead * padded * 2 + (rotated ? padded * 4 : 0) + kLanes * 4 +
                             2 * static_cast<std::int64_t>(sizeof(RowNorm)) + 2 * pieces * 4;
  if (threads > kHoldingThreads || bytes > device.shared_bytes) {
    return false;
  }
  const LaunchShape shape = shape_of_blocks(device, args, threads, kHoldingThreads, bytes);
  for_row_type(args, [&]<DataType kType, bool kNorm>() {
    constexpr const char* kName = "norm_quant_groups_registers";
    if (!rotated) {
      launch<norm_quant_groups_registers_kernel<kType, kNorm, 0>>(kName, shape, stream, arguments);
    } else if (arguments.block == 512) {
      launch<norm_quant_groups_registers_kernel<kType, kNorm, 512>>(kName, shape, stream, arguments);
    } else {
      launch<norm_quant_groups_registers_kernel<kType, kNorm, 1024>>(kName, shape, stream, arguments);
    }
  });
  return true;
}

}  // namespace

bool norm_quant_groups_held(const Device& device, const NormQuant& args, const GroupArguments& arguments,
                            Stream stream) {
  return fits(args, arguments) &&
         (launch_few(device, args, arguments, stream) || launch_rotated(device, args, arguments, stream) ||
          launch_registers(device, args, arguments, stream));
}

}  // namespace trit::cuda
