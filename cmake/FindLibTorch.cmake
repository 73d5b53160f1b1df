# SPDX-License-Identifier: MIT
#
# LibTorch: the target trit::libtorch, LibTorch_VERSION, LibTorch_DIR (the folder with include/, lib/ and share/).
#
# Why not find_package(Torch): the TorchConfig.cmake of a CUDA build (the one on PyPI) ends in a fatal error on a
# machine without a CUDA toolkit, and on one with a toolkit it spends ten seconds on probing it, although C++ code
# needs the headers and three libraries only. This is what torch.utils.cpp_extension links as well.
#
# Looked for, in this order: LibTorch_DIR, CMAKE_PREFIX_PATH (torch.utils.cmake_prefix_path and an unpacked
# libtorch archive both do, a virtual environment with the package torch too), TRIT_VENV.
set(_libtorch_hints ${LibTorch_DIR} ${CMAKE_PREFIX_PATH})
file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" _libtorch_environment)
list(APPEND _libtorch_hints ${_libtorch_environment} ${TRIT_VENV})
foreach(_libtorch_prefix IN LISTS _libtorch_hints)
  file(GLOB _libtorch_packages "${_libtorch_prefix}/lib/python3*/site-packages/torch")
  list(APPEND _libtorch_hints ${_libtorch_packages})
endforeach()
find_file(LibTorch_VERSION_FILE NAMES TorchConfigVersion.cmake
  PATHS ${_libtorch_hints} PATH_SUFFIXES share/cmake/Torch Torch NO_DEFAULT_PATH
  DOC "share/cmake/Torch/TorchConfigVersion.cmake of LibTorch")
mark_as_advanced(LibTorch_VERSION_FILE)

if(LibTorch_VERSION_FILE)
  cmake_path(GET LibTorch_VERSION_FILE PARENT_PATH LibTorch_DIR)
  cmake_path(SET LibTorch_DIR NORMALIZE "${LibTorch_DIR}/../../..")
  string(REGEX REPLACE "/$" "" LibTorch_DIR "${LibTorch_DIR}")
  file(STRINGS "${LibTorch_VERSION_FILE}" LibTorch_VERSION REGEX "^set\\(PACKAGE_VERSION ")
  string(REGEX REPLACE ".*\"([0-9.]+).*" "\\1" LibTorch_VERSION "${LibTorch_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_VERSION_FILE LibTorch_DIR VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "add torch.utils.cmake_prefix_path to CMAKE_PREFIX_PATH, or leave the LibTorch half out (-DTRIT_TORCH=OFF)")

if(LibTorch_FOUND AND NOT TARGET trit::libtorch)
  add_library(trit::libtorch INTERFACE IMPORTED)
  set_target_properties(trit::libtorch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${LibTorch_DIR}/include;${LibTorch_DIR}/include/torch/csrc/api/include"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${LibTorch_DIR}/include;${LibTorch_DIR}/include/torch/csrc/api/include"
    # libtorch.so has no symbols; it is linked (against Debian's and Ubuntu's --as-needed) because it loads the
    # CUDA half, where there is one. The full paths give CMake the folder for RPATH.
    INTERFACE_LINK_LIBRARIES
      "${LibTorch_DIR}/lib/libtorch_cpu.so;${LibTorch_DIR}/lib/libc10.so;-Wl,--push-state,--no-as-needed \"${LibTorch_DIR}/lib/libtorch.so\" -Wl,--pop-state")
endif()
