# SPDX-License-Identifier: MIT
#
# trit_internal: the objects of `trit` as a static library, for what reaches names that a shared libtrit hides: tests,
# benchmarks, the LibTorch half.
if(NOT BUILD_SHARED_LIBS)
  add_library(trit_internal ALIAS trit)
  return()
endif()
get_target_property(objects trit SOURCES)
list(FILTER objects INCLUDE REGEX "TARGET_OBJECTS:")  # of the GPU's kernels
get_target_property(libraries trit LINK_LIBRARIES)
add_library(trit_internal STATIC EXCLUDE_FROM_ALL $<TARGET_OBJECTS:trit> ${objects})
set_target_properties(trit_internal PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(trit_internal PUBLIC cxx_std_20)
target_include_directories(trit_internal PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
target_link_libraries(trit_internal PRIVATE ${libraries})
