# SPDX-License-Identifier: MIT
# Libraries that are not this project's own (docs/dependencies.md says why each).
#
# LibTorch and oneDNN come from the virtual environment that scripts/setup.py makes, unless CMAKE_PREFIX_PATH
# names others.
set(TRIT_VENV "${PROJECT_SOURCE_DIR}/.venv" CACHE PATH "Virtual environment with LibTorch and oneDNN")
if(IS_DIRECTORY "${TRIT_VENV}")
  list(APPEND CMAKE_PREFIX_PATH "${TRIT_VENV}")
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(fmt 9.1 REQUIRED)
set(TRIT_HAVE_ONEDNN OFF)
if(TRIT_ONEDNN)
  find_package(dnnl 3.2 CONFIG QUIET)
  set(TRIT_HAVE_ONEDNN ${dnnl_FOUND})
endif()
if(TRIT_TORCH)
  find_package(LibTorch 2.11 REQUIRED)
  set(TORCH_LIBRARIES trit::libtorch)
endif()
if(TRIT_TESTS)
  find_package(GTest REQUIRED)
endif()
message(STATUS "trit: oneDNN ${TRIT_HAVE_ONEDNN}, LibTorch ${TRIT_TORCH} ${LibTorch_VERSION}, tests ${TRIT_TESTS}")
