// SPDX-License-Identifier: MIT
//
// See ../context.h: nothing of this header is mentioned.
#pragma once
