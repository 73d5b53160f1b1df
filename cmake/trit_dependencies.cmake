# SPDX-License-Identifier: MIT
# Libraries that are not this project's own (docs/dependencies.md says why each).
#
# LibTorch and oneDNN come from the virtual environment that scripts/setup.py makes, unless CMAKE_PREFIX_PATH
# names others.
set(TRIT_VENV "${PROJECT_SOURCE_DIR}/.venv" CACHE PATH "Virtual environment with LibTorch and oneDNN")
if(IS_DIRECTORY "${TRIT_VENV}")
  list(APPEND CMAKE_PREFIX_PATH "${TRIT_VENV}")
endif()

# pip builds in an environment of its own, whose Python has the folders of the environment that it installs into: its torch
# is built against, and not downloaded a second time.
if(SKBUILD AND NOT LibTorch_DIR)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c
    "import importlib.util as u, site, sysconfig; s = u.find_spec('torch'); print(';'.join([*(s.submodule_search_locations if s else []), *(p + '/torch' for p in [sysconfig.get_path('purelib'), *site.getsitepackages()])]))"
    OUTPUT_VARIABLE torch_folders OUTPUT_STRIP_TRAILING_WHITESPACE)
  list(APPEND CMAKE_PREFIX_PATH ${torch_folders})
endif()

# trit_find_for(PART package version): find_package() for an optional part of the project, TRIT_<PART>. Without the
# package AUTO becomes OFF, and ON is an error.
macro(trit_find_for part package)
  if(TRIT_${part} STREQUAL "AUTO")
    find_package(${package} ${ARGN} QUIET)
    if(NOT ${package}_FOUND)
      set(TRIT_${part} OFF)
      message(STATUS "trit: no ${package} ${ARGN} found, so TRIT_${part} is OFF")
    endif()
  elseif(TRIT_${part})
    find_package(${package} ${ARGN} REQUIRED)
  endif()
endmacro()

find_package(OpenMP REQUIRED COMPONENTS CXX)
if(NOT TRIT_KERNELS_ONLY)
  find_package(nlohmann_json 3.11 REQUIRED)
endif()
set(TRIT_HAVE_ONEDNN OFF)
if(TRIT_ONEDNN AND NOT TRIT_KERNELS_ONLY)
  find_package(dnnl 3.2 CONFIG QUIET)
  set(TRIT_HAVE_ONEDNN ${dnnl_FOUND})
endif()
trit_find_for(APPS CLI11 2.1)
trit_find_for(APPS fmt 9.1)
trit_find_for(TORCH LibTorch 2.11)
if(TRIT_PYTHON STREQUAL "AUTO")
  set(TRIT_PYTHON ${TRIT_TORCH})
endif()
trit_find_for(PYTHON LibTorch 2.11)
if(CMAKE_CROSSCOMPILING AND TRIT_TESTS AND EXISTS /usr/src/googletest)
  add_subdirectory(/usr/src/googletest googletest EXCLUDE_FROM_ALL)  # Debian's package googletest
else()
  trit_find_for(TESTS GTest)
endif()
if(NOT TRIT_APPS)
  if(TRIT_BENCH AND NOT TRIT_BENCH STREQUAL "AUTO")
    message(FATAL_ERROR "trit: TRIT_BENCH needs TRIT_APPS")
  endif()
  set(TRIT_BENCH OFF)
endif()
# From here on each is ON or OFF.
foreach(part APPS TORCH PYTHON TESTS BENCH)
  if(TRIT_${part})
    set(TRIT_${part} ON)
  endif()
endforeach()
if(TRIT_TORCH)
  set(TORCH_LIBRARIES trit::libtorch)
endif()
# nvcc: CUDACXX or -DCMAKE_CUDA_COMPILER, else the PATH, else where NVIDIA's installers put it.
if(TRIT_CUDA)
  find_program(TRIT_NVCC nvcc PATHS /usr/local/cuda/bin /opt/cuda/bin)
endif()
if(TRIT_CUDA STREQUAL "AUTO" AND NOT TRIT_NVCC AND NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(TRIT_CUDA OFF)
  message(STATUS "trit: no nvcc found, so TRIT_CUDA is OFF")
endif()
if(TRIT_CUDA)
  set(TRIT_CUDA ON)
  if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND TRIT_NVCC)
    set(CMAKE_CUDA_COMPILER "${TRIT_NVCC}")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
    message(FATAL_ERROR "trit: nvcc ${CMAKE_CUDA_COMPILER_VERSION} found, 12.4 or newer wanted (C++20 and sm_90a)")
  endif()
  if(NOT "cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
    message(FATAL_ERROR "trit: CMake ${CMAKE_VERSION} found, which does not know that nvcc compiles C++20; wanted 3.26 or newer for the GPU half")
  endif()
  find_package(CUDAToolkit REQUIRED)
endif()
message(STATUS "trit ${PROJECT_VERSION}: oneDNN ${TRIT_HAVE_ONEDNN}, CUDA ${TRIT_CUDA} ${CMAKE_CUDA_COMPILER_VERSION}, "
  "LibTorch ${TRIT_TORCH} ${LibTorch_VERSION}, Python ${TRIT_PYTHON}, command ${TRIT_APPS}, tests ${TRIT_TESTS}, benchmarks ${TRIT_BENCH}")
