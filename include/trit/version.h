// SPDX-License-Identifier: MIT
//
// The version of this library. The build, the package and `trit --version` read it from here.
#pragma once

// While the major version is 0, a new minor version may change the API and the ABI.
#define TRIT_VERSION_MAJOR 0
#define TRIT_VERSION_MINOR 2
#define TRIT_VERSION_PATCH 0
#define TRIT_VERSION "0.2.0"
