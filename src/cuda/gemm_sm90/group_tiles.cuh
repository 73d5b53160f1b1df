// SPDX-License-Identifier: MIT
//
// The kinds of tiles of the persistent Hopper GEMM with group scales (groups.cuh).
#pragma once

#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {

/// Two warpgroups of 64 rows, which take the tokens in kPieces (groups_ahead.cuh). They wait for all wgmma at the end of a
/// stage: four tiles of k, or two where three stages would not fit.
template <GroupScales kScales, int kTokens, int kSegments, int kPieces = 1>
using GroupTile = Tile<1, kTokens, (kTokens > 96 ? 2 : 4), GroupOperand<kSegments, kScales>, 2, 1, kPieces>;
/// For any scales: kWarpgroups of 64 rows.
template <int kWarpgroups, int kTokens, int kSegments>
using GeneralTile = Tile<1, kTokens, 4, GroupOperand<kSegments, GroupScales::any>, kWarpgroups>;
/// Two warpgroups that share the k of 64 rows (groups_shared.cuh).
template <GroupScales kScales, int kTokens, int kSegments>
using SharedTile = Tile<1, kTokens, 4, GroupOperand<kSegments, kScales>, 1, 2>;

}  // namespace trit::cuda
