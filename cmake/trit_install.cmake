# SPDX-License-Identifier: MIT
#
# cmake --install build --prefix P: the libraries, headers, the command, the CMake package "trit" and trit.pc.
#   find_package(trit)                    trit::trit, torch-free
#   find_package(trit COMPONENTS torch)   trit::torch as well, against the LibTorch that it was built with
# The install components are named likewise: `--component trit` leaves the LibTorch half out. The folder may be
# moved: programs and libraries find each other through $ORIGIN.
#
# The same package in the build folder (of a shared library), for a project that is worked on together with this one:
# -Dtrit_DIR=.../build.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(TRIT_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/trit")

set_target_properties(trit PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS trit EXPORT tritTargets COMPONENT trit)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/trit" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT trit
  FILES_MATCHING PATTERN "*.h" PATTERN torch.h EXCLUDE PATTERN distributed.h EXCLUDE)
install(EXPORT tritTargets NAMESPACE trit:: DESTINATION "${TRIT_PACKAGE_DIR}" COMPONENT trit)
if(BUILD_SHARED_LIBS)  # a static library's build folder would have to export what it was compiled with
  export(EXPORT tritTargets NAMESPACE trit:: FILE "${PROJECT_BINARY_DIR}/tritTargets.cmake")
endif()
if(TRIT_HAVE_ONEDNN)
  # An installation must not need .venv. Under its soname alone: the wheel has whole copies in place of links.
  install(FILES "$<TARGET_FILE:DNNL::dnnl>" RENAME "$<TARGET_SONAME_FILE_NAME:DNNL::dnnl>"
    DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT trit)
endif()

# A program that links a static libtrit links what that is made of.
set(TRIT_PC_PRIVATE "")
if(NOT BUILD_SHARED_LIBS)
  if(TRIT_HAVE_ONEDNN)
    target_link_libraries(trit PRIVATE
      "$<INSTALL_INTERFACE:\${_IMPORT_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libdnnl.so.${dnnl_VERSION_MAJOR}>")
    string(APPEND TRIT_PC_PRIVATE " -l:libdnnl.so.${dnnl_VERSION_MAJOR}")
  endif()
  if(TRIT_CUDA)
    target_link_libraries(trit PRIVATE $<INSTALL_INTERFACE:CUDA::cudart_static>)
    string(APPEND TRIT_PC_PRIVATE " -lcudart_static -lrt -ldl")
  endif()
  string(APPEND TRIT_PC_PRIVATE " -lstdc++ ${OpenMP_CXX_FLAGS}")
endif()
file(RELATIVE_PATH TRIT_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" TRIT_PC_PREFIX "${TRIT_PC_PREFIX}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/trit.pc.in" "${PROJECT_BINARY_DIR}/trit.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/trit.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT trit)

if(TARGET trit_command)
  file(RELATIVE_PATH TRIT_BIN_TO_LIB "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
  set_target_properties(trit_command PROPERTIES INSTALL_RPATH "$ORIGIN/${TRIT_BIN_TO_LIB}")
  install(TARGETS trit_command COMPONENT trit)
endif()

if(TARGET trit_torch)
  # LibTorch stays where it is: its folder goes into the RPATH. (INSTALL_RPATH_USE_LINK_PATH leaves out folders
  # below the source tree, and .venv is one.)
  set_target_properties(trit_torch PROPERTIES EXPORT_NAME torch INSTALL_RPATH "$ORIGIN;${LibTorch_DIR}/lib"
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  install(TARGETS trit_torch EXPORT tritTorchTargets COMPONENT torch)
  install(FILES "${PROJECT_SOURCE_DIR}/include/trit/torch.h" "${PROJECT_SOURCE_DIR}/include/trit/distributed.h"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/trit" COMPONENT torch)
  install(EXPORT tritTorchTargets NAMESPACE trit:: DESTINATION "${TRIT_PACKAGE_DIR}" COMPONENT torch)
  export(EXPORT tritTorchTargets NAMESPACE trit:: FILE "${PROJECT_BINARY_DIR}/tritTorchTargets.cmake")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake" "${PROJECT_BINARY_DIR}/FindLibTorch.cmake" COPYONLY)
  install(FILES "${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake" DESTINATION "${TRIT_PACKAGE_DIR}" COMPONENT torch)
endif()

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/tritConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/tritConfig.cmake" INSTALL_DESTINATION "${TRIT_PACKAGE_DIR}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/tritConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/tritConfig.cmake" "${PROJECT_BINARY_DIR}/tritConfigVersion.cmake"
  DESTINATION "${TRIT_PACKAGE_DIR}" COMPONENT trit)
