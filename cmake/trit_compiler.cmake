# SPDX-License-Identifier: MIT
# Language, warnings and the floating-point rules of the numerics contract.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
  set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
endif()

# docs/numerics.md: each operation is rounded by itself, NaN and denormals are kept.
foreach(flags "${CMAKE_CXX_FLAGS}" "${CMAKE_CXX_FLAGS_RELEASE}" "$ENV{CXXFLAGS}")
  if(flags MATCHES "-ffast-math|-Ofast|-funsafe-math-optimizations|-ffinite-math-only|-fassociative-math|-ffp-contract=(fast|on)")
    message(FATAL_ERROR "trit: '${CMAKE_MATCH_0}' breaks the numerics contract (docs/numerics.md); remove it from the flags")
  endif()
endforeach()

# Warnings are errors with the compilers that this project is developed with. Another one's new or false
# warnings (gcc 13 sees an array bound in ATen's headers that is not there) must not stop a user's build.
set(tested_compiler OFF)
if((CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION MATCHES "^12[.]") OR
   (CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION MATCHES "^14[.]"))
  set(tested_compiler ON)
endif()
option(TRIT_WARNINGS_AS_ERRORS "Stop the build at a warning" ${tested_compiler})

add_library(trit_options INTERFACE)
target_compile_options(trit_options INTERFACE
  -ffp-contract=off -fno-math-errno -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  $<$<BOOL:${TRIT_WARNINGS_AS_ERRORS}>:-Werror>)
# gcc 12 warns of "text" + std::string (GCC bug 105651, fixed in 13).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(trit_options INTERFACE -Wno-restrict)
endif()
# Sanitizers split blocks, and gcc then sees uses before initialisation in its own <regex> and <functional> that are not
# there (its manual says so of -Wmaybe-uninitialized); builds without them keep the warning.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
  target_compile_options(trit_options INTERFACE -Wno-maybe-uninitialized)
endif()
