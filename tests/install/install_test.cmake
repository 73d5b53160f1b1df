# SPDX-License-Identifier: MIT
#
# cmake -D BUILD=... -D SOURCE=... -D WORK=... [-D COMPONENT=trit] [-D PREFIX_PATH=...] [-D BUILD_TREE=ON]
#   -P install_test.cmake
# Installs BUILD (one component or all), moves the installation, builds the project SOURCE against it and runs its
# program. With COMPONENT=trit the installation must neither mention LibTorch nor the build machine's folders.
# With BUILD_TREE nothing is installed: the project finds the package in BUILD.
function(run)
  string(JOIN " " shown ${ARGN})
  message(STATUS "${shown}")
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# What a shared library or program loads and where it looks: the NEEDED and RUNPATH lines.
function(dynamic_section file result)
  execute_process(COMMAND "${READELF}" -dW "${file}" OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "\\((NEEDED|RUNPATH|RPATH)\\)[^\n]*" lines "${text}")
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

# The programs must run by their own RPATH. LibTorch is found through the environment, as a user would name it.
unset(ENV{LD_LIBRARY_PATH})
set(ENV{CMAKE_PREFIX_PATH} "${PREFIX_PATH}")
file(REMOVE_RECURSE "${WORK}")

# SOURCE with a package from `found`, built and run.
function(build_and_run found)
  run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${WORK}/build" -G "${GENERATOR}" -D "CMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}"
    -D "CMAKE_CXX_COMPILER=${COMPILER}" -D "CMAKE_CXX_FLAGS=${FLAGS}" -D "${found}")
  run("${CMAKE_COMMAND}" --build "${WORK}/build")
  run("${WORK}/build/consumer")
endfunction()

if(BUILD_TREE)
  build_and_run("trit_DIR=${BUILD}")
  return()
endif()

set(component "")
if(COMPONENT)
  set(component --component ${COMPONENT})
endif()
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/staging" ${component})
file(RENAME "${WORK}/staging" "${WORK}/prefix")

if(COMPONENT STREQUAL "trit")
  file(GLOB_RECURSE files LIST_DIRECTORIES false RELATIVE "${WORK}/prefix" "${WORK}/prefix/*")
  foreach(file IN LISTS files)
    if(file MATCHES "[Tt]orch")
      message(FATAL_ERROR "the torch-free component installs ${file}")
    endif()
    if(file MATCHES "\\.h$")
      file(STRINGS "${WORK}/prefix/${file}" leaks REGEX "# *include *[<\"](torch|ATen|c10|nlohmann|CLI|fmt|dnnl|oneapi|omp)")
      if(leaks)
        message(FATAL_ERROR "${file} needs a library that is private: ${leaks}")
      endif()
      file(READ "${WORK}/prefix/${file}" text)
      if(text MATCHES "\nnamespace trit" AND NOT text MATCHES "TRIT_EXPORT_BEGIN.*TRIT_EXPORT_END")
        message(FATAL_ERROR "${file} does not export its names: TRIT_EXPORT_BEGIN and TRIT_EXPORT_END (trit/export.h)")
      endif()
    elseif(file MATCHES "^bin/|/libtrit[^/]*\\.so")
      dynamic_section("${WORK}/prefix/${file}" lines)
      message(STATUS "${file}: ${lines}")
      if("${lines}" MATCHES "torch|c10|\\[/|:/")
        message(FATAL_ERROR "${file} needs torch or a folder of the build machine: ${lines}")
      endif()
      if(file MATCHES "libtrit[^/]*\\.so" AND NOT ALL_NAMES)
        # Only what include/trit declares is exported; nothing of the headers and libraries within. (A build with the LibTorch
        # half exports all.)
        execute_process(COMMAND "${NM}" -DC --defined-only "${WORK}/prefix/${file}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
        string(REGEX MATCHALL "[^\n]*(nlohmann|dnnl|MappedFile|trit::scalar|anonymous)[^\n]*" leaks "${symbols}")
        if(leaks OR NOT symbols MATCHES "trit::Model::load")
          message(FATAL_ERROR "${file} exports: ${leaks}")
        endif()
      endif()
    endif()
  endforeach()
  if(EXISTS "${WORK}/prefix/bin/trit")
    run("${WORK}/prefix/bin/trit" --help)
  endif()
endif()

if(EXISTS "${WORK}/prefix/lib/libtrit_torch.so" AND PREFIX_PATH)
  # A program that opens the library at run time (Python) has no RPATH of its own that leads to LibTorch.
  cmake_path(SET torch_lib NORMALIZE "${PREFIX_PATH}/../../lib")
  dynamic_section("${WORK}/prefix/lib/libtrit_torch.so" lines)
  if(NOT "${lines}" MATCHES "PATH\\)[^;]*${torch_lib}")
    message(FATAL_ERROR "libtrit_torch.so does not look for LibTorch in ${torch_lib}: ${lines}")
  endif()
endif()

build_and_run("CMAKE_PREFIX_PATH=${WORK}/prefix")

# The same program through pkg-config.
if(COMPONENT STREQUAL "trit" AND PKG_CONFIG)
  set(ENV{PKG_CONFIG_PATH} "${WORK}/prefix/lib/pkgconfig")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs trit OUTPUT_VARIABLE options OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(options UNIX_COMMAND "${options}")
  separate_arguments(FLAGS UNIX_COMMAND "${FLAGS}")
  run("${COMPILER}" ${FLAGS} "${SOURCE}/main.cpp" -o "${WORK}/by_pkg_config" ${options} "-Wl,-rpath,${WORK}/prefix/lib")
  run("${WORK}/by_pkg_config")
endif()
